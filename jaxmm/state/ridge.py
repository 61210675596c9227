"""Ridge regression of one-hot classes on features, from sums over the examples seen so far.

The weights are those of all examples together, in whatever order and batches they came.

References:
  Zhuang et al., "ACIL: analytic class-incremental learning with absolute memorization and privacy protection",
  NeurIPS 2022. Its recursion has the same result.
  Fang et al., "AIR: analytic imbalance rectifier for continual learning", 2024 (classes weighed alike).
"""
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np


class RidgeState(NamedTuple):
    """Sums over the examples, by class: G is 1, or C where classes are to be weighed."""
    gram: chex.Array        # float32 [G, E, E]: of phi phi^T
    features: chex.Array    # float32 [C, E]: of phi
    counts: chex.Array      # float32 [C]: examples


def init(size: int, num_classes: int, *, by_class: bool) -> RidgeState:
    """The sums over no examples, of E = `size` features; `by_class` allows weighing classes later."""
    return RidgeState(jnp.zeros((num_classes if by_class else 1, size, size)), jnp.zeros((num_classes, size)),
                      jnp.zeros(num_classes))


def add(state: RidgeState, features: chex.Array, labels: chex.Array, counts: chex.Array, *,
        axis_name: str | None = None) -> RidgeState:
    """The sums with the examples of a batch added.

    Args:
      state: the sums.
      features: [B, E].
      labels: int [B], in [0, C).
      counts: bool [B], the rows that count.
      axis_name: mapped axis of the devices over which the rows are spread.
    """
    chex.assert_rank([features, labels, counts], [2, 1, 1])
    classes = jax.nn.one_hot(labels, len(state.counts)) * counts[:, None]
    groups = classes if len(state.gram) > 1 else counts[:, None].astype(jnp.float32)
    features = features.astype(jnp.float32)
    exact = {"precision": jax.lax.Precision.HIGHEST}
    sums = (jnp.einsum("bg,be,bf->gef", groups, features, features, **exact),
            jnp.einsum("bc,be->ce", classes, features, **exact), classes.sum(0))
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
    return RidgeState(*(old + new for old, new in zip(state, sums)))


def solve(state: RidgeState, gamma: float, *, balanced: bool) -> np.ndarray:
    """W = (A + gamma I)^-1 b, float32 [E, C], computed on the host in float64.

    A sums phi phi^T over the examples and b phi onehot(y)^T. With `balanced` an example of class c weighs K / n_c
    / sum_k 1 / n_k there, where n_c is the number of its examples and K that of the classes seen.
    """
    gram, features, counts = (np.asarray(x, np.float64) for x in state)
    weights = np.ones_like(counts)
    if balanced:
        inverse = np.where(counts > 0, 1 / np.maximum(counts, 1), 0)
        weights = (counts > 0).sum() * inverse / max(inverse.sum(), 1e-300)
        gram = np.tensordot(weights, gram, 1)[None]
    a = gram.sum(0) + gamma * np.eye(gram.shape[-1])
    return np.linalg.solve(a, (weights[:, None] * features).T).astype(np.float32)
