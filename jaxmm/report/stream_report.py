"""The part of a run's report that is about its stream of tasks."""
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmm import escape
from jaxmm.batch import Logits
from jaxmm.config import StreamConfig
from jaxmm.data.streams import Stream, describe
from jaxmm.evaluate.tasks import matrices
from jaxmm.report import calibration, continual, plots, stream_plots
from jaxmm.report.tables import percent
from jaxmm.train.scores import main_head
from jaxmm.train.setup import Run
from jaxmm.report.units import unit


def facts(config: StreamConfig, stream: Stream) -> str:
    """The stream in a few words."""
    words = f"{continual.KINDS[config.kind]}, {len(stream.tasks)} tasks, seed {config.seed}"
    few = f" from {config.budget} examples, all classes alike" if config.budget else ""
    return f"{words}, all learned at once{few}" if config.joint else words


def write(run: Run, outputs: Logits, workdir: pathlib.Path, title: str,
          page: plots.Page | None = None) -> tuple[str, list[str]]:
    """Writes the plots, also for a page if there is one; returns the main table, and all sections as
    Markdown. `outputs` are those of the last state for the test split."""
    config, stream = run.setup.config.stream, run.setup.stream
    scored = final_record(run.history)["scores"]    # heads that any test example counts for
    metrics = {head: values for head, values in continual.summary(run.history, config.kind).items()
               if head in scored}
    head, name = main_head(metrics), continual.headline(config.kind)
    picture = functools.partial(_picture, workdir, page)
    table = continual.table(metrics, run.setup.dataset.modalities)
    overlap = ("Each task is evaluated on all classes seen so far, so the test sets of the tasks "
               "overlap. " if config.kind == "generalized" else "")
    return table, [
        f"{continual.caption(name).capitalize()}, head {escape.code(head)}: "
        f"**{percent(metrics[head][name])}%**.",
        f"## Tasks\n\n{table}",
        f"In percent. {overlap}Task-incremental is {unit(name).title} with the logits of "
        "other tasks' labels left out; `jaxmm/evaluate/continual.py` defines the other columns.",
        *_task_pictures(run, picture, title, metrics),
        *_calibration_section(run, outputs, picture, title),
        f"## Stream\n\n{facts(config, stream).capitalize()}. The classes of each task, and the "
        f"number of its examples:\n\n{describe(stream, stream.class_names)}",
        *_normalisation(run),
    ]


def _normalisation(run: Run) -> Iterator[str]:
    """A note on normalisation statistics, which include tasks not seen yet."""
    sections, dataset = run.setup.config.data.preprocess, run.setup.dataset
    names = [m for m in dataset.modalities if m not in dataset.num_tokens
             and not (m in sections and sections[m].mean)]
    if names:
        yield (f"Mean and deviation by which {' and '.join(names)} are normalised are those of the "
               "training data of all tasks, seen or not.")


def final_record(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The last evaluation on test data."""
    return next(r for r in reversed(history) if r["split"] == "test")


def _task_pictures(run: Run, picture, title: str, metrics) -> Iterator[str]:
    """Plots of the heads in `metrics` over tasks."""
    config, dataset = run.setup.config.stream, run.setup.dataset
    recency = final_record(run.history)["recency"]

    def scored(values):
        return {head: values[head] for head in metrics}

    yield picture("task_matrix", "Accuracy on every task after learning each", functools.partial(
        stream_plots.task_matrices, scored(matrices(run.history)), dataset.modalities,
        f"{title}: test accuracy by task"))
    if not config.joint:
        seen = scored(continual.seen_accuracy(run.history, config.kind))
        yield picture("tasks_seen", "Accuracy on the tasks seen so far", functools.partial(
            stream_plots.seen_curves, seen, dataset.modalities, 1 / dataset.num_classes,
            f"{title}: test accuracy so far"))
    if all("trade_off" in values for values in metrics.values()):
        yield picture("stability", "Stability, plasticity and their trade-off", functools.partial(
            stream_plots.stability_bars, metrics, dataset.modalities, f"{title}, test"))
    if recency:
        sizes = np.array([len(task.indices["test"]) for task in run.setup.stream.tasks])
        yield picture("task_recency", "Predictions by task of the predicted class", functools.partial(
            stream_plots.recency_bars, scored(recency), sizes / sizes.sum(), dataset.modalities,
            f"{title}: which task's classes are predicted"))


def _calibration_section(run: Run, outputs: Logits, picture, title: str) -> Iterator[str]:
    """Confidence against accuracy on the test split, with temperatures if the method has any."""
    test, modalities = run.setup.dataset.splits["test"], run.setup.dataset.modalities
    calibrations = calibration.calibration(outputs, test, _temperatures(run))
    yield f"## Calibration\n\n{calibration.table(calibrations, modalities)}"
    yield ("On the whole test split after the last task. ECE has 15 bins, Brier scores lie in 0-2. "
           "Where a head has a temperature, fitted on the memory: before → after dividing its "
           "logits by it.")
    yield picture("calibration", "Accuracy against confidence", functools.partial(
        stream_plots.reliability_diagrams, calibrations, modalities,
        f"{title}: confidence on the test split"))


def _temperatures(run: Run) -> dict[str, float]:
    """By head, from the method's own state; nothing where it has none."""
    extra = run.state.extra
    if not isinstance(extra, Mapping) or "temperature" not in extra:
        return {}
    return {h: float(t) for h, t in run.setup.programs.fetch(extra["temperature"]).items()}


def _picture(workdir: pathlib.Path, page: plots.Page | None, name: str, text: str, draw) -> str:
    return f"![{text}]({plots.save(workdir, name, draw, page)})"
