"""Metrics of predictions on a whole split, in float64.

They run on the host, on NumPy or JAX arrays, and return Python numbers. Classes: logits [N, C] and
class numbers [N]. Labels that hold or not: logits [N, K] and bool [N, K]; a label is predicted where
its logit is positive. Numbers: outputs and labels [N, K]. The class of every pixel: counts of pixels
[N, C, C], those of class i in the label and class j in the prediction at [i, j], without void pixels.

Scikit-learn is imported by the scores that need it: it takes as long as all else before a first step.
"""
import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import numpy as np

LOWER_IS_BETTER = ("ece", "nll", "mae", "rmse", "forgetting")     # scores by name
AT_ONCE = 2**22     # logits in float64: those of a split of many classes take gigabytes


def accuracy(logits: chex.Array, labels: chex.Array) -> float:
    """Share of examples whose largest logit is their label's."""
    logits, labels = _check(logits, labels)
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def macro_f1(logits: chex.Array, labels: chex.Array) -> float:
    """F1 score, the plain mean over the classes that occur in the labels or the predictions."""
    right, predicted, true = _counts(logits, labels)
    return float(np.mean(2 * right / (predicted + true)))


def weighted_f1(logits: chex.Array, labels: chex.Array) -> float:
    """F1 score, the mean over the classes weighted by how often they occur in the labels."""
    right, predicted, true = _counts(logits, labels)
    return float(np.average(2 * right / (predicted + true), weights=true))


def mean_recall(logits: chex.Array, labels: chex.Array) -> float:
    """Recall, the plain mean over the classes that occur in the labels; "unweighted accuracy" in work on
    emotions."""
    right, _, true = _counts(logits, labels)
    return float(np.mean(right[true > 0] / true[true > 0]))


