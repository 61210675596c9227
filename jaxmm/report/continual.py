"""What a run learned, kept and forgot, task by task, from its history."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmm.evaluate import continual
from jaxmm.evaluate.tasks import baseline, matrices
from jaxmm.report.tables import Scores, scores_table
from jaxmm.report.units import unit
from jaxmm.task import Task

KINDS = {"class": "class-incremental", "domain": "domain-incremental",
         "group": "group-incremental", "generalized": "generalised class-incremental"}

# Metrics of the matrix R [T, T] that need a run which learned task by task.
OVER_TIME = {"stability": continual.stability, "plasticity": continual.plasticity,
             "trade_off": continual.trade_off, "forgetting": continual.forgetting,
             "mean_forgetting": continual.mean_forgetting, "backward_transfer": continual.backward_transfer}
OWN_TEST_DATA = ("plasticity", "trade_off")     # not where tasks are tested on all classes seen

HEADLINES = {
    "mean_accuracy": "mean accuracy over the tasks after the last one",
    "cumulative_accuracy": "accuracy on the test examples of all classes seen, after the last task",
}


def headline(kind: str, task: Task | None = None) -> str:
    """The metric that sums up a run on a stream of this kind or, if that is "", on the task.

    Every table, plot and selection uses it. Phases of a generalised stream are evaluated on all classes
    seen so far, so it is the accuracy after the last one. For other streams it is the mean over tasks.
    """
    alone = task.headline if task else "accuracy"
    return {"": alone, "generalized": "cumulative_accuracy"}.get(kind, "mean_accuracy")


def caption(metric: str) -> str:
    """What a headline is, on test data."""
    return HEADLINES.get(metric, f"test {unit(metric).title}")


def final_accuracy(record: Mapping[str, Any], kind: str) -> dict[str, dict[str, float]]:
    """The headline and its task-incremental form by head, of one record of all tasks."""
    result = {}
    for head, accuracy in record["class_incremental"].items():
        masked = record["task_incremental"][head]
        result[head] = {headline(kind): _over_tasks(accuracy, kind),
                        "task_incremental": _over_tasks(masked, kind)}
    return result


def headlines(history: Sequence[Mapping[str, Any]], split: str, kind: str,
              metric: str) -> dict[str, float]:
    """The headline by head, of a finished run on a split; heads without examples are left out.
    """
    record = next(r for r in reversed(history) if r["split"] == split)
    scores = final_accuracy(record, kind) if kind else record["scores"]
    return {head: scores[head][metric] for head in record["scores"]}


def summary(history: Sequence[Mapping[str, Any]], kind: str) -> dict[str, dict[str, float]]:
    """All metrics of a finished run by head; NaN where no example has the head's modality.

    A run that learned all tasks at once has only those of `final_accuracy`, and one on a
    generalised stream none that needs test data of a task's own.

    The metric "task_recency" is the share of the predictions that fall in the classes of the last task, where no
    class is in two tasks.

    Args:
      history: of the run; the record of task -1 is the baseline of forward transfer.
      kind: of the stream.
    """
    last = next(r for r in reversed(history) if r["split"] == "test")
    metrics, before = final_accuracy(last, kind), baseline(history)
    for head, R in matrices(history).items():
        if kind == "generalized" and "recall" in last:      # runs of older versions have none
            metrics[head] |= by_class(history, head)
        if len(R) == R.shape[1]:
            metrics[head] |= {name: fn(R) for name, fn in OVER_TIME.items()
                              if kind != "generalized" or name not in OWN_TEST_DATA}
            if head in (shares := last.get("recency", {})):
                metrics[head]["task_recency"] = shares[head][-1]
            if kind == "generalized":       # a task is tested on the classes of all so far
                metrics[head]["average_incremental_accuracy"] = continual.plasticity(R)
                continue
            if "examples" in last:          # runs of older versions do not say
                metrics[head]["average_incremental_accuracy"] = continual.average_incremental_accuracy(
                    R, last["examples"][head])
            metrics[head]["forward_transfer"] = continual.forward_transfer(R, before[head])
    return metrics


def by_class(history: Sequence[Mapping[str, Any]], head: str) -> dict[str, float]:
    """What a finished run with uneven shares of the classes knows of each, see `jaxmm.evaluate.continual`.

    `history` has records of test data with "recall" and "exposure".
    """
    tested = [r for r in history if r["split"] == "test" and r["task"] >= 0]
    recalls, exposure = np.array([r["recall"][head] for r in tested], float), tested[-1]["exposure"]
    rare, middle, frequent = continual.by_exposure(recalls[-1], exposure)
    found = {"class_accuracy": continual.mean_of_seen(recalls[-1], exposure), "rare_accuracy": rare,
             "middle_accuracy": middle, "frequent_accuracy": frequent}
    return found | ({"class_forgetting": continual.class_forgetting(recalls)} if len(tested) > 1 else {})


def seen_accuracy(history: Sequence[Mapping[str, Any]], kind: str) -> dict[str, np.ndarray]:
    """Accuracy on the tasks seen so far, after each task [T], by head.

    The mean over them or, on a generalised stream, the accuracy on all classes seen. A run that
    learned all tasks at once has one entry.
    """
    result = {}
    for head, R in matrices(history).items():
        seen = range(R.shape[1] - len(R) + 1, R.shape[1] + 1)
        result[head] = np.array([_over_tasks(row[:n], kind) for row, n in zip(R, seen)])
    return result


def table(metrics: Scores, modalities: Sequence[str]) -> str:
    """The metrics of every head, a row each, in percent."""
    return scores_table(metrics, modalities, sign="")


def _over_tasks(accuracy: Sequence[float | None], kind: str) -> float:
    """The mean over tasks [T], or that of the last if its examples are those of all."""
    accuracy = np.array(accuracy, float)
    if kind == "generalized":
        return float(accuracy[-1])
    known = accuracy[~np.isnan(accuracy)]
    return float(known.mean()) if known.size else np.nan
