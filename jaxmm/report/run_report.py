"""The report of a finished run: what was run, its scores, its curves."""
import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxmm import escape, files
from jaxmm.batch import batch_size
from jaxmm.config import AugmentConfig, Config, EncoderConfig
from jaxmm.errors import UserError, as_typed
from jaxmm.files import PathLike
from jaxmm.methods import method_config
from jaxmm.report import classes, flat, plots, stream_report, units
from jaxmm.report.tables import Scores, capital, scores_table
from jaxmm.train import plan, validity, writers
from jaxmm.train.options import differences, to_dict
from jaxmm.train.predictions import predict_split
from jaxmm.train.scores import best, main_head
from jaxmm.train.setup import Run

FILE = "report.md"


def write(run: Run, workdir: PathLike, page: plots.Page | None = None) -> str:
    """Writes `report.md`, its plots and `metrics.csv` into the run folder; returns the table of test scores.

    It depends only on the config, the history, `metrics.jsonl` and the last state, so a restored run
    gives the same report again. With a `page` of paper the plots are also drawn for it, in the folder
    `figures`.

    Raises:
      UserError: the run is not finished.
    """
    workdir = files.expand(workdir)
    config, dataset, tasks = run.setup.config, run.setup.dataset, run.setup.tasks
    steps = run.setup.total_steps
    done = run.history[-1]["step"] if run.history else 0
    if not run.finished:
        raise UserError(f"{workdir}: the run has made {done} of {steps} steps; finish it by "
                        f"{as_typed('train')} with the same options before a report")
    test, val = final_scores(run.history, "test"), final_scores(run.history, "val")
    records = read_training(workdir)
    metric, chance = run.setup.task.headline, units.guess(run.setup.task, dataset)
    unit, title = units.unit(metric), f"{config.method.name} on {dataset.name}"
    bars = plots.save(workdir, metric, functools.partial(
        plots.score_bars, test, dataset.modalities, chance, f"{title}, test", metric), page)
    curves = plots.save(workdir, "learning_curves", functools.partial(
        plots.learning_curves, records, [r for r in run.history if r["split"] == "val"],
        dataset.modalities, [plan.steps_per_epoch(task, config.train.batch_size) for task in tasks],
        config.train.epochs, units.guess(run.setup.task, dataset, "val"), metric), page)
    table = scores_table(test, dataset.modalities)
    head = main_head(test)
    value = units.number(metric, test[head][metric], sign="%")
    headline, first = table, [f"{capital(unit.title)} of the head {escape.code(head)} on the test split: "
                              f"**{value}**."]
    outputs, over_tasks = predict_split(run.setup, run.state, dataset.splits["test"]), ""
    if run.setup.stream:
        headline, first = stream_report.write(run, outputs, workdir, title, page)
        over_tasks = " of the last task, over the examples of all tasks"
    by_class, draw = classes.section(run.setup.task, outputs, dataset.splits["test"])
    if draw:
        by_class += ("\n![What is predicted against what is true]"
                     f"({plots.save(workdir, classes.NAME, draw, page)})")
    changed = validity.describe(dataset.name, run.changed)
    sections = [
        f"# {escape.markdown(title)}",
        *([f"Note: {escape.markdown(changed)}."] if changed else []),
        *first,
        f"## Test\n\n{table}\n![Test {unit.title} by head]({bars})",
        f"## Test in detail\n\n{by_class}",
        f"## Validation\n\n{scores_table(val, dataset.modalities)}\n"
        f"![Training loss and validation {unit.title}]({curves})",
        f"{_which_epoch(run, over_tasks)} A head is scored on the examples that "
        f"have its modality.{plots.note(dataset.modalities, metric)} All that was measured, by step, "
        f"is in `{flat.FILE}`.",
        "## What was run\n\n" + _lines("- ", _facts(run, records, steps)),
        "Options that differ from the defaults of `jaxmm/config.py`:\n\n"
        + _lines("    ", (escape.command([f"--config.{option}={value}"])
                          for option, value in changed_options(config))),
        "To evaluate it again:\n\n"
        f"    {as_typed('evaluate')} {escape.command([f'--workdir={workdir}'])}",
    ]
    flat.write(workdir, [workdir])
    files.write(workdir / FILE, "\n\n".join(s.strip("\n") for s in sections) + "\n")
    return headline