def _counts(logits, labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each class that occurs is predicted rightly, predicted, and the label.

    Scikit-learn's scores of them take as long as some steps of training, at every evaluation.
    """
    logits, labels = _check(logits, labels)
    predictions = np.argmax(logits, axis=-1)
    counts = [np.bincount(x, minlength=logits.shape[1]) for x in (labels[labels == predictions], predictions, labels)]
    right, predicted, true = (count[counts[1] + counts[2] > 0] for count in counts)
    return right, predicted, true


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


def label_f1(logits: chex.Array, labels: chex.Array, average: str) -> float:
    """F1 score over the labels: the plain mean ("macro"), or of all decisions at once ("micro").

    A label that neither occurs nor is predicted counts as 0.
    """
    from sklearn.metrics import f1_score
    logits, labels = _check_alike(logits, labels)
    return float(f1_score(labels, logits > 0, average=average, zero_division=0))


def label_accuracy(logits: chex.Array, labels: chex.Array) -> float:
    """Share of all decisions, one for each label of each example, that are right."""
    logits, labels = _check_alike(logits, labels)
    return float(np.mean((logits > 0) == labels))


def mean_average_precision(logits: chex.Array, labels: chex.Array) -> float:
    """Mean over the labels that occur of the average precision of their ranking of the examples.

    0 if no label occurs; NaN of logits that are not finite, which rank nothing.
    """
    from sklearn.metrics import average_precision_score
    logits, labels = _check_alike(logits, labels)
    occurs = labels.any(0)
    if not occurs.any():
        return 0.0
    if not np.isfinite(logits).all():
        return np.nan
    return float(average_precision_score(labels[:, occurs], logits[:, occurs]))


def mean_absolute_error(outputs: chex.Array, labels: chex.Array) -> float:
    """Mean over examples and outputs of |output - label|; not finite where an output is not."""
    outputs, labels = _check_alike(outputs, labels)
    return float(np.abs(outputs - labels).mean(0).mean())


def root_mean_squared_error(outputs: chex.Array, labels: chex.Array) -> float:
    """Root of the mean squared error, the mean of them over the outputs; not finite where an output is not."""
    outputs, labels = _check_alike(outputs, labels)
    return float(np.sqrt(((outputs - labels) ** 2).mean(0)).mean())


def pearson(outputs: chex.Array, labels: chex.Array) -> float:
    """Correlation of outputs and labels, the mean over the outputs; 0 where either is constant, NaN of
    outputs that are not finite."""
    outputs, labels = _check_alike(outputs, labels)
    if not np.isfinite(outputs).all():
        return np.nan
    outputs, labels = outputs - outputs.mean(0), labels - labels.mean(0)
    norm = np.sqrt((outputs ** 2).sum(0) * (labels ** 2).sum(0))
    return float(np.mean(np.divide((outputs * labels).sum(0), norm, out=np.zeros_like(norm),
                                   where=norm > 0)))


def sentiment_accuracy(outputs: chex.Array, labels: chex.Array) -> float:
    """Acc-2 of a scale of sentiment: share of the signs that are right; labels of 0 do not count."""
    predicted, signs = _signs(outputs, labels)
    return float(np.mean(signs == predicted)) if len(signs) else 0.0


def sentiment_f1(outputs: chex.Array, labels: chex.Array) -> float:
    """F1 of the signs of a scale of sentiment, both weighted by how often they occur."""
    from sklearn.metrics import f1_score
    predicted, signs = _signs(outputs, labels)
    if not len(signs):
        return 0.0
    return float(f1_score(signs, predicted, average="weighted"))


def seven_way_accuracy(outputs: chex.Array, labels: chex.Array) -> float:
    """Acc-7: share of outputs that are their label once both are clipped to [-3, 3] and rounded."""
    outputs, labels = (np.rint(np.clip(x, -3, 3)) for x in _check_alike(outputs, labels))
    return float(np.mean(outputs == labels))


def _signs(outputs, labels) -> tuple[np.ndarray, np.ndarray]:
    """Whether output and label are positive, where the label is not 0."""
    outputs, labels = _check_alike(outputs, labels)
    return outputs[labels != 0] > 0, labels[labels != 0] > 0


def mean_iou(confusion: chex.Array, labels: chex.Array | None = None) -> float:
    """Intersection over union, the plain mean over the classes that occur in the labels of all pictures
    together; NaN where every pixel is void. Labels are in the counts, and not looked at."""
    del labels
    counts = total_confusion(confusion)
    return float(class_iou(counts)[counts.sum(1) > 0].mean()) if counts.any() else np.nan


def pixel_accuracy(confusion: chex.Array, labels: chex.Array | None = None) -> float:
    """Share of the pixels of all pictures whose class is predicted, see `mean_iou`."""
    del labels
    counts = total_confusion(confusion)
    return float(np.trace(counts) / counts.sum()) if counts.any() else np.nan


def total_confusion(confusion: chex.Array) -> np.ndarray:
    """Counts of pixels int64 [C, C] of all pictures [N, C, C]."""
    chex.assert_rank(confusion, 3)
    chex.assert_type(confusion, int)
    return np.asarray(confusion).sum(axis=0, dtype=np.int64)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FP + FN) [C] of counts of pixels [C, C]; NaN where a class is neither there nor predicted."""
    right, either = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    return np.divide(right, either, out=np.full(len(counts), np.nan), where=either > 0)


def _check_alike(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays [N, K] on the host, numbers in float64."""
    a, b = (np.asarray(x) for x in (a, b))
    chex.assert_rank([a, b], 2)
    chex.assert_equal_shape([a, b])
    return tuple(x if x.dtype == bool else x.astype(np.float64) for x in (a, b))


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


def log_prior(labels: chex.Array, num_classes: int) -> np.ndarray:
    """The logarithm [C] of the shares of classes among labels int [N], in float64.

    A class that none of them is of counts as half an example, so that it is not impossible.
    """
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    counts[counts == 0] = 0.5
    return np.log(counts / counts.sum())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities [N, C], shifted so that nothing overflows."""
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
