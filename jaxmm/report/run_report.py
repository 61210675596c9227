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
from jaxmm.methods import METHODS, method_config
from jaxmm.report import classes, flat, pictures, plots, stream_report, units
from jaxmm.report.tables import Scores, capital, scores_table
from jaxmm.task import DENSE
from jaxmm.train import plan, validity, writers
from jaxmm.train.options import differences, to_dict
from jaxmm.train.predictions import predict_split
from jaxmm.train.scores import best, main_head
from jaxmm.train.setup import Run

FILE = "report.md"


def write(run: Run, workdir: PathLike, page: plots.Page | None = None) -> str:
    """Writes `report.md`, its plots and `metrics.csv` into the run folder; returns the table of test scores.

    Where the data have no test split, as in `Estimator.fit`, validation takes its place. The report depends
    only on the config, the history, `metrics.jsonl` and the last state, so a restored run gives the same
    again. With a `page` of paper the plots are also drawn for it, in the folder `figures`.

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
    split, name = ("test", "test") if "test" in dataset.splits else ("val", "validation")
    scores = final_scores(run.history, "test") if split == "test" else _kept(run)["scores"]
    records = read_training(workdir)
    metric, chance = run.setup.task.headline, units.guess(run.setup.task, dataset, split)
    unit, title = units.unit(metric), f"{config.method.name} on {dataset.name}"
    bars = plots.save(workdir, metric, functools.partial(
        plots.score_bars, scores, dataset.modalities, chance, f"{title}, {name}", metric), page)
    curves = plots.save(workdir, "learning_curves", functools.partial(
        plots.learning_curves, records, [r for r in run.history if r["split"] == "val"],
        dataset.modalities, [plan.steps_per_epoch(task, config.train.batch_size) for task in tasks],
        config.train.epochs, units.guess(run.setup.task, dataset, "val"), metric), page)
    table = scores_table(scores, dataset.modalities)
    head = main_head(scores)
    value = units.number(metric, scores[head][metric], sign="%")
    headline, first = table, [f"{capital(unit.title)} of the head {escape.code(head)} on the {name} split: "
                              f"**{value}**."]
    outputs, over_tasks = predict_split(run.setup, run.state, dataset.splits[split]), ""
    if run.setup.stream:
        headline, first = stream_report.write(run, outputs, workdir, title, page)
        over_tasks = " of the last task, over the examples of all tasks"
    by_class, draw = classes.section(run.setup.task, outputs, dataset.splits[split])
    if draw:
        by_class += ("\n![What is predicted against what is true]"
                     f"({plots.save(workdir, classes.NAME, draw, page)})")
    if run.setup.task.name == DENSE:
        by_class += pictures.section(run, dataset.splits[split], workdir, page)
    changed = validity.describe(dataset.name, run.changed)
    folder = escape.command([f"--workdir={workdir}"])
    if split == "test":
        last = f"## Validation\n\n{scores_table(final_scores(run.history, 'val'), dataset.modalities)}"
    else:       # the table of the model that is kept is above
        last = "## Training\n"
    again = f"To evaluate it again:\n\n    {as_typed('evaluate')} {folder}"
    if split != "test" and run.setup.task.name != DENSE:
        again = f"To predict with it:\n\n    {as_typed('predict')} {folder} --data=NEW.npz --output=predictions.csv"
    sections = [
        f"# {escape.markdown(title)}",
        *([f"Note: {escape.markdown(changed)}."] if changed else []),
        *first,
        f"## {capital(name)}\n\n{table}\n![{capital(name)} {unit.title} by head]({bars})",
        f"## {capital(name)} in detail\n\n{by_class}",
        f"{last}\n![Training loss and validation {unit.title}]({curves})",
        f"{_which_epoch(run, split, over_tasks)} A head is scored on the examples that "
        f"have its modality.{plots.note(dataset.modalities, metric)} All that was measured, by step, "
        f"is in `{flat.FILE}`.",
        "## What was run\n\n" + _lines("- ", _facts(run, records, steps)),
        "Options that differ from the defaults of `jaxmm/config.py`:\n\n"
        + _lines("    ", (escape.command([f"--config.{option}={value}"])
                          for option, value in changed_options(config))),
        again,
    ]
    flat.write(workdir, [workdir])
    files.write(workdir / FILE, "\n\n".join(s.strip("\n") for s in sections) + "\n")
    return headline


def where(folder: pathlib.Path) -> str:
    """A sentence for the console on where a report is."""
    return f"{escape.printable(folder / FILE)} shows it with the plots."


def _kept(run: Run) -> Mapping[str, Any]:
    """The evaluation on validation data of the model that the run keeps."""
    config = run.setup.config.train
    found = best(run.history, config.score, run.setup.task) if config.keep == "best" else None
    return found or [r for r in run.history if r["split"] == "val"][-1]


def _which_epoch(run: Run, split: str, over_tasks: str) -> str:
    """Which model has the scores of the report, and which was the last."""
    config, last = run.setup.config.train, [r for r in run.history if r["split"] == "val"][-1]
    if config.keep != "best":
        tables = "Both tables are" if split == "test" else "The table is"
        return f"{tables} of the last epoch{over_tasks}, {last['epoch']}."
    kept = (f"the model of epoch {_kept(run)['epoch']}, the best on validation by "
            f"{escape.markdown(config.score or run.setup.task.headline)}")
    return (f"Tested is {kept}; that table is of the last epoch, {last['epoch']}." if split == "test" else
            f"The table is of {kept}; the last epoch was {last['epoch']}.")


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
    what = {"classification": "classes", "multilabel": "labels", DENSE: "classes of pixels"}.get(task.name, "outputs")
    yield f"Data set: {escape.markdown(dataset.name)}, {task.size} {what}, {rows} examples"
    for m, x in dataset.splits["train"]["inputs"].items():
        if m in params:
            encoder = (f"encoder {config.encoders.get(m, EncoderConfig()).name}"
                       if METHODS[config.method.name].encodes else "no encoder")
            yield f"Modality {escape.markdown(m)}: {x.dtype} {list(x.shape[1:])}, {encoder}"
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