def where(folder: pathlib.Path) -> str:
    """A sentence for the console on where a report is."""
    return f"{escape.printable(folder / FILE)} shows it with the plots."


def _which_epoch(run: Run, over_tasks: str) -> str:
    """Which model was tested, and which was the last."""
    config, last = run.setup.config.train, [r for r in run.history if r["split"] == "val"][-1]
    found = best(run.history, config.score, run.setup.task)
    if not found or config.keep != "best":
        return f"Both tables are of the last epoch{over_tasks}, {last['epoch']}."
    return (f"Tested is the model of epoch {found['epoch']}, the best on validation by "
            f"{escape.markdown(config.score or run.setup.task.headline)}; that table is of the last "
            f"epoch, {last['epoch']}.")


def final_scores(history: Sequence[Mapping[str, Any]], split: str) -> Scores:
    """The last scores of a split, of a finished run."""
    return next(r["scores"] for r in reversed(history) if r["split"] == split)


def read_training(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The records of training in a run folder's metrics.

    Raises:
      UserError: a line is not a record.
    """
    path, found = workdir / writers.FILE, []
    for number, line in enumerate(writers.read_lines(path), 1):
        record = writers.parse(line)
        if not record or (record["kind"] == "train" and not (
                "loss" in record and record.get("examples_per_second", 0) > 0)):
            raise UserError(f"{path}, line {number}: no record of training; remove the line")
        found += [record] if record["kind"] == "train" else []
    return found


def training_seconds(records: Sequence[Mapping[str, Any]], batch: int) -> float:
    """Seconds spent in training steps, with compilation, without evaluation and saving."""
    starts = [0] + [r["step"] for r in records]
    return sum((r["step"] - start) * batch / r["examples_per_second"]
               for start, r in zip(starts, records))


def changed_options(config: Config) -> Iterator[tuple[str, Any]]:
    """(path, value) of the options that differ from the defaults of the same method."""
    default = Config(encoders={m: EncoderConfig() for m in config.encoders},
                     augment={m: AugmentConfig() for m in config.augment},
                     method=method_config(config.method.name))
    for path, _, value in differences(to_dict(default), to_dict(config)):
        yield path, value


def _facts(run: Run, records, steps: int) -> Iterator[str]:
    config, dataset = run.setup.config, run.setup.dataset
    params = run.setup.programs.fetch(run.state).params
    rows = ", ".join(f"{batch_size(split)} {name}" for name, split in dataset.splits.items())
    yield f"Method: {config.method.name}"
    task = run.setup.task
    what = {"classification": "classes", "multilabel": "labels"}.get(task.name, "outputs")
    yield f"Data set: {escape.markdown(dataset.name)}, {task.size} {what}, {rows} examples"
    for m, x in dataset.splits["train"]["inputs"].items():
        if m in params:
            encoder = config.encoders.get(m, EncoderConfig()).name
            yield f"Modality {escape.markdown(m)}: {x.dtype} {list(x.shape[1:])}, encoder {encoder}"
    yield f"Parameters: {sum(x.size for x in jax.tree.leaves(params)):,}"
    tasks = f" of each of {len(run.setup.tasks)} tasks" if len(run.setup.tasks) > 1 else ""
    if run.setup.stream:
        yield f"Stream: {stream_report.facts(config.stream, run.setup.stream)}"
    yield (f"Training: {config.train.epochs} epochs{tasks}, {steps} steps of "
           f"{config.train.batch_size} examples, seed {config.train.seed}")
    yield (f"Optimizer: {config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}, "
           f"{config.optimizer.schedule}")
    yield (f"Time in training steps: {training_seconds(records, config.train.batch_size):.0f} s, "
           "compilation included")


def _lines(prefix: str, lines: Iterable[str]) -> str:
    return "".join(f"{prefix}{line}\n" for line in lines)
