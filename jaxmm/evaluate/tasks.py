"""Accuracies by task, from the records of a run on a stream."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def matrices(history: Sequence[Mapping[str, Any]], split: str = "test",
             kind: str = "class_incremental") -> dict[str, np.ndarray]:
    """R [T, T] by head: R[i, j] is the accuracy on task j after learning task i.

    For a run that learned all tasks at once R is [1, T].
    """
    records = [r for r in history if r["split"] == split and r["task"] >= 0 and kind in r]
    return {head: np.array([r[kind][head] for r in records], float) for head in records[-1][kind]}


def baseline(history: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Accuracy [T] on every test task by head, before the first step."""
    first = next(r for r in history if r["task"] == -1)
    return {head: np.array(x, float) for head, x in first["class_incremental"].items()}
