"""Says whether to distil from unimodal models (UMT) or to average them (UME), on your data.

    python -m launch.advise
    python -m launch.advise --config=configs/arrays.py --config.data.path=FILE.npz --seeds=5

Trains one model for each modality, then heads on their frozen encoders, a linear one and one with a
hidden layer, and compares these on validation data with the average of the unimodal predictions.
A linear head sees what modalities add to each other, the hidden layer also what only their
combination tells. WORKDIR gets the runs, as those of launch.compare, `advice.md`, and `next.py`: the
config to train next.
"""
import shlex
import sys

from absl import flags

from jaxmm import data
from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.report import advice
from jaxmm.report.run_report import final_scores
from jaxmm.train.loop import train
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
    accuracy = {}
    for run in runs:
        history = train(run.config, run.workdir, dataset=dataset, teachers=run.teachers).history
        value = final_scores(history, "val")["fused"]["accuracy"]
        print(f"{run.workdir}: {100 * value:.1f}% on validation data", flush=True)
        accuracy.setdefault(run.variant.method, []).append(value)
    average = accuracy["ume"]
    heads = {name: accuracy[method] for name, method in HEADS.items()}
    found = advice.advise(average, heads)
    shown = advice.text(found, average, heads)
    options = {"method.teachers": runs[0].teachers}
    if found.method == "umt":
        options["method.fusion"] = FUSIONS[found.head]
    command = shlex.join(["python", "-m", "launch.advise", *sys.argv[1:]])
    path = advice.write(workdir, shown, replace(app.config_for(found.method), options), command)
    print(f"\n{shown}\nTo follow it: python -m launch.train --config={path}")


if __name__ == "__main__":
    app.run(main)
