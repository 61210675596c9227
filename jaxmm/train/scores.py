"""The scores of every head on a whole split, and on the tasks of a stream."""
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import chex
import numpy as np

from jaxmm.batch import Batch
from jaxmm.config import TrainConfig
from jaxmm.data.streams import Stream, task_labels
from jaxmm.metrics import LOWER_IS_BETTER
from jaxmm.task import CLASS_SCORES, Task


def head_rows(heads: Collection[str], present: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """bool [N] by head: the examples that it is scored on.

    The head of a modality is scored on the examples that have it, any other head on those that have at
    least one modality with a head. (A run may use only some of the modalities.)
    """
    own = [present[m] for m in present if m in heads]
    anything = np.any(own or list(present.values()), axis=0)
    return {head: present.get(head, anything) for head in heads}


def score(outputs: Mapping[str, np.ndarray], split: Batch,
          fns: Mapping[str, Callable] = CLASS_SCORES) -> dict[str, dict[str, float]]:
    """The scores of each head over its examples, see `head_rows`; `fns` are the task's."""
    scores, counted = {}, head_rows(outputs, split["present"])
    for head, z in outputs.items():
        rows = counted[head]
        if rows.any():
            z, labels = (z, split["label"]) if rows.all() else (z[rows], split["label"][rows])
            scores[head] = {name: float(fn(z, labels)) for name, fn in fns.items()}
    return scores


FUSED = ("experts", "dynamic", "fused")     # heads over all modalities, the first that is there before the others


def main_head(heads: Iterable[str]) -> str:
    """The head that stands for a method: all modalities, combined at test time if it does that."""
    heads = list(heads)
    return next((h for h in FUSED if h in heads), heads[0])


def judged(history: Sequence[Mapping[str, Any]], name: str, task: Task) -> list[tuple[float, dict[str, Any]]]:
    """The evaluations on validation data, each with the value to select by (higher is better).

    Args:
      history: of a run.
      name: HEAD/SCORE, or "" for the headline of the main head.
      task: of the run.
    """
    head, _, metric = name.rpartition("/")
    records, metric = [r for r in history if r["split"] == "val"], metric or task.headline
    sign = -1 if metric in LOWER_IS_BETTER else 1
    values = [sign * r["scores"][head or main_head(r["scores"])][metric] for r in records]
    return [(-np.inf if np.isnan(value) else value, r) for value, r in zip(values, records)]


def best(history: Sequence[Mapping[str, Any]], name: str, task: Task) -> dict[str, Any] | None:
    """The first of the best evaluations on validation data, see `judged`; None if there is none yet."""
    found = judged(history, name, task)
    return max(found, key=lambda pair: pair[0])[1] if found else None


def waits_in_vain(history: Sequence[Mapping[str, Any]], config: TrainConfig, task: Task) -> bool:
    """Whether the patience of a run with this history is over."""
    values = [value for value, _ in judged(history, config.score, task)] if config.patience else []
    return bool(values) and len(values) - 1 - int(np.argmax(values)) > config.patience


def score_tasks(logits: Mapping[str, np.ndarray], split: Batch, stream: Stream,
                name: str) -> dict[str, Any]:
    """Accuracy on every task by head, over the examples of the head (see `head_rows`).

    Args:
      logits: [N, C] by head, for the whole split.
      split: its labels [N] and masks.
      stream: tasks, of which `indices[name]` are the rows of this split.
      name: of the split.

    Returns:
      "class_incremental" and "task_incremental": [T] by head, the latter with the logits of the
      labels that a task does not have left out; "examples": [T] by head, how many they are of; "recall": [C]
      by head, the accuracy on the examples of each label, None without any;
      "recency", if no label is in two tasks: [T] by head, the share of all predictions that fall in
      each task's labels. None where no example of a task has the modality.
    """
    labels = task_labels(stream)
    counted = head_rows(logits, split["present"])
    scores = {"class_incremental": {}, "task_incremental": {}, "examples": {}, "recall": {}, "recency": {}}
    for head, z in logits.items():
        present = counted[head]
        rows = [task.indices[name][present[task.indices[name]]] for task in stream.tasks]
        masked = [_keep(z[r], kept) for r, kept in zip(rows, labels)]
        truth = [split["label"][r] for r in rows]
        scores["class_incremental"][head] = [_accuracy(z[r], y) for r, y in zip(rows, truth)]
        scores["task_incremental"][head] = [_accuracy(m, y) for m, y in zip(masked, truth)]
        scores["examples"][head] = list(map(len, rows))
        own = [present & (split["label"] == c) for c in range(z.shape[1])]
        scores["recall"][head] = [_accuracy(z[r], split["label"][r]) for r in own]
        if _disjoint(labels):
            task_of = np.zeros(z.shape[1], int)
            for task, kept in enumerate(labels):
                task_of[kept] = task
            scores["recency"][head] = task_recency(z[present].argmax(1), task_of).tolist()
    return scores


def task_recency(predictions: chex.Array, class_to_task: chex.Array) -> np.ndarray:
    """Share of the predictions that fall in each task's classes.

    Args:
      predictions: int [N] predicted classes.
      class_to_task: int [C] task of each class, from 0.

    Returns:
      [T] shares, which sum to 1.
    """
    chex.assert_rank([predictions, class_to_task], 1)
    class_to_task = np.asarray(class_to_task)
    tasks = class_to_task[np.asarray(predictions)]
    return np.bincount(tasks, minlength=np.max(class_to_task) + 1) / len(tasks)


def _keep(logits, kept):
    """The logits with all labels but `kept` masked out."""
    allowed = np.isin(np.arange(logits.shape[1]), kept)
    return np.where(allowed, logits, -np.inf)


def _accuracy(logits, labels) -> float | None:
    return float((logits.argmax(1) == labels).mean()) if len(labels) else None


def _disjoint(groups) -> bool:
    together = np.concatenate(groups)
    return len(together) == len(np.unique(together))
