"""Accuracy by class: where fusion knows more than each modality.

References:
  UMT and UME, arXiv 2305.01233, tables 2, 16 and 17.
"""
from collections.abc import Mapping

import chex
import numpy as np

from jaxmm.metrics import log_softmax


def class_accuracy(logits: chex.Array, labels: chex.Array, present: chex.Array) -> np.ndarray:
    """Share [C] of each class's examples that are predicted right; NaN where there are none.

    Args:
      logits: [N, C].
      labels: int [N].
      present: bool [N], the examples that count.
    """
    chex.assert_rank([logits, labels, present], [2, 1, 1])
    chex.assert_equal_shape_prefix([logits, labels, present], 1)
    logits, labels = np.asarray(logits)[present], np.asarray(labels)[present]
    hits = labels[logits.argmax(-1) == labels]
    count = np.bincount(labels, minlength=logits.shape[-1])
    right = np.bincount(hits, minlength=logits.shape[-1])
    return np.divide(right, count, out=np.full(len(count), np.nan), where=count > 0)


def average(logits: Mapping[str, chex.Array], present: Mapping[str, chex.Array]) -> np.ndarray:
    """Mean probabilities [N, C], float64, over the modalities that an example has.

    Args:
      logits: [N, C] by modality.
      present: bool [N] by modality; an example with none of them gets zeros.
    """
    total = sum(np.exp(log_softmax(np.asarray(z, np.float64))) * present[m][:, None]
                for m, z in logits.items())
    return total / np.maximum(sum(present[m].astype(int) for m in logits), 1)[:, None]


def beats_sum(fused: np.ndarray, unimodal: Mapping[str, np.ndarray]) -> np.ndarray:
    """bool [C]: the classes on which fusion beats the sum of the unimodal accuracies."""
    return fused > sum(unimodal.values())
