"""The headline score of every head as inputs get worse: noise on a modality, modalities missing."""
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxmm.batch import Batch, Logits, batch_size
from jaxmm.data.missing import drop
from jaxmm.evaluate.corruptions import corrupt
from jaxmm.task import Task
from jaxmm.train.scores import score

SIGMAS = (0.0, 0.25, 0.5, 1.0, 2.0)     # of noise, in standard deviations of the training data
RATES = (0.0, 0.1, 0.3, 0.5, 0.7)       # share of missing modalities, as in MLA, section 4.2

Curves = dict[str, np.ndarray]          # headline scores by head; NaN where no example has the modality
Predict = Callable[[Batch], Logits]


def noise_curves(predict: Predict, split: Batch, deviations, modality: str, seed: int,
                 task: Task) -> Curves:
    """Headlines of the task [len(SIGMAS)] with noise on one modality; see `corrupt` for the arguments."""
    return _curves(predict, [corrupt(split, (), {modality: sigma}, deviations, seed)
                             for sigma in SIGMAS], task)


def missing_curves(predict: Predict, split: Batch, modalities: Sequence[str], seed: int,
                   task: Task) -> Curves:
    """Headlines of the task [len(RATES)] with modalities missing at random.

    All rates use the same draws, and each example keeps at least one of the `modalities` of the run.
    The head of a modality is scored on the examples that have it, the others on those that have any.
    """
    own = split | {"present": {m: split["present"][m] for m in modalities}}
    masks = [drop(own, modalities, rate, seed, "robustness")["present"] for rate in RATES]
    return _curves(predict, [split | {"present": split["present"] | mask} for mask in masks], task)


def dropped(predict: Predict, split: Batch, deviations, modality: str, task: Task) -> dict[str, float]:
    """Headlines by head without a modality, over the examples that have another one."""
    rest = corrupt(split, (modality,), {}, deviations, 0)
    return headlines(predict(rest), rest, task) if batch_size(rest) else {}


def headlines(logits: Logits, split: Batch, task: Task) -> dict[str, float]:
    """The headline score of the task by head, over the examples that have the head's modality."""
    fns = {task.headline: task.scores[task.headline]}
    return {head: scores[task.headline] for head, scores in score(logits, split, fns).items()}


def _curves(predict: Predict, splits: Sequence[Batch], task: Task) -> Curves:
    found = [headlines(predict(split), split, task) for split in splits]
    heads: Mapping[str, None] = dict.fromkeys(head for by_head in found for head in by_head)
    return {h: np.array([by_head.get(h, np.nan) for by_head in found]) for h in heads}
