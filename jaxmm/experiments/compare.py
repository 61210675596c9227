"""Several methods over several seeds, compared."""
import collections
import dataclasses
import functools
import itertools
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxmm import data, escape
from jaxmm.config import Config, StreamConfig, replace
from jaxmm.data.dataset import Dataset
from jaxmm.data.folds import MOST
from jaxmm.data.streams import make_stream
from jaxmm.errors import UserError, as_typed, suggest
from jaxmm.experiments import configs, folders, tuning
from jaxmm.experiments.configs import Chosen
from jaxmm.experiments.planning import Planned, claim, plan
from jaxmm.experiments.series import check_any_finished
from jaxmm.report import comparison, flat, plots, published, run_report, units, variants
from jaxmm.report import tuning as report
from jaxmm.report.analysis import probe_run
from jaxmm.task import not_for_maps
from jaxmm.train.options import check_counts
from jaxmm.train.schedule import train_many
from jaxmm.train.setup import Run, state_size

DEFAULT_METHODS = ("unimodal", "concat", "late", "mla")


def compare(chosen: Chosen, methods: Sequence[str] | None, seeds: int, workdir: str,
            capacities: Sequence[str], probe: bool, command: str, page: plots.Page | None = None,
            folds: int = 0, tune: str = "", tune_seeds: int = 1, tune_capacity: int = 0, baseline: str = "") -> str:
    """Trains all runs of a comparison and writes its report into the folder; returns the tables.

    Args:
      chosen: the config.
      methods: METHOD, METHOD:MODALITY, METHOD+OPTION=VALUE; None: those that the config's file names.
      seeds: runs of each.
      workdir: the folder, "": one under runs/.
      capacities: sizes of the memory.
      probe: also fit linear probes.
      command: what makes the report again.
      page: of paper, to draw figures for it too.
      folds: of a cross-validation, which take the place of seeds; 0: none.
      tune: OPTION=VALUE,VALUE;..., options to be chosen for each method on validation data; "": none.
      tune_seeds: trials of each setting of them.
      tune_capacity: size of the memory that they are chosen with, for all `capacities`; 0: each for itself.
      baseline: method that differences are taken to; "": none.

    Raises:
      UserError: whatever would stop one of the runs.
      FloatingPointError: all diverged.
    """
    config = chosen.config
    folder = folders.workdir(workdir, f"compare_{folders.data_name(config)}" + f"_{folds}_folds" * bool(folds))
    check_counts(config)
    check_folds(config, folds, seeds)
    sizes = parse_capacities(capacities)
    settings = read_settings(tune, tune_seeds, folds, tune_capacity, sizes)
    for path in settings[0] if settings else ():
        if path in chosen.overrides:
            raise UserError(f"--tune sets {path}; leave out --config.{path}")
    methods = methods_of(chosen, methods)
    config_for = functools.partial(configs.config_for, chosen)
    if folds:
        load = data.load_folds(dataclasses.replace(config.data, folds=folds))
        results, tables, workdirs = cross_validate(load, folds, config_for, methods, folder, command, sizes, probe,
                                                   page, baseline=baseline)
    else:
        results, tables, workdirs = compare_on(data.load(config.data), config.stream, config_for, methods, seeds,
                                               folder, command, sizes, probe, page, settings=settings,
                                               tune_seeds=tune_seeds, tune_capacity=tune_capacity,
                                               baseline=baseline)
    return said(tables, folder, workdirs, results)


def methods_of(chosen: Chosen, methods: Sequence[str] | None) -> Sequence[str]:
    """The methods to compare: those given or, if None, those that the config's file names."""
    return configs.default_methods(chosen.path) or DEFAULT_METHODS if methods is None else methods


def said(tables: str, folder: pathlib.Path, workdirs: Sequence[pathlib.Path],
         results: Sequence[comparison.Result]) -> str:
    """The tables of a comparison, where they are, what to type to look into its last run, and what diverged.

    `workdirs` are those of the runs that did not diverge.
    """
    one = escape.command([f"--workdir={workdirs[-1]}"])
    lost = collections.Counter(result.method for result in results if result.diverged)
    made = collections.Counter(result.method for result in results)
    listed = ", ".join(f"{method} ({count} of {made[method]} runs)" for method, count in lost.items())
    return (f"\n{tables}\n{run_report.where(folder)} To look into one of the runs:\n"
            f"  {as_typed('evaluate')} {one}"
            + f"\nDiverged: {escape.printable(listed)}; the lines on these runs say what to do." * bool(lost))


