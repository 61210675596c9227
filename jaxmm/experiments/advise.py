"""Which method to train: by short runs of several, or UMT or UME by the rule of their paper."""
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxmm import data, escape
from jaxmm.config import Config, replace
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError, as_typed
from jaxmm.experiments import configs, folders
from jaxmm.experiments.compare import train_all
from jaxmm.experiments.configs import Chosen
from jaxmm.experiments.planning import Planned, plan_runs
from jaxmm.report import advice, tuning, variants
from jaxmm.report.units import number, unit
from jaxmm.task import make_task, need_classes
from jaxmm.train import experts
from jaxmm.train.checkpoints import REMEDY
from jaxmm.train.predictions import predict_split
from jaxmm.train.scores import main_head
from jaxmm.train.setup import Run, build
from jaxmm.train.teaching import folder_of, other_seed

HEADS = {"linear head": "frozen_linear", "mlp head": "frozen_linear+fusion=mlp"}
FUSIONS = {"linear head": "concat", "mlp head": "mlp"}
# From simple to costly.
CANDIDATES = ("recipe=default", "recipe=ensemble", "concat", "mlp_head", "mla", "recipe=no_tuning", "recipe=robust",
              "recipe=alternate", "umt+distance=normalised+warmup_epochs=3", "recipe=strong")


def advise(chosen: Chosen, seeds: int, workdir: str, command: str, methods: Sequence[str] | None = None,
           budget: float = 0.3, rule: bool = False) -> str:
    """Trains what the advice needs and writes it into the folder; returns it.

    Args:
      chosen: the config.
      seeds: runs of each method.
      workdir: the folder, "": one under runs/.
      command: what makes the advice again.
      methods: to choose from, as in a comparison, from simple to costly; None: `CANDIDATES`.
      budget: share of the epochs of each that it is tried for, in (0, 1].
      rule: whether to choose by the rule for UMT or UME instead, by whole runs.

    Raises:
      UserError: an error in one of the runs.
      FloatingPointError: runs diverged, and too few are left to say anything.
    """
    config = chosen.config
    if config.stream.kind:
        raise UserError("advise compares models of one task; choose a config without a stream, or "
                        "--config.stream.kind=")
    if rule and methods:
        raise UserError(f"--rule chooses between umt and ume; leave out --methods={','.join(methods)}")
    if not 0 < budget <= 1:
        raise UserError(f"--budget={budget}; expected a share of the epochs in (0, 1]")
    folder = folders.workdir(workdir, f"advise_{folders.data_name(config)}" + "_rule" * rule)
    dataset = data.load(config.data)
    task = make_task(config.task, dataset.class_names, dataset.splits["train"]["label"], target=dataset.target)
    need_classes(task, "advise", f"use `{as_typed('compare')}`")
    if len(dataset.modalities) < 2:
        raise UserError(f"{dataset.name} has only the modality {dataset.modalities[0]}; advise "
                        "needs two or more")
    config_for = functools.partial(configs.config_for, chosen)
    if rule:
        runs = plan_runs(config_for, ["ume", *HEADS.values()], seeds, dataset, folder)
        shown, following, title = by_rule(runs, dataset, config_for, task.headline)
    else:
        dataset = dataset._replace(splits={s: rows for s, rows in dataset.splits.items() if s != "test"})
        methods, left_out = (methods, "") if methods else fitting(CANDIDATES, config_for, dataset)
        if single := [v.method for v in variants.expand(methods, config_for, (), dataset.modalities) if v.modality]:
            raise UserError(f"--methods: {single[0]} is of one modality; advise chooses among models of all")
        runs = plan_runs(lambda method: shortened(config_for(method), budget), methods, seeds, dataset, folder)
        shown, following, title = by_trials(runs, dataset, config_for, task.headline, budget)
        shown += left_out
    path = advice.write(folder, shown, following, command, title)
    return f"\n{shown}\nTo follow it: {advice.follow(path)}"


