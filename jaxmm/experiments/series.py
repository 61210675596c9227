"""Trains one run of a config, or several: over seeds, or over the values of an option.

Reports are imported when one is written: matplotlib would keep the first step waiting.
"""
import pathlib
import sys
from collections.abc import Sequence

import jax

from jaxmm import data, escape
from jaxmm.config import Config, replace, scalar_paths
from jaxmm.data.dataset import Dataset
from jaxmm.data.streams import describe, make_stream
from jaxmm.errors import UserError, as_typed, suggest
from jaxmm.experiments import folders
from jaxmm.report import flat, variants
from jaxmm.task import DENSE
from jaxmm.train import hosts
from jaxmm.train.checkpoints import REMEDY
from jaxmm.train.folder import FILE
from jaxmm.train.options import MOST, check_counts
from jaxmm.train.restore import restore
from jaxmm.train.schedule import train, train_many
from jaxmm.train.setup import Run


def run(config: Config, workdir: str, sweep_text: str, command: str, *, extend: bool = False) -> str:
    """Trains a run, or one for each seed or value of a sweep; returns their table, and where they are.

    Args:
      config: of the run, with the number of seeds.
      workdir: its folder, "": one under runs/.
      sweep_text: OPTION=VALUE,VALUE, or "".
      command: what makes the report again.
      extend: see `train`; only for a single run.
    """
    check_counts(config)
    several = "_sweep" if sweep_text else "_seeds" if config.train.seeds > 1 else ""
    folder = folders.workdir(workdir, f"{folders.data_name(config)}_{config.method.name}{several}")
    if extend and several:
        raise UserError("--extend is for one run; give it with --workdir=FOLDER of each of several")
    if several:
        shown = (train_sweep(config, folder, *parse_sweep(sweep_text, config), command) if sweep_text else
                 train_seeds(config, folder, command))
        return f"{shown}\n{where(folder)}"
    run = train(config, folder, extend=extend)
    new = "" if run.setup.task.name == DENSE else "NEW.csv" if run.setup.spec.files else "NEW.npz"
    return next_steps(report(run, folder), folder, new)


def next_steps(shown: str, folder: pathlib.Path, data: str) -> str:
    """The table of a run, where that is, and what to type to go on with it; `data` is a file to predict, if it can."""
    workdir = escape.command([f"--workdir={folder}"])
    return (f"{shown}\n{where(folder)} Next:\n"
            f"  {as_typed('evaluate')} {workdir}"
            + f"\n  {as_typed('predict')} {workdir} --data={data} --output=predictions.csv" * bool(data))


def where(folder: pathlib.Path) -> str:
    """A sentence for the console on where the report is."""
    from jaxmm.report import run_report
    return run_report.where(folder)


def over_seeds(config: Config) -> list[Config]:
    """One config for each of `config.train.seeds`, with the seeds seed, seed + 1 and so on."""
    return [replace(config, {"train.seed": config.train.seed + i, "train.seeds": 1})
            for i in range(config.train.seeds)]


def parse_sweep(text: str, config: Config) -> tuple[str, list[float]]:
    """(path, values) of OPTION=VALUE,VALUE.

    Raises:
      UserError: no such option, an option that cannot be varied, or values that are not numbers.
    """
    path, _, values = text.partition("=")
    options = scalar_paths(config)
    if path not in options:
        raise UserError(f"--sweep={text}: {path!r} cannot be varied{suggest(path, options)}")
    try:
        numbers = sorted({float(value) for value in values.split(",")})
    except ValueError as error:
        raise UserError(f"--sweep={text}; expected numbers, as in {path}=0.001,0.01,0.1") from error
    if len(numbers) > MOST["seeds"]:
        raise UserError(f"--sweep={path} has {len(numbers)} values; expected at most {MOST['seeds']}")
    return path, numbers


def check_parent(workdir: pathlib.Path) -> None:
    """Raises UserError if the folder for several runs is the run folder of a single one."""
    if (workdir / FILE).exists():
        raise UserError(f"{workdir} holds a single run, and would get the report of several; name "
                        "another --workdir")