def compare_on(dataset: Dataset, stream: StreamConfig, config_for: Callable[[str], Config],
               methods: Sequence[str], seeds: int, folder: pathlib.Path, command: str,
               capacities: Sequence[int] = (), probe: bool = False, page: plots.Page | None = None,
               progress: bool = True, settings: Sequence[Mapping[str, str]] = (), tune_seeds: int = 1,
               tune_capacity: int = 0, baseline: str = "") -> tuple[list[comparison.Result], str, list[pathlib.Path]]:
    """`compare` on data that are there already: what every run reached, the tables, and the run folders.

    Args:
      dataset: to learn from.
      stream: of which it is to be, or one without a kind.
      config_for: the config of a method.
      methods: see `compare`, as the others.
      seeds: runs of each.
      folder: of the comparison.
      command: what makes the report again.
      capacities: sizes of the memory.
      probe: also fit linear probes.
      page: of paper, to draw figures for it too.
      progress: whether to show bars.
      settings: among which that of each method is chosen, see `tuning.parse`; none: options are as they are.
      tune_seeds: trials of each setting.
      tune_capacity: see `compare`.
      baseline: method that differences are taken to.
    """
    planner = functools.partial(plan, config_for, methods, seeds, dataset, folder, capacities)
    sections = ""
    if settings:
        models = variants.expand(methods, config_for, capacities, dataset.modalities)
        check_baseline(baseline, models)
        runs, results, sections = _tune(planner, models, settings, tune_seeds, tune_capacity, dataset, folder, probe,
                                        progress)
    else:
        runs = planner()
        check_baseline(baseline, [run.variant for run in runs])
        claim(runs)
        results = list(make_runs(runs, dataset, probe=probe, progress=progress))
    values = published.find([run.variant for run in runs], dataset)
    if stream.kind:
        dataset, _ = make_stream(stream, dataset)
    return results, *write(results, runs, dataset, folder, command=command, kind=stream.kind, published=values,
                           page=page, baseline=baseline, sections=sections)


