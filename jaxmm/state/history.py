"""The training loss of every example, summed over the run: how hard it is for the model (QMF).

UNSEEN stands for examples of which there is no loss, as they lack the modality or have not come yet:
0 would be the easiest of all.
"""
import chex
import jax
import jax.numpy as jnp

UNSEEN = -1.0       # losses are >= 0


def init(num_examples: int) -> chex.Array:
    """History [N] float32 of examples with ids below N, before the first step."""
    return jnp.full(num_examples, UNSEEN)


def update(history: chex.Array, ids: chex.Array, losses: chex.Array,
           weights: chex.Array | None = None, *, axis_name: str | None = None) -> chex.Array:
    """The history [N] with the losses [B] of the examples `ids` [B] added.

    Examples of weight 0 add nothing. With an `axis_name` those of all devices are added.
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
    """The histories of the examples `ids` [B], min-max normalised over all seen to [0, 1].

    That of an unseen example is 0.
    """
    low = jnp.where(history >= 0, history, jnp.inf).min()
    return jnp.maximum(history[ids] - low, 0.0) / jnp.maximum(history.max() - low, 1e-12)
