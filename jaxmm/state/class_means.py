"""The nearest class mean as a classifier (iCaRL's rule).

References:
  Rebuffi et al., "iCaRL: incremental classifier and representation learning", CVPR 2017, section 3.2.
"""
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.losses import normalize

FARTHEST = 4.0      # squared distance of opposite unit vectors


class ClassMeans(NamedTuple):
    """Means of normalised features."""
    means: chex.Array   # float32 [C, s], normalised
    known: chex.Array   # bool [C]: classes that have one


def init(num_classes: int, size: int) -> ClassMeans:
    """No class has a mean."""
    return ClassMeans(jnp.zeros((num_classes, size)), jnp.zeros(num_classes, bool))


def fit(features: chex.Array, labels: chex.Array, counts: chex.Array, num_classes: int) -> ClassMeans:
    """The normalised means by class of the normalised features [N, s] of the rows that count, bool [N]."""
    chex.assert_rank([features, labels, counts], [2, 1, 1])
    rows = jnp.where(counts, labels, num_classes)       # past the end: dropped
    sums = jax.ops.segment_sum(normalize(features), rows, num_classes)
    return ClassMeans(normalize(sums), jnp.zeros(num_classes, bool).at[rows].set(True, mode="drop"))


def outputs(state: ClassMeans, features: chex.Array) -> chex.Array:
    """Minus the squared distance [B, C] of normalised features to each mean; -4, the least, for other classes."""
    squares = jnp.sum((normalize(features)[:, None] - state.means) ** 2, axis=-1)
    return -jnp.where(state.known, squares, FARTHEST)
