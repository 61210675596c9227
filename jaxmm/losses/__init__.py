"""Losses: per example [B], or over the pairs of a batch where they compare examples."""
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp


def weighted_mean(values: chex.Array, weights: chex.Array | None = None,
                  reduce: Callable = lambda sums: sums) -> chex.Array:
    """Mean of `values` [B] under `weights` [B] in float32.

    It is 0, with zero gradient, if no example counts. The sum of the weights that it is divided by
    carries no gradient.

    Args:
      values: [B].
      weights: [B], 0 for examples that do not count (absent modality, padding); 1 by default.
      reduce: sums the pair (sum of weighted values, sum of weights) over the devices that share the
        batch; nothing by default.
    """
    weights = jnp.ones_like(values) if weights is None else weights
    chex.assert_rank([values, weights], 1)
    chex.assert_equal_shape([values, weights])
    weights = weights.astype(jnp.float32)
    total, count = reduce((jnp.sum(weights * values.astype(jnp.float32)), jnp.sum(weights)))
    count = jax.lax.stop_gradient(count)
    return total / jnp.where(count > 0, count, 1.0)


def norm(x: chex.Array) -> chex.Array:
    """Euclidean norm over the last axis, with gradient 0 at 0."""
    square = jnp.sum(x ** 2, axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def normalize(x: chex.Array) -> chex.Array:
    """x over its norm along the last axis, in float32; 0 stays 0, with gradient 0."""
    x = x.astype(jnp.float32)
    length = norm(x)[..., None]
    return jnp.where(length > 0, x / jnp.where(length > 0, length, 1.0), 0.0)
