"""Whether to distil from unimodal models (UMT) or to average them (UME)."""
import functools
from collections.abc import Mapping

import numpy as np

from jaxmm import data, escape
from jaxmm.config import replace
from jaxmm.errors import UserError, as_typed
from jaxmm.experiments import configs, folders
from jaxmm.experiments.configs import Chosen
from jaxmm.experiments.planning import plan_runs
from jaxmm.report import advice
from jaxmm.report.units import number, unit
from jaxmm.task import make_task, need_classes
from jaxmm.train.checkpoints import REMEDY
from jaxmm.train.schedule import train
from jaxmm.train.predictions import predict_split
from jaxmm.train.teaching import other_seed

HEADS = {"linear head": "frozen_linear", "mlp head": "frozen_linear+fusion=mlp"}
FUSIONS = {"linear head": "concat", "mlp head": "mlp"}


def advise(chosen: Chosen, seeds: int, workdir: str, command: str) -> str:
    """Trains what the advice needs and writes it into the folder; returns it.

    Raises:
      UserError: an error in one of the runs.
      FloatingPointError: there is no seed in which the average and a head did not diverge.
    """
    config, config_for = chosen.config, functools.partial(configs.config_for, chosen)
    if config.stream.kind:
        raise UserError("advise compares models of one task; choose a config without a stream, or "
                        "--config.stream.kind=")
    folder = folders.workdir(workdir, f"advise_{folders.data_name(config)}")
    dataset = data.load(config.data)
    task = make_task(config.task, dataset.class_names, dataset.splits["train"]["label"])
    need_classes(task, "advise", f"use `{as_typed('compare')}`")
    if len(dataset.modalities) < 2:
        raise UserError(f"{dataset.name} has only the modality {dataset.modalities[0]}; advise "
                        "needs two or more")
    runs = plan_runs(config_for, ["ume", *HEADS.values()], seeds, dataset, folder)
    metric, scores, diverged = task.headline, {}, []
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
    path = advice.write(folder, shown, replace(config_for(found.method), options), command)
    return f"\n{shown}\nTo follow it: {advice.follow(path)}"


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
