"""What two modalities tell of the label: together, each alone, or only as a pair.

Estimates are of a model's features, not of the data.

References:
  Bertschinger et al., "Quantifying unique information", Entropy 2014.
  Liang et al., "Quantifying and modeling multimodal interactions: an information decomposition framework",
  NeurIPS 2023, arXiv 2302.12247.
"""
import math
from typing import NamedTuple

import chex
import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

ROUNDS = 300            # of the alternation
SCALINGS = 200          # at most, in a round
TOLERANCE = 1e-6        # of the margins, and in bits between rounds
SHUFFLES = 20           # of labels, for the control
CELLS = 10_000          # values of (x_1, x_2, y) up to which the decomposition takes seconds


class Decomposition(NamedTuple):
    """Information on the label, in bits."""
    redundant: float        # that both modalities have
    unique_1: float         # that only the first has
    unique_2: float
    synergy: float          # that only the pair has

    @property
    def total(self) -> float:
        """I(x_1, x_2; y), which the parts add up to."""
        return sum(self)


def decompose(joint: chex.Array) -> Decomposition:
    """The partial information decomposition of a distribution p(x_1, x_2, y) [K_1, K_2, C].

    With q* = argmax H_q(y | x_1, x_2) over q that have the margins p(x_1, y) and p(x_2, y)::

        R = I(x_1; y) + I(x_2; y) - I_q*(x_1, x_2; y)      U_1 = I_q* - I(x_2; y)      U_2 = I_q* - I(x_1; y)
        S = I_p(x_1, x_2; y) - I_q*

    q* minimises sum_y p(y) KL(q(.|y) || r) over q and r, convex in both: in turn r is the mean of q(.|y), and
    each q(.|y) is r scaled to its margins by Sinkhorn's iteration.
    """
    chex.assert_rank(joint, 3)
    p = np.asarray(joint, np.float64)
    p = p[..., p.sum(axis=(0, 1)) > 0]
    share = p.sum(axis=(0, 1))
    given = np.moveaxis(p, -1, 0) / share[:, None, None]
    first, second = given.sum(axis=2), given.sum(axis=1)
    q, b = first[:, :, None] * second[:, None, :], np.ones_like(second)
    least = np.inf
    for _ in range(ROUNDS):
        r = np.tensordot(share, q, 1)
        for _ in range(SCALINGS):
            a = _ratio(first, b @ r.T)
            b = _ratio(second, a @ r)
            if np.abs(a * (b @ r.T) - first).max() < TOLERANCE:
                break
        q = a[:, :, None] * r * b[:, None, :]
        before, least = least, _pair_information(q, share)
        if abs(before - least) < TOLERANCE:
            break
    one, two, both = information(p.sum(axis=1)), information(p.sum(axis=0)), _pair_information(given, share)
    return Decomposition(one + two - least, least - two, least - one, both - least)


def _ratio(x, y):
    return np.divide(x, y, out=np.zeros_like(x), where=y > 0)


def _pair_information(given, share):
    """I((x_1, x_2); y) of q(x_1, x_2 | y) [C, K_1, K_2] and p(y) [C]."""
    return information((share[:, None, None] * given).reshape(len(share), -1).T)


def information(joint: chex.Array) -> float:
    """The mutual information, in bits, of p(x, y) [K, C]."""
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = (joint > 0) & (apart > 0)       # products of the least numbers underflow
    return float(np.sum(joint[there] * np.log2(joint[there] / apart[there])))


def cells(*values: chex.Array) -> int:
    """How many combinations there are of the values int [N] that occur in each."""
    return math.prod(len(np.unique(x)) for x in values)


def frequencies(first: chex.Array, second: chex.Array, labels: chex.Array) -> np.ndarray:
    """p(x_1, x_2, y) [K_1, K_2, C] of the values int [N] that occur, which are numbered anew."""
    numbered = [np.unique(x, return_inverse=True)[1] for x in (first, second, labels)]
    joint = np.zeros([x.max() + 1 for x in numbered])
    np.add.at(joint, tuple(numbered), 1 / len(labels))
    return joint


def shuffled(first: chex.Array, second: chex.Array, labels: chex.Array, rng: np.random.Generator,
             shuffles: int = SHUFFLES) -> Decomposition:
    """The mean decomposition under shuffled labels: what counting alone makes of values that tell nothing."""
    found = [decompose(frequencies(first, second, rng.permutation(labels))) for _ in range(shuffles)]
    return Decomposition(*np.mean(found, axis=0).tolist())


def by_example(first: chex.Array, second: chex.Array, both: chex.Array) -> dict[str, np.ndarray]:
    """What each example's modalities tell of its own label: redundant, unique_1, unique_2 and synergy [N].

        r = min(i_1, i_2)      u_m = i_m - r      s = i_12 - max(i_1, i_2)

    They add up to i_12; r and s may be negative.

    Args:
      first: i_1 = log2 p_1[y] - log2 p(y) [N], of calibrated probabilities from the first modality.
      second: the same of the second.
      both: the same of the pair.
    """
    redundant = np.minimum(first, second)
    return {"redundant": redundant, "unique_1": first - redundant, "unique_2": second - redundant,
            "synergy": both - np.maximum(first, second)}


def cluster(train: chex.Array, features: chex.Array, count: int, seed: int) -> np.ndarray:
    """The nearest of `count` k-means centres of the features `train`, int [N] for features [N, s]."""
    with threadpool_limits(1):
        return KMeans(count, n_init=3, random_state=seed).fit(train).predict(features)
