"""The table that all reports are made from, a record for each number, and its pivot."""
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

DIVERGED = "diverged"       # 1 for a run that did, else 0; of the head ""


class Record(NamedTuple):
    """A number that a run reached."""
    method: str
    setting: float | None       # what else tells models apart: size of a memory, value of an option
    seed: int
    split: str
    task: int | None            # of a stream, from 1; None: over all
    head: str
    metric: str
    value: float


class Cell(NamedTuple):
    """The values of several seeds."""
    mean: float
    std: float | None           # sample standard deviation (n - 1); None for a single value
    values: tuple[tuple[int, float], ...]       # (seed, value)


def pivot(records: Iterable[Record], rows: Sequence[str],
          columns: Sequence[str]) -> dict[Any, dict[Any, Cell]]:
    """Cells of the values that are not NaN, by the fields `rows`, then `columns`; as they come.

    A key is the value of the field, or of several fields the tuple.
    """
    row_of, column_of, table = attrgetter(*rows), attrgetter(*columns), {}
    for r in records:
        if not np.isnan(r.value):
            table.setdefault(row_of(r), {}).setdefault(column_of(r), []).append((r.seed, r.value))
    return {row: {column: _cell(values) for column, values in by_column.items()}
            for row, by_column in table.items()}


def _cell(values: Sequence[tuple[int, float]]) -> Cell:
    numbers = [value for _, value in values]
    std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return Cell(float(np.mean(numbers)), std, tuple(values))
