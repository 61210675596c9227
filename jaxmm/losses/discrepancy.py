"""How far apart the distributions of two batches of features are."""
from collections.abc import Callable

import chex
import jax.numpy as jnp


def central_moment_discrepancy(a: chex.Array, b: chex.Array, of_a: chex.Array | None = None,
                               of_b: chex.Array | None = None, reduce: Callable = lambda sums: sums,
                               ) -> chex.Array:
    """|mean a - mean b| + sum_{q=2..5} |mean (a - mean a)^q - mean (b - mean b)^q|, a scalar, in float32.

    Norms are over the units, means over the rows. Rows of a and b need not be paired. The term of moments
    that agree is 0, with zero gradient, and so is the whole if a or b has no rows. Moments are not divided by
    powers of the range of values, which the paper has bounded.

    Args:
      a: [A, s].
      b: [B, s].
      of_a: bool [A], False for rows that do not count; all by default. They may hold anything finite.
      of_b: the same for b, [B].
      reduce: sums a tree over the devices that share the batch; nothing by default.

    References:
      Zellinger et al., "Central moment discrepancy (CMD) for domain-invariant representation learning",
      ICLR 2017, arXiv 1702.08811.
    """
    chex.assert_rank([a, b], 2)
    chex.assert_equal_shape_suffix([a, b], 1)
    (moments_a, count_a), (moments_b, count_b) = _moments(a, of_a, reduce), _moments(b, of_b, reduce)
    squares = jnp.sum(jnp.square(moments_a - moments_b), axis=-1)
    differ = (squares > 0) & (count_a > 0) & (count_b > 0)
    return jnp.sum(jnp.where(differ, jnp.sqrt(jnp.where(differ, squares, 1.0)), 0.0))


def _moments(x, mask, reduce):
    """Mean and central moments of order 2 to 5, [5, s], and the number of rows."""
    mask = jnp.ones(len(x), bool) if mask is None else mask
    x = jnp.where(mask[:, None], x.astype(jnp.float32), 0.0)
    total, count = reduce((jnp.sum(x, axis=0), jnp.sum(mask.astype(jnp.float32))))
    size = jnp.maximum(count, 1.0)
    mean = total / size
    centred = jnp.where(mask[:, None], x - mean, 0.0)
    powers = reduce(jnp.stack([jnp.sum(centred**q, axis=0) for q in range(2, 6)]))
    return jnp.concatenate([mean[None], powers / size]), count
