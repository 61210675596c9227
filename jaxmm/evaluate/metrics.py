"""Metrics of predictions on a whole split: logits [N, C] and class numbers [N], in float64.

They run on the host, on NumPy or JAX arrays, and return Python numbers.
"""
import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import numpy as np

AT_ONCE = 2**22     # logits in float64: those of a split of many classes take gigabytes


def accuracy(logits: chex.Array, labels: chex.Array) -> float:
    """Share of examples whose largest logit is their label's."""
    logits, labels = _check(logits, labels)
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def macro_f1(logits: chex.Array, labels: chex.Array) -> float:
    """F1 score, the plain mean over the classes that occur in the labels or the predictions."""
    logits, labels = _check(logits, labels)
    predictions = np.argmax(logits, axis=-1)
    count = functools.partial(np.bincount, minlength=logits.shape[-1])
    # F1 = 2 TP / (2 TP + FP + FN), and the denominator counts the class in both lists.
    occurrences = count(labels) + count(predictions)
    correct = count(labels[predictions == labels])
    occurs = occurrences > 0
    return float(np.mean(2 * correct[occurs] / occurrences[occurs]))


def negative_log_likelihood(logits: chex.Array, labels: chex.Array) -> float:
    """Mean of -log softmax(logits)[label], in nats."""
    def of_rows(logits, labels):
        return log_softmax(logits)[np.arange(len(labels)), labels]

    return float(-np.mean(_by_row(of_rows, logits, labels)))


def brier_score(logits: chex.Array, labels: chex.Array) -> float:
    """Mean over examples of the squared distance of the probabilities to the one-hot label, 0-2."""
    def of_rows(logits, labels):
        errors = np.exp(log_softmax(logits))
        errors[np.arange(len(labels)), labels] -= 1.0
        return np.sum(errors ** 2, axis=-1)

    return float(np.mean(_by_row(of_rows, logits, labels)))


class Reliability(NamedTuple):
    """Calibration by bin of confidence; 0 in bins without examples."""
    count: np.ndarray       # [num_bins] examples
    confidence: np.ndarray  # [num_bins] their mean probability of the predicted class
    accuracy: np.ndarray    # [num_bins] share of them predicted correctly


def reliability(logits: chex.Array, labels: chex.Array, num_bins: int = 15) -> Reliability:
    """Confidence against accuracy in `num_bins` bins (low, high] of equal width on (0, 1]."""
    logits, labels = _check(logits, labels)
    correct = np.argmax(logits, axis=-1) == labels
    confidence = _by_row(lambda z, _: np.exp(np.max(log_softmax(z), axis=-1)), logits, labels)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    total = functools.partial(np.bincount, bins, minlength=num_bins)
    count = total()
    rows = np.maximum(count, 1)
    return Reliability(count, total(confidence) / rows, total(correct) / rows)


def expected_calibration_error(
    logits: chex.Array, labels: chex.Array, num_bins: int = 15
) -> float:
    """Mean over examples of |confidence - accuracy| of their bin (Guo et al., 2017, eq. 5)."""
    bins = reliability(logits, labels, num_bins)
    return float(np.average(np.abs(bins.confidence - bins.accuracy), weights=bins.count))


def _check(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    """Asserts the forms of the arguments; both on the host."""
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_equal_shape_prefix([logits, labels], 1)
    chex.assert_type(labels, int)
    return np.asarray(logits), np.asarray(labels)


def _by_row(fn: Callable[[np.ndarray, np.ndarray], np.ndarray], logits: chex.Array,
            labels: chex.Array) -> np.ndarray:
    """fn(logits [n, C] in float64, labels [n]) -> [n] over all rows, some of them at a time."""
    logits, labels = _check(logits, labels)
    size = max(1, AT_ONCE // logits.shape[1])
    return np.concatenate([fn(logits[i:i + size].astype(np.float64), labels[i:i + size])
                           for i in range(0, len(labels), size)])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities [N, C], shifted so that nothing overflows."""
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
