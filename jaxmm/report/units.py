"""What scores are called and how they are shown: shares in percent, errors in units of the labels."""
import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from jaxmm import metrics
from jaxmm.config import TaskConfig
from jaxmm.data.dataset import Dataset
from jaxmm.task import Task, make_task

Key = TypeVar("Key", bound=Hashable)


class Unit(NamedTuple):
    """How one score is shown."""
    title: str
    scale: int = 100            # shown is the value times this
    digits: int | None = 1      # decimals; None for four significant digits
    lower: bool = False         # whether less of it is better

    @property
    def axis(self) -> str:
        """The title with what stands on an axis, or over a column of numbers."""
        return f"{self.title} (%)" if self.scale == 100 else f"{self.title} ↓" if self.lower else self.title


UNITS = {
    "accuracy": Unit("accuracy"), "macro_f1": Unit("macro F1"), "micro_f1": Unit("micro F1"),
    "weighted_f1": Unit("weighted F1"), "mean_recall": Unit("mean recall"),
    "f1": Unit("F1"), "map": Unit("mAP"), "label_accuracy": Unit("label accuracy"),
    "acc_2": Unit("Acc-2"), "acc_7": Unit("Acc-7"), "probe": Unit("probe accuracy"),
    "mean_iou": Unit("mean IoU"), "pixel_accuracy": Unit("pixel accuracy"),
    "ece": Unit("ECE", 1, 3), "nll": Unit("NLL", 1, 3),
    "mae": Unit("MAE", 1, None), "rmse": Unit("RMSE", 1, None),
    "pearson": Unit("Pearson", 1, 3),
    "mean_accuracy": Unit("mean accuracy"), "cumulative_accuracy": Unit("cumulative accuracy"),
    "task_incremental": Unit("task-incremental"), "stability": Unit("stability"),
    "plasticity": Unit("plasticity"), "trade_off": Unit("trade-off"),
    "average_incremental_accuracy": Unit("average incremental accuracy"),
    "forgetting": Unit("forgetting"), "mean_forgetting": Unit("mean forgetting"),
    "class_accuracy": Unit("mean over classes"), "rare_accuracy": Unit("rare third"),
    "middle_accuracy": Unit("middle third"), "frequent_accuracy": Unit("frequent third"),
    "class_forgetting": Unit("forgetting by class"), "state_bytes": Unit("bytes of state", 1, 0),
    "step_ms": Unit("ms a step", 1, None), "task_recency": Unit("task recency"), "backward_transfer": Unit("backward transfer"),
    "forward_transfer": Unit("forward transfer"),
}
UNITS = {metric: found._replace(lower=metric in metrics.LOWER_IS_BETTER) for metric, found in UNITS.items()}


def unit(metric: str) -> Unit:
    """That of a score; of one that is not listed here the plain number."""
    return UNITS.get(metric, Unit(metric, 1, None))


def number(metric: str, value: float, std: float | None = None, sign: str = "") -> str | None:
    """A value as text, with its deviation if there is one; None for NaN.

    `sign` is that of numbers which are shown with one: "+" for differences, "%" for shares in percent.
    """
    if math.isnan(value):
        return None
    _, scale, digits, _ = unit(metric)
    size = abs(value) or std or 0
    if digits is None and size and not 1e-4 <= size < 1e6:
        form = ".2e"
    else:
        form = f".{max(0, 3 - math.floor(math.log10(size or 1))) if digits is None else digits}f"
    text = format(scale * value, "+" * (sign == "+") + form) + "%" * (sign == "%" and scale == 100)
    return text if std is None else f"{text} ± {scale * std:{form}}"


def explain(metric: str) -> str:
    """How numbers of a score are to be read, in words after its name."""
    found = unit(metric)
    how = ("in percent" if found.scale == 100 else "in units of the labels" if metric in ("mae", "rmse")
           else "as a number")
    return how + ", less is better" * found.lower


def best(metric: str, values: Mapping[Key, float]) -> Key | None:
    """The first key of the best value; None if there is none."""
    return (min if unit(metric).lower else max)(values, key=values.get) if values else None


def task_of(dataset: Dataset, config: TaskConfig = TaskConfig()) -> Task:
    """What is learned from a data set: what the config says or, as by default, the type of its labels."""
    return make_task(config, dataset.class_names, dataset.splits["train"]["label"], target=dataset.target)


def guess(task: Task, dataset: Dataset, split: str = "test") -> float | None:
    """The headline of a model that looks at no input, where it is known.

    Of a regression it is the median of the training labels; None where the data are not at hand.
    """
    if task.name != "regression" or not dataset.splits:
        return task.chance
    labels = dataset.splits[split]["label"]
    median = np.median(dataset.splits["train"]["label"], axis=0)
    return metrics.mean_absolute_error(np.broadcast_to(median, labels.shape), labels)
