"""Accuracies by task, from the records of a run on a stream."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def matrices(history: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """R [T, T] by head: R[i, j] is the accuracy on test data of task j after learning task i.

    For a run that learned all tasks at once R is [1, T].
    """
    rows = [r["class_incremental"] for r in history
            if r["split"] == "test" and r["task"] >= 0 and "class_incremental" in r]
    return {head: np.array([row[head] for row in rows], float) for head in rows[-1]}


def baseline(history: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Accuracy [T] on every test task by head, before the first step."""
    first = next(r for r in history if r["task"] == -1)
    return {head: np.array(x, float) for head, x in first["class_incremental"].items()}