def train_seeds(config: Config, workdir: pathlib.Path, command: str) -> str:
    """Trains a run for each seed in a folder of its own; returns the table over all of them.

    Raises:
      FloatingPointError: all diverged. Of some, the table says so, and a line on stderr.
    """
    from jaxmm.report import comparison
    hosts.from_main(lambda: check_parent(workdir))
    configs = over_seeds(config)
    folders = [workdir / f"seed_{c.train.seed}" for c in configs]
    method = variants.Variant(config.method.name, "", variants.buffer_of(config.method), config)
    results = []
    runs = train_many(configs, folders, dataset=data.load(config.data))
    for each, folder, run in zip(configs, folders, runs):
        if isinstance(run, FloatingPointError):
            print(f"diverged: {run}", file=sys.stderr)
            results.append(comparison.read_result(method, each.train.seed, None))
            continue
        report(run, folder)
        results.append(comparison.read_result(method, each.train.seed, run.history, run.changed))
        learned = run.setup.dataset
    check_any_finished([not result.diverged for result in results], workdir)
    if not hosts.is_main():
        return ""
    flat.write(workdir, folders)
    return comparison.write(results, learned, workdir, command, config.stream.kind, task_config=config.task)


def check_any_finished(finished: Sequence[bool], workdir: pathlib.Path, what: str = "runs") -> None:
    """Raises FloatingPointError if all of several runs, or of what they are of, diverged."""
    if not any(finished):
        raise FloatingPointError(f"{workdir}: all {len(finished)} {what} diverged; {REMEDY}")


def train_sweep(config: Config, workdir: pathlib.Path, path: str, values: list[float],
                command: str) -> str:
    """Trains a run for each value, and each seed, in a folder of its own; returns their table.

    Raises:
      FloatingPointError: all diverged.
    """
    from jaxmm.report import sweep
    settings = [(value, replace(each, {path: value}))
                for value in values for each in over_seeds(config)]
    name = path.rpartition(".")[2]
    hosts.from_main(lambda: check_parent(workdir))
    folders = [workdir / f"{name}_{value:.12g}" / (f"seed_{c.train.seed}" if config.train.seeds > 1
                                                else "") for value, c in settings]
    # Teachers are the same for all values of the method's own options.
    teachers = [f"{workdir}/teachers/seed_{c.train.seed}/{{teacher}}" for _, c in settings
                ] if path.startswith("method.") else ()
    points, dataset = [], data.load(config.data)
    runs = train_many([c for _, c in settings], folders, dataset=dataset, teachers=teachers)
    for (value, each), folder, run in zip(settings, folders, runs):
        lost = isinstance(run, FloatingPointError)
        points.append(sweep.Point(value, each.train.seed, None if lost else run.history))
        if lost:
            print(f"diverged: {run}", file=sys.stderr)
        else:
            report(run, folder)
            dataset = run.setup.dataset     # on a stream, with the labels of its tasks
    table = ""
    if hosts.is_main():
        table = sweep.write(points, path, dataset, workdir, command, config.stream.kind, task_config=config.task)
        flat.write(workdir, folders)
    check_any_finished([point.history is not None for point in points], workdir)
    return table


def report(run: Run, workdir: pathlib.Path, dataset: Dataset | None = None) -> str:
    """Writes the report of a finished run; returns its table. Only the main process does.

    `dataset` is that of a run which was not trained on the one that its config names.
    """
    if not hosts.is_main():
        return ""
    if jax.process_count() > 1:     # the other processes are done
        run = restore(workdir, dataset=dataset, devices=jax.local_devices()[:1])
    from jaxmm.report import run_report
    return run_report.write(run, workdir)


def describe_stream(config: Config) -> str:
    """The tasks of the config's stream as a Markdown table.

    Raises:
      UserError: it has no stream, or one that cannot be made.
    """
    if not config.stream.kind:
        raise UserError("--describe_stream: this config has no stream of tasks; set one, such as "
                        "--config.stream.kind=class --config.stream.num_tasks=5")
    check_counts(config)
    _, stream = make_stream(config.stream, data.load(config.data))
    return describe(stream, stream.class_names)
