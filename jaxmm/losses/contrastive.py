"""Contrastive losses [B]: an example's feature is nearer to those of its class than to all others.

References:
  Van den Oord et al., "Representation learning with contrastive predictive coding", 2018 (InfoNCE).
  Khosla et al., "Supervised contrastive learning", NeurIPS 2020.
"""
import chex
import jax
import jax.numpy as jnp


def contrast(anchors: chex.Array, others: chex.Array, positive: chex.Array, valid: chex.Array,
             temperature: chex.Numeric, *, divide: chex.Array | None = None) -> chex.Array:
    """sum_{p in P_i} -log softmax_a(f_i . f_a / tau)[p] / |P_i| [B], the softmax over the valid others a.

    It is 0, without gradient, for anchors that have no positive.

    Args:
      anchors: f [B, s], normalised.
      others: [A, s], normalised.
      positive: bool [B, A], whether an other one is a positive of the anchor; those that are not valid are not.
      valid: bool [A].
      temperature: tau > 0.
      divide: what the sum is divided by in place of |P_i|.
    """
    chex.assert_rank([anchors, others, positive, valid], [2, 2, 2, 1])
    scores = anchors @ others.T / temperature
    log_p = jax.nn.log_softmax(jnp.where(valid, scores, jnp.finfo(scores.dtype).min))
    positive &= valid
    count = jnp.maximum(positive.sum(1), 1) if divide is None else divide
    return -jnp.sum(jnp.where(positive, log_p, 0.0), axis=1) / count
