"""Metrics of learning a sequence of T tasks.

They are computed on the host in float64 from the matrix R [T, T], where R[i, j] is the accuracy on
task j after learning task i. With a single task, metrics of what is kept, forgotten or transferred are
NaN. Means leave out tasks without an accuracy (NaN, if no example has the modality).

Plasticity, trade-off and forward transfer need separate test data for each task. On generalised
streams, whose tasks are tested on all classes seen so far, they are not defined.

References:
  Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017
  (backward and forward transfer).
  Chaudhry et al., "Riemannian walk for incremental learning", ECCV 2018 (forgetting).
  SAMM, arXiv 2405.02766 (stability, plasticity, trade-off, task recency).
  Pian et al., "Audio-visual class-incremental learning", ICCV 2023 (accuracy and forgetting over all steps).
"""
import chex
import numpy as np


def forgetting(R: chex.Array) -> float:
    """Mean over the earlier tasks of the best accuracy before the last task minus the one after it."""
    R = _check(R)
    return _mean(np.max(R[:-1, :-1], axis=0, initial=0.0) - R[-1, :-1])


def mean_forgetting(R: chex.Array) -> float:
    """`forgetting` after every task from the second on, averaged over these tasks."""
    R = _check(R)
    return _mean(np.array([forgetting(R[:t, :t]) for t in range(2, len(R) + 1)]))


def average_incremental_accuracy(R: chex.Array, sizes: chex.Array) -> float:
    """Mean over the tasks learned of the accuracy on the examples of all tasks so far.

    Args:
      R: [T, T].
      sizes: [T] test examples of each task, which weigh it.
    """
    R, sizes = _check(R), np.asarray(sizes, np.float64)
    chex.assert_shape(sizes, R.shape[:1])
    return _mean(np.array([_weighted_mean(R[t, :t + 1], sizes[:t + 1]) for t in range(len(R))]))


def mean_of_seen(recall: chex.Array, exposure: chex.Array) -> float:
    """Mean of the recall [C] over the classes with training examples, `exposure` [C] of each."""
    return _mean(np.asarray(recall, np.float64)[np.asarray(exposure) > 0])


def by_exposure(recall: chex.Array, exposure: chex.Array) -> tuple[float, float, float]:
    """Mean recall of the rarest third of the classes seen, the middle one and the most frequent one.

    Classes with equally many examples are in the order of their numbers; of numbers that three does not divide
    the first thirds have one class more.

    Args:
      recall: [C], NaN for classes without test examples, which are in no third.
      exposure: [C], training examples of each.
    """
    recall, exposure = np.asarray(recall, np.float64), np.asarray(exposure)
    chex.assert_equal_shape([recall, exposure])
    known = np.flatnonzero((exposure > 0) & ~np.isnan(recall))
    rare, middle, frequent = np.array_split(known[np.argsort(exposure[known], kind="stable")], 3)
    return _mean(recall[rare]), _mean(recall[middle]), _mean(recall[frequent])


def class_forgetting(recalls: chex.Array) -> float:
    """Mean over classes of the best recall after any task minus that after the last one, of [T, C]."""
    recalls = np.asarray(recalls, np.float64)
    known = recalls[:, ~np.isnan(recalls).any(axis=0)]
    return _mean(known.max(axis=0) - known[-1])


def backward_transfer(R: chex.Array) -> float:
    """Mean over the earlier tasks of the accuracy after the last task minus the one when learned."""
    R = _check(R)
    return _mean(R[-1, :-1] - np.diag(R)[:-1])


def forward_transfer(R: chex.Array, baseline: chex.Array) -> float:
    """Mean over the later tasks of the accuracy just before learning it minus the baseline.

    Args:
      R: [T, T].
      baseline: [T] accuracy on each task of a model that has learned nothing.
    """
    R = _check(R)
    baseline = np.asarray(baseline, np.float64)
    chex.assert_shape(baseline, R.shape[:1])
    return _mean(np.diag(R, k=1) - baseline[1:])


def stability(R: chex.Array) -> float:
    """Mean accuracy over the earlier tasks after the last one."""
    return _mean(_check(R)[-1, :-1])


def plasticity(R: chex.Array) -> float:
    """Mean over tasks of the accuracy on each just after learning it."""
    return _mean(np.diag(_check(R)))


def trade_off(R: chex.Array) -> float:
    """Harmonic mean of stability and plasticity, 0 if both are 0."""
    s, p = stability(R), plasticity(R)
    return 0.0 if s + p == 0 else 2 * s * p / (s + p)


def _check(R: chex.Array) -> np.ndarray:
    """Asserts that R is a square matrix; R in float64."""
    R = np.asarray(R, np.float64)
    chex.assert_shape(R, (len(R), len(R)))
    return R


def _weighted_mean(x: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the numbers in x; NaN if there are none."""
    known = ~np.isnan(x)
    return float(np.average(x[known], weights=weights[known])) if weights[known].any() else np.nan


def _mean(x: np.ndarray) -> float:
    """Mean of the numbers in x; NaN if there are none."""
    x = x[~np.isnan(x)]
    return float(np.mean(x)) if x.size else np.nan
