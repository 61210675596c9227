"""The mean feature of each class, and how near features are to it."""
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.state.seen import restrict


class Prototypes(NamedTuple):
    """A prototype of each class, of one modality."""
    mean: chex.Array    # float32 [C, s]; 0 for classes without
    known: chex.Array   # bool [C]: the classes that have one


def init(num_classes: int, width: int) -> Prototypes:
    """No class has a prototype."""
    return Prototypes(jnp.zeros((num_classes, width)), jnp.zeros(num_classes, bool))


def update(state: Prototypes, features: chex.Array, labels: chex.Array, weights: chex.Array, epsilon: float,
           reduce: Callable = lambda sums: sums) -> Prototypes:
    """Prototypes c <- epsilon c + (1 - epsilon) mean of the class; a class that is new gets the mean itself.

    Args:
      state: classes of which there is no example keep theirs.
      features: [N, s]; they carry no gradient.
      labels: int [N].
      weights: [N], 0 for examples that do not count.
      epsilon: in [0, 1).
      reduce: sums a tree over the devices that share the examples; nothing by default.
    """
    chex.assert_rank([features, labels, weights], [2, 1, 1])
    features = jax.lax.stop_gradient(features).astype(jnp.float32)
    members = jax.nn.one_hot(labels, len(state.known)) * weights.astype(jnp.float32)[:, None]
    sums, counts = reduce((jnp.matmul(members.T, features, precision=jax.lax.Precision.HIGHEST), members.sum(0)))
    mean = sums / jnp.maximum(counts, 1.0)[:, None]
    mean = jnp.where(state.known[:, None], epsilon * state.mean + (1 - epsilon) * mean, mean)
    there = counts > 0
    return Prototypes(jnp.where(there[:, None], mean, state.mean), state.known | there)


def log_similarities(state: Prototypes, features: chex.Array) -> chex.Array:
    """log q [N, C] of features [N, s], q = softmax(-|h - c|) over the classes that have a prototype c.

    It has a gradient in the features, 0 where they meet a prototype. Without prototypes q is uniform.
    """
    differences = features.astype(jnp.float32)[:, None, :] - state.mean
    squares = jnp.sum(differences ** 2, axis=-1)
    distances = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    return jax.nn.log_softmax(restrict(-distances, state.known))
