"""Scores of a split by task of a stream."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmm.batch import Batch
from jaxmm.data.streams import Stream, task_labels
from jaxmm.evaluate.continual import task_recency
from jaxmm.evaluate.predictions import head_rows


def score_tasks(logits: Mapping[str, np.ndarray], split: Batch, stream: Stream,
                name: str) -> dict[str, Any]:
    """Accuracies on every task, by head, over the examples of the head, see `head_rows`.

    Args:
      logits: [N, C] by head, for the whole split.
      split: its labels [N] and masks.
      stream: tasks, of which `indices[name]` are the rows of this split.
      name: of the split.

    Returns:
      "class_incremental" and "task_incremental": [T] by head, the latter with the logits of the
      labels that a task does not have left out; "recency", if no label is in two tasks: [T] by
      head, the share of all predictions that fall in each task's labels. None where no example of
      a task has the modality.
    """
    labels = task_labels(stream)
    counted = head_rows(logits, split["present"])
    scores = {"class_incremental": {}, "task_incremental": {}, "recency": {}}
    for head, z in logits.items():
        present = counted[head]
        rows = [task.indices[name][present[task.indices[name]]] for task in stream.tasks]
        masked = [_keep(z[r], kept) for r, kept in zip(rows, labels)]
        truth = [split["label"][r] for r in rows]
        scores["class_incremental"][head] = [_accuracy(z[r], y) for r, y in zip(rows, truth)]
        scores["task_incremental"][head] = [_accuracy(m, y) for m, y in zip(masked, truth)]
        if _disjoint(labels):
            task_of = np.zeros(z.shape[1], int)
            for task, kept in enumerate(labels):
                task_of[kept] = task
            scores["recency"][head] = task_recency(z[present].argmax(1), task_of).tolist()
    return scores


def matrices(history: Sequence[Mapping[str, Any]], split: str = "test",
             kind: str = "class_incremental") -> dict[str, np.ndarray]:
    """R [T, T] by head from the records of a run: R[i, j] on task j after learning task i.

    A run that learned all tasks at once has one row.
    """
    records = [r for r in history if r["split"] == split and r["task"] >= 0 and kind in r]
    return {head: np.array([r[kind][head] for r in records], float) for head in records[-1][kind]}


def baseline(history: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Accuracy on every test task [T] by head before anything was learned."""
    first = next(r for r in history if r["task"] == -1)
    return {head: np.array(x, float) for head, x in first["class_incremental"].items()}


def _keep(logits, kept):
    """The logits with all labels but `kept` out of reach."""
    allowed = np.isin(np.arange(logits.shape[1]), kept)
    return np.where(allowed, logits, -np.inf)


def _accuracy(logits, labels) -> float | None:
    return float((logits.argmax(1) == labels).mean()) if len(labels) else None


def _disjoint(groups) -> bool:
    together = np.concatenate(groups)
    return len(together) == len(np.unique(together))
