"""The training loss of every example, summed over the run: how hard it is for the model (QMF).

UNSEEN marks examples without a loss, which lack the modality or have not come yet. (0 would mark them
as the easiest of all.)

References:
  Zhang et al., "Provable dynamic fusion for low-quality multimodal data", ICML 2023, arXiv 2306.02050.
"""
import chex
import jax
import jax.numpy as jnp

UNSEEN = -1.0       # losses are >= 0


def init(num_examples: int) -> chex.Array:
    """History [N] float32 of examples with ids below N, before the first step."""
    return jnp.full(num_examples, UNSEEN, jnp.float32)


def update(history: chex.Array, ids: chex.Array, losses: chex.Array,
           weights: chex.Array | None = None, *, axis_name: str | None = None) -> chex.Array:
    """The history [N] with the losses [B] of the examples `ids` int [B] added.

    Examples of weight 0 add nothing. With an `axis_name` the losses of all its devices are added.
    """
    chex.assert_rank([history, ids, losses], 1)
    chex.assert_type(ids, int)
    losses = losses.astype(jnp.float32)
    counts = jnp.ones_like(losses) if weights is None else (weights > 0).astype(jnp.float32)
    losses = jnp.where(counts > 0, jax.lax.stop_gradient(losses), 0.0)
    if axis_name is not None:
        ids, losses, counts = jax.lax.all_gather((ids, losses, counts), axis_name, tiled=True)
    begun = history.at[ids].max(jnp.where(counts > 0, 0.0, UNSEEN))
    return begun.at[ids].add(losses)


def relative(history: chex.Array, ids: chex.Array) -> chex.Array:
    """The histories [B] of the examples `ids` int [B], min-max normalised over all seen ones to [0, 1].

    Those of unseen examples are 0.
    """
    low = jnp.where(history >= 0, history, jnp.inf).min()
    return jnp.maximum(history[ids] - low, 0.0) / jnp.maximum(history.max() - low, 1e-12)
