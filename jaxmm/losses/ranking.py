"""Ranking of confidence against difficulty (QMF, Zhang et al., 2023)."""
import chex
import jax
import jax.numpy as jnp

from jaxmm.losses import weighted_mean


def ranking_loss(confidence: chex.Array, difficulty: chex.Array,
                 weights: chex.Array | None = None) -> chex.Array:
    """Mean over neighbours i, j = i + 1 (mod B) of max(0, t (c_i - c_j) - |l_i - l_j|), a scalar.

    t = sign(l_i - l_j); where t = 0 the pair's loss is 0. A harder example may be more confident than
    an easier one by no more than their difference in difficulty. A pair with an example of weight 0
    does not count.

    Args:
      confidence: c [B], of the global batch.
      difficulty: l [B] in [0, 1]; it carries no gradient.
      weights: [B], 0 for examples that do not count; 1 by default. A pair has the product of both.
    """
    weights = jnp.ones_like(confidence) if weights is None else weights.astype(jnp.float32)
    chex.assert_rank([confidence, difficulty, weights], 1)
    difficulty = jax.lax.stop_gradient(difficulty)
    c, l, w = (jnp.concatenate([x[1:], x[:1]]) for x in (confidence, difficulty, weights))
    gap = difficulty - l
    values = jnp.sign(gap) * (confidence - c) - jnp.abs(gap)
    values = jnp.where(gap == 0, 0.0, jax.nn.relu(values))
    return weighted_mean(values, weights * w)