def _tune(planner: Callable[..., list[Planned]], models: Sequence[variants.Variant],
          settings: Sequence[Mapping[str, str]], tune_seeds: int, tune_capacity: int, dataset: Dataset,
          folder: pathlib.Path, probe: bool, progress: bool,
          ) -> tuple[list[Planned], list[comparison.Result], str]:
    """Chooses the options of every model, and makes its runs with them: runs, results, and the report's part.

    With `tune_capacity` a model has the options of the one that differs only in having a memory of that size. A
    model of which all trials diverged is not trained again; its runs count as diverged.
    """
    seen = dataset._replace(splits={split: rows for split, rows in dataset.splits.items() if split != "test"})
    by_folder = {model.folder: model for model in models}
    like = {name: by_folder.get(model._replace(buffer=tune_capacity).folder, model) if tune_capacity else model
            for name, model in by_folder.items()}       # the model that it has its options of
    tuned = [model for name, model in by_folder.items() if like[name] is model]
    trials = tuning.plan(tuned, settings, tune_seeds, seen, folder)
    claim(itertools.chain(*trials))
    choices = []
    for part in trials:
        with tuning.timed(folder, part[0].variant.folder):
            choices.append(tuning.choose(part, settings, seen, progress))
    check_any_finished([choice.best is not None for choice in choices], folder, "methods")
    best = {choice.model.folder: settings[choice.best] for choice in choices if choice.best is not None}
    chosen = {name: tuning.typed(model.config, best[like[name].folder])
              for name, model in by_folder.items() if like[name].folder in best}
    runs = planner(tuned=chosen)
    claim(run for run in runs if run.variant.folder in chosen)
    results = []
    for name, group in itertools.groupby(runs, key=lambda run: run.variant.folder):
        same = list(group)
        if name not in chosen:
            results += [comparison.read_result(run.variant, run.repeat, None) for run in same]
            continue
        with tuning.timed(folder, name):
            results += make_runs(same, dataset, probe=probe, progress=progress)
    spent, costs = tuning.seconds(folder), []
    for model in tuned:
        alike = [name for name in by_folder if like[name] is model]
        costs.append(report.Cost(
            report.examples([folder / tuning.FOLDER / model.folder], dataset.modalities),
            report.examples([folder / name for name in alike], dataset.modalities),
            sum(spent.get(name, 0.0) for name in alike)))
    report.write_csv(choices, folder / "tuning.csv")
    return runs, results, report.section(choices, costs, len(runs) // len(models), tune_capacity)


def read_settings(tune: str, tune_seeds: int, folds: int, tune_capacity: int = 0,
                  capacities: Sequence[int] = ()) -> list[dict[str, str]]:
    """The settings that --tune names, see `tuning.parse`; none if it is "".

    Raises:
      UserError: it is no list of settings, or does not go with the others.
    """
    if not tune:
        if tune_seeds != 1:
            raise UserError(f"--tune_seeds={tune_seeds} needs --tune, such as "
                            "--tune=optimizer.learning_rate=0.01,0.1")
        if tune_capacity:
            raise UserError(f"--tune_capacity={tune_capacity} needs --tune, whose choice it is about; leave it out")
        return []
    if tune_capacity and tune_capacity not in capacities:
        listed = ",".join(map(str, capacities)) or "none"
        raise UserError(f"--tune_capacity={tune_capacity}; expected one of --capacities={listed}")
    if folds:
        raise UserError(f"--tune does not go with --folds={folds}; leave it out")
    return tuning.parse(tune)


def make_over(datasets: Mapping[Any, Dataset], config_for: Callable[[Any, str], Config], methods: Sequence[str],
              seeds: int, folder: pathlib.Path, part: Callable[[Any], str],
              ) -> tuple[dict[Any, list[Planned]], dict[Any, list[comparison.Result]]]:
    """Runs of several methods over the values of something, and what they reached, both by value.

    All runs are planned before the first is trained.

    Args:
      datasets: to learn from, by value.
      config_for: the config of a value and a method.
      methods: see `compare`.
      seeds: runs of each.
      folder: of the comparison.
      part: the name of a value's folder in that of a method.

    Raises:
      FloatingPointError: all diverged.
    """
    runs = {value: plan(functools.partial(config_for, value), methods, seeds, dataset, folder, part=part(value))
            for value, dataset in datasets.items()}
    claim(itertools.chain(*runs.values()))
    results = {value: list(make_runs(planned, datasets[value])) for value, planned in runs.items()}
    check_any_finished([not result.diverged for result in itertools.chain(*results.values())], folder)
    return runs, results


def finish_over(table: str, folder: pathlib.Path, runs: Mapping[Any, Sequence[Planned]],
                results: Mapping[Any, Sequence[comparison.Result]]) -> str:
    """Writes the flat table of runs by value; returns what `said` says of them, with the table of the report."""
    planned, made = [list(itertools.chain(*parts.values())) for parts in (runs, results)]
    flat.write(folder, [run.workdir for run in planned])
    return said(table, folder, [run.workdir for run, result in zip(planned, made) if not result.diverged], made)


def check_baseline(baseline: str, models: Iterable[variants.Variant]) -> None:
    """Raises UserError unless a method of the comparison is the baseline, if there is to be one."""
    names = {model.method for model in models}
    if baseline and baseline not in names:
        raise UserError(f"--baseline={baseline}: not in this comparison{suggest(baseline, names)}")


def check_folds(config: Config, folds: int, seeds: int) -> None:
    """Raises UserError for what cross-validation does not combine with."""
    if not folds:
        if config.data.folds:
            raise UserError(f"data.folds={config.data.folds} is one fold of a cross-validation, which train "
                            f"makes; to compare over all of them use --folds={config.data.folds}")
        return
    if not 2 <= folds <= MOST:
        raise UserError(f"--folds={folds}; expected 2 to {MOST}")
    for option, value in (("--seeds", seeds if seeds != 1 else 0), ("data.folds", config.data.folds),
                          ("data.fold", config.data.fold), ("stream.kind", config.stream.kind)):
        if value:
            raise UserError(f"--folds={folds} does not go with {option}={value}: folds take the place of seeds, "
                            "and are all made; leave it out")


def cross_validate(load: Callable[[int], Dataset], folds: int, config_for: Callable[[str], Config],
                   methods: Sequence[str], folder: pathlib.Path, command: str, capacities: Sequence[int] = (),
                   probe: bool = False, page: plots.Page | None = None, progress: bool = True,
                   baseline: str = "") -> tuple[list[comparison.Result], str, list[pathlib.Path]]:
    """`compare_on` over folds, which `load` makes by their numbers, in place of seeds.

    All folds are planned before the first is trained; one at a time is in memory. Published values are not
    shown, as they are of published splits.
    """
    def divided(method: str) -> Config:
        return replace(config_for(method), {"data.folds": folds})

    runs = [plan(divided, methods, 1, load(fold), folder, capacities, fold) for fold in range(folds)]
    check_baseline(baseline, [run.variant for run in runs[0]])
    claim(itertools.chain(*runs))
    results = []
    for fold, part in enumerate(runs):
        dataset = load(fold)
        results += make_runs(part, dataset, probe=probe, progress=progress)
    return results, *write(results, itertools.chain(*runs), dataset, folder, command=command, page=page,
                           repeats="folds", baseline=baseline)


def write(results: Sequence[comparison.Result], runs: Iterable[Planned], dataset: Dataset, folder: pathlib.Path,
          **how) -> tuple[str, list[pathlib.Path]]:
    """Writes the report and the flat table of all runs, see `comparison.write`: the tables, and the folders of
    the runs that did not diverge.

    Raises:
      FloatingPointError: all diverged.
    """
    check_any_finished([not result.diverged for result in results], folder)
    runs = list(runs)
    tables = comparison.write(results, dataset, folder, task_config=runs[0].config.task, **how)
    flat.write(folder, [run.workdir for run in runs])
    return tables, [run.workdir for run, result in zip(runs, results) if not result.diverged]


def parse_capacities(values: Sequence[str]) -> list[int]:
    """Sizes named by --capacities."""
    if not all(value.strip().isdecimal() for value in values):
        raise UserError(f"--capacities={','.join(values)}; expected numbers of examples, such as "
                        "100,200")
    return [int(value) for value in values]


def make_runs(runs: Sequence[Planned], dataset: Dataset, *, probe: bool = False,
              progress: bool = True) -> Iterator[comparison.Result]:
    """Trains, resumes or reuses every run, and says the test scores of each when it is done.

    A run that diverges is marked, and the others continue.
    With `probe` the scores of a modality get the accuracy of a linear probe of its encoder.
    """
    if probe:
        not_for_maps(units.task_of(dataset), "--probe")
    start = time.perf_counter()
    for i, (run, trained) in enumerate(train_all(runs, dataset, progress)):
        if isinstance(trained, FloatingPointError):
            print(f"[{i + 1}/{len(runs)}] diverged: {trained}", flush=True)
            yield comparison.read_result(run.variant, run.repeat, None)
            start = time.perf_counter()
            continue
        result = comparison.read_result(run.variant, run.repeat, trained.history, trained.changed)
        if run.config.stream.kind:
            result = result._replace(cost=cost(run, trained))
        if probe:
            result = comparison.with_probes(result, probe_run(trained))
        scores = comparison.shown(result, dataset, run.config)
        print(f"[{i + 1}/{len(runs)}] {escape.printable(run.workdir)}: {scores} "
              f"({time.perf_counter() - start:.0f} s)", flush=True)
        yield result
        start = time.perf_counter()


def cost(run: Planned, trained: Run) -> dict[str, float]:
    """What a finished run cost, see `comparison.COST`. The first record of its metrics, which has the time of
    compilation, counts only if there are no others; without any there is no time of a step."""
    records = run_report.read_training(run.workdir)
    steps = [1000 * run.config.train.batch_size / r["examples_per_second"] for r in records[1:] or records]
    return {"state_bytes": float(state_size(trained.setup))} | (
        {"step_ms": statistics.median(steps)} if steps else {})


def train_all(runs: Sequence[Planned], dataset: Dataset, progress: bool = True,
              ) -> Iterator[tuple[Planned, Run | FloatingPointError]]:
    """The runs as they are done; the seeds of a model at once where one program can."""
    for _, seeds in itertools.groupby(runs, key=lambda run: run.variant.folder):
        seeds = list(seeds)
        trained = train_many([run.config for run in seeds], [run.workdir for run in seeds],
                             dataset=dataset, progress=progress,
                             teachers=[run.teachers for run in seeds])
        yield from zip(seeds, trained)
