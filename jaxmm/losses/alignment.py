"""How far the modalities of an example disagree, in their predictions or in their features."""
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp

from jaxmm.losses import normalize, weighted_mean


def divergence_from_mean(logits: Mapping[str, chex.Array], present: Mapping[str, chex.Array]) -> chex.Array:
    """mean_m KL(pbar || p_m) [B] in nats, with pbar = mean_m p_m, over the modalities that an example has.

    It is 0 where they agree, and for an example with one modality or none.

    Args:
      logits: [B, C] by modality, of which p = softmax(z).
      present: bool [B] by modality.

    References:
      LFM, "Facilitating multimodal classification via dynamically learning modality gap", NeurIPS 2024, as
      released.
    """
    chex.assert_rank(list(logits.values()), 2)
    log_p = jax.nn.log_softmax(jnp.stack([z.astype(jnp.float32) for z in logits.values()]))
    mask = jnp.stack([present[m] for m in logits])[..., None]
    count = jnp.maximum(mask.sum(0), 1)
    mean = jnp.sum(jnp.where(mask, jnp.exp(log_p), 0.0), 0) / count
    log_mean = jnp.log(jnp.maximum(mean, jnp.finfo(jnp.float32).tiny))      # of a mean of 0 it does not count
    return jnp.sum(jnp.where(mask, mean * (log_mean - log_p), 0.0) / count, axis=(0, 2))


def contrastive_loss(x: chex.Array, y: chex.Array, both: chex.Array, temperature: chex.Numeric) -> chex.Array:
    """Symmetric InfoNCE of two modalities, a scalar: who belongs to whom, in nats.

    Of the cosines of all pairs, over the temperature, those of the same example are held against those with
    every other one, in either direction. It is the mean over the examples that have both; 0 if none has.

    Args:
      x: [B, s], of the global batch.
      y: [B, s] of the same examples.
      both: bool [B]: which examples have both.
      temperature: > 0.

    References:
      van den Oord et al., arXiv 1807.03748; Radford et al., arXiv 2103.00020 (symmetric).
    """
    chex.assert_rank([x, y, both], [2, 2, 1])
    chex.assert_equal_shape([x, y])
    cosines = jnp.matmul(normalize(x), normalize(y).T, precision=jax.lax.Precision.HIGHEST)
    itself = jnp.eye(len(x), dtype=bool)
    scores = jnp.where(both[:, None] & both[None, :] | itself, cosines / temperature, -jnp.inf)
    own = jnp.diagonal(scores)
    values = (jax.nn.logsumexp(scores, axis=0) + jax.nn.logsumexp(scores, axis=1)) / 2 - own
    return weighted_mean(values, both)
