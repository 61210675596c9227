"""Says whether to distil from unimodal models (UMT) or to average them (UME), on your data.

    python -m launch.advise
    python -m launch.advise --config=configs/arrays.py --config.data.path=FILE.npz --seeds=5

Trains one model for each modality, then heads on their frozen encoders, a linear one and one with a
hidden layer, and compares these on validation data with the average of the unimodal predictions.
A linear head sees what modalities add to each other, the hidden layer also what only their
combination tells. WORKDIR gets the runs, as those of launch.compare, `advice.md`, and `next.json`:
the config to train next.
"""
import sys
from collections.abc import Mapping

import numpy as np
from absl import flags

from jaxmm import data, escape
from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.report import advice
from jaxmm.report.units import number, task_of, unit
from jaxmm.train.checkpoints import REMEDY
from jaxmm.train.loop import train
from jaxmm.train.setup import predict_split
from jaxmm.train.teaching import other_seed
from launch import app
from launch.planning import plan_runs

SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each, with the seeds config.train.seed + 0, 1...")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder; runs/advise_DATA by default.")
app.define_config("Config file; the method is what is asked.")

HEADS = {"linear head": "frozen_linear", "mlp head": "frozen_linear+fusion=mlp"}
FUSIONS = {"linear head": "concat", "mlp head": "mlp"}


def main() -> None:
    config = flags.FLAGS.config
    if config.stream.kind:
        raise UserError("advise compares models of one task; choose a config without a stream, or "
                        "--config.stream.kind=")
    workdir = app.workdir_flag(WORKDIR.value, f"advise_{app.data_name(config)}")
    dataset = data.load(config.data)
    if len(dataset.modalities) < 2:
        raise UserError(f"{dataset.name} has only the modality {dataset.modalities[0]}; advise "
                        "needs two or more")
    runs = plan_runs(app.config_for, ["ume", *HEADS.values()], SEEDS.value, dataset, workdir)
    metric, scores, diverged = task_of(dataset).headline, {}, []
    for run in runs:
        try:
            trained = train(run.config, run.workdir, dataset=dataset, teachers=run.teachers)
        except FloatingPointError as error:
            print(f"diverged: {error}", flush=True)
            diverged.append(f"{run.variant.method} with seed {run.config.train.seed}")
            continue
        val = trained.setup.dataset.splits["val"]
        outputs = predict_split(trained.setup, trained.state, val)["fused"]
        rows = advice.contributions(trained.setup.task, outputs, val["label"])
        reached = number(metric, rows.mean(), sign="%")
        print(f"{escape.printable(run.workdir)}: {reached} {unit(metric).title} on validation data",
              flush=True)
        scores.setdefault(run.variant.method, {})[run.config.train.seed] = rows
    average, heads = same_seeds(scores)
    found = advice.advise(average, heads, metric)
    shown = advice.text(found, average, heads, metric)
    if diverged:
        shown += (f"\nDiverged: {', '.join(diverged)}. Compared are the {len(average)} seeds in which "
                  f"the average and {' and '.join(heads)} did not.\n")
    seed = runs[0].config.train.seed
    options = {"method.teachers": runs[0].teachers.replace("{seed}", str(seed))}
    if found.method == "umt":
        options["train.seed"] = other_seed(seed)
        options["method.fusion"] = FUSIONS[found.head]
    command = escape.command(["python", "-m", "launch.advise", *sys.argv[1:]])
    path = advice.write(workdir, shown, replace(app.config_for(found.method), options), command)
    print(f"\n{shown}\nTo follow it: {advice.follow(path)}")


def same_seeds(scores: Mapping[str, Mapping[int, np.ndarray]]
               ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """[S, N] of the average, and of the heads that did not always diverge, in the same seeds.

    Args:
      scores: [N] by method and seed, `advice.contributions` of the runs that did not diverge.

    Raises:
      FloatingPointError: there is no such seed.
    """
    heads = {name: scores[method] for name, method in HEADS.items() if method in scores}
    average = scores.get("ume", {})
    seeds = sorted(set(average).intersection(*heads.values()))
    if not seeds or not heads:
        raise FloatingPointError("in no seed is there an average and a head to compare it with, as "
                                 f"runs diverged; {REMEDY}")
    return (np.stack([average[seed] for seed in seeds]),
            {name: np.stack([rows[seed] for seed in seeds]) for name, rows in heads.items()})


if __name__ == "__main__":
    app.run(main)
