"""All that runs measured, in one flat table: `metrics.csv`, for data frames and spreadsheets."""
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxmm import files
from jaxmm.report.tables import csv_text
from jaxmm.train import writers

FILE = "metrics.csv"
COLUMNS = ("run", "step", "epoch", "task", "split", "head", "metric", "value")


def write(folder: pathlib.Path, workdirs: Iterable[pathlib.Path]) -> None:
    """Writes the records of runs, as their `metrics.jsonl` have them, into a folder.

    A row is a number. `run` is the path of its folder from where `folder` lies; `task` the task of a
    stream that was learned, from 1, and 0 before the first step; `split` is "train" for what is measured
    while training, such as the loss.
    """
    rows = []
    for workdir in workdirs:
        run = os.path.relpath(workdir, folder.absolute().parent)
        for record in filter(None, map(writers.parse, writers.read_lines(workdir / writers.FILE))):
            place = {"run": run, "step": record["step"], "epoch": record.get("epoch"), "task": record.get("task", 0) + 1,
                     "split": record.get("split", "train")}
            rows += [place | {"head": head, "metric": metric, "value": value}
                     for head, metric, value in numbers(record)]
    files.write(folder / FILE, csv_text(rows, COLUMNS))


def numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(head, metric, value) for the numbers of a record.

    What training measures as METRIC/HEAD is of that head, and terms of the loss likewise of what they are
    called. Scores on single tasks of a stream are METRIC/task_1, METRIC/task_2...
    """
    for name, value in record.items():
        if name == "scores":
            yield from ((head, metric, x) for head, scores in value.items() for metric, x in scores.items())
        elif isinstance(value, Mapping):        # lists over the tasks, by head
            yield from ((head, f"{name}/task_{i}", x) for head, values in value.items()
                        for i, x in enumerate(values, 1) if x is not None)
        elif name not in ("kind", "split", "step", "epoch", "task"):
            metric, _, head = name.partition("/")
            yield head, metric, value
