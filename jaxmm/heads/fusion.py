"""Fusion at test time: from the logits of several heads to one prediction per example.

`present` holds, for each key of `logits`, bool [B]: for which examples that head takes part, all by
default. An example for which none does gets logits 0, the uniform prediction.
"""
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp


def entropy_weighted(
    logits: Mapping[str, chex.Array], present: Mapping[str, chex.Array] | None = None
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """Mean of the logits weighted by certainty: modalities of low entropy weigh more.

    Args:
      logits: [B, C] by modality, finite.
      present: bool [B] by modality.

    Returns:
      Fused logits [B, C] and the weights lambda [B] by modality. They are 0 for the modalities that
      an example lacks, and sum to 1 if it has any.

    References:
      MLA, arXiv 2311.10707, section 3.3, equations 6-8.
    """
    stacked, mask = _stack(logits, present)
    log_p = jax.nn.log_softmax(stacked)
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)                         # eq. 6
    weights = jax.nn.softmax(-entropy, axis=0, where=mask)                      # eq. 7
    fused = jnp.sum(weights[..., None] * stacked, axis=0)                       # eq. 8
    return fused, dict(zip(logits, weights, strict=True))


def confidence_weighted(
    logits: Mapping[str, chex.Array],
    temperatures: Mapping[str, chex.Numeric],
    present: Mapping[str, chex.Array] | None = None,
) -> chex.Array:
    """Sum over the heads of the calibrated logits z / T times their confidence max softmax(z / T).

    Args:
      logits: [B, C] by head, finite.
      temperatures: T > 0 by head.
      present: bool [B] by head.

    Returns:
      Fused logits [B, C].

    References:
      SAMM, arXiv 2405.02766, dynamic inference.
    """
    stacked, mask = _stack({k: z / temperatures[k] for k, z in logits.items()}, present)
    return jnp.sum(_confidence(stacked, mask)[..., None] * stacked, axis=0)


def confidences(
    logits: Mapping[str, chex.Array],
    temperatures: Mapping[str, chex.Numeric],
    present: Mapping[str, chex.Array] | None = None,
) -> dict[str, chex.Array]:
    """The weights [B] in [0, 1] by head of `confidence_weighted`, 0 for heads that take no part."""
    stacked, mask = _stack({k: z / temperatures[k] for k, z in logits.items()}, present)
    return dict(zip(logits, _confidence(stacked, mask), strict=True))


def _confidence(stacked, mask):
    return jnp.where(mask, jnp.max(jax.nn.softmax(stacked), axis=-1), 0.0)


def product_of_experts(
    logits: Mapping[str, chex.Array],
    temperatures: Mapping[str, chex.Numeric],
    weights: Mapping[str, chex.Numeric],
    log_prior: chex.Array,
    present: Mapping[str, chex.Array] | None = None,
) -> chex.Array:
    """The product of calibrated predictions: sum_m w_m log p_m - (sum_m w_m - 1) log prior.

    With p_m = softmax(z_m / T_m) and weights of 1 it is the rule of Bayes for modalities that are independent
    of each other given the class. Heads that take no part drop out of both sums; without any there is the
    prior.

    Args:
      logits: z [B, C] by head, finite.
      temperatures: T > 0 by head.
      weights: w >= 0 by head.
      log_prior: [C], log of the share of each class.
      present: bool [B] by head.

    Returns:
      Fused logits [B, C].
    """
    stacked, mask = _stack({k: z / temperatures[k] for k, z in logits.items()}, present)
    shares = jnp.where(mask, jnp.stack([jnp.float32(weights[k]) for k in logits])[:, None], 0.0)
    log_p = jax.nn.log_softmax(stacked)
    return jnp.sum(shares[..., None] * log_p, axis=0) - (shares.sum(axis=0) - 1)[:, None] * log_prior


def mean_logits(
    logits: Mapping[str, chex.Array], present: Mapping[str, chex.Array] | None = None
) -> chex.Array:
    """Mean [B, C] of the logits [B, C] of the heads that take part."""
    stacked, mask = _stack(logits, present)
    count = jnp.sum(mask, axis=0)
    return jnp.sum(stacked, axis=0) / jnp.maximum(count, 1)[:, None]


def _stack(logits, present) -> tuple[chex.Array, chex.Array]:
    """Logits [M, B, C] in float32, 0 where absent, and the mask [M, B] of those present."""
    chex.assert_rank(list(logits.values()), 2)
    chex.assert_equal_shape(list(logits.values()))
    stacked = jnp.stack([z.astype(jnp.float32) for z in logits.values()])
    if present is None:
        return stacked, jnp.ones(stacked.shape[:2], bool)
    mask = jnp.stack([present[k] for k in logits])
    chex.assert_shape(mask, stacked.shape[:2])
    chex.assert_type(mask, bool)
    return jnp.where(mask[..., None], stacked, 0.0), mask