def fitting(methods: Sequence[str], config_for: Callable[[str], Config], dataset: Dataset) -> tuple[list[str], str]:
    """Those of the methods that can be trained on the data, and lines on why the others cannot.

    Raises:
      UserError: none can.
    """
    found, errors = [], {}
    for method in methods:
        try:
            variant, = variants.expand([method], config_for, (), dataset.modalities)
            build(variant.config, dataset=dataset)
            found.append(method)
        except UserError as error:
            errors[method] = error
    if not found:
        raise errors[methods[0]]
    return found, "".join(f"\nLeft out, as it does not fit: {escape.markdown(f'{method}: {error}')}\n"
                          for method, error in errors.items())


def shortened(config: Config, budget: float) -> Config:
    """The config with this share of its epochs, one at least."""
    return replace(config, {path: max(round(budget * epochs), 1) for path, epochs in (
        ("train.epochs", config.train.epochs), ("optimizer.decay_epochs", config.optimizer.decay_epochs))})


def by_trials(runs: Sequence[Planned], dataset: Dataset, config_for: Callable[[str], Config], metric: str,
              budget: float) -> tuple[str, Config, str]:
    """The advice by runs of several methods: its text, the config to run next, and the title."""
    scores, costs, diverged = validated(runs, dataset, metric)
    seeds = {run.repeat for run in runs}
    whole = {name: np.stack([rows[seed] for seed in sorted(rows)]) for name, rows in scores.items()
             if seeds == set(rows)}
    if not whole:
        raise FloatingPointError(f"of every method a run diverged; {REMEDY}")
    found = advice.choose(whole, metric)
    shown = advice.text_of_choice(found, whole, costs, metric)
    if budget < 1:
        shown += (f"\nThese are trials of {budget:g} of the epochs that each of them has; the config to run next has "
                  "all.\n")
    if diverged:
        shown += f"\nDiverged, and so not among them: {', '.join(diverged)}.\n"
    following, = variants.expand([found.method], config_for, (), dataset.modalities)
    return shown, following.config, "Which method?"


def by_rule(runs: Sequence[Planned], dataset: Dataset, config_for: Callable[[str], Config], metric: str,
            ) -> tuple[str, Config, str]:
    """The same by the rule for UMT or UME."""
    scores, _, diverged = validated(runs, dataset, metric)
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
    return shown, replace(config_for(found.method), options), "UMT or UME?"


def validated(runs: Sequence[Planned], dataset: Dataset, metric: str,
              ) -> tuple[dict[str, dict[int, np.ndarray]], dict[str, str], list[str]]:
    """Trains the runs: [N] by method and seed, `advice.contributions` of their main head on validation data;
    the examples that each method took, teachers included, in millions; and what diverged."""
    scores, folders_of, diverged = {}, {}, []
    for run, trained in train_all(runs, dataset):
        folders_of.setdefault(run.variant.method, set()).add(run.workdir)
        if isinstance(trained, FloatingPointError):
            print(f"diverged: {trained}", flush=True)
            diverged.append(f"{run.variant.method} with seed {run.config.train.seed}")
            continue
        if run.teachers:
            folders_of[run.variant.method] |= {folder_of(name, run.teachers, trained.setup)
                                               for name in trained.setup.programs.teachers}
        rows = contributions(trained)
        reached = number(metric, rows.mean(), sign="%")
        print(f"{escape.printable(run.workdir)}: {reached} {unit(metric).title} on validation data", flush=True)
        scores.setdefault(run.variant.method, {})[run.repeat] = rows
    costs = {method: tuning.millions(tuning.examples(paths, dataset.modalities))
             for method, paths in folders_of.items()}
    return scores, costs, diverged


def contributions(trained: Run) -> np.ndarray:
    """[N] of the main head on validation data, of which none has a part in what it is scored by itself."""
    setup, val = trained.setup, trained.setup.dataset.splits["val"]
    outputs = predict_split(setup, trained.state, val)
    if experts.HEAD in outputs:
        found = setup.programs.fetch(trained.state.experts)
        outputs |= {experts.HEAD: experts.cross_fitted(outputs, val, found, setup.config.train.experts)}
    return advice.contributions(setup.task, outputs[main_head(outputs)], val["label"])


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
