"""The training loss of every example, summed over the run: how hard it is for the model (QMF)."""
import chex
import jax
import jax.numpy as jnp


def init(num_examples: int) -> chex.Array:
    """History [N] float32 of examples with ids below N, before the first step."""
    return jnp.zeros(num_examples)


def update(history: chex.Array, ids: chex.Array, losses: chex.Array,
           weights: chex.Array | None = None, *, axis_name: str | None = None) -> chex.Array:
    """The history [N] with the losses [B] of the examples `ids` [B] added.

    Examples of weight 0 add nothing. With an `axis_name` those of all devices are added.
    """
    chex.assert_rank([history, ids, losses], 1)
    chex.assert_type(ids, int)
    losses = losses.astype(jnp.float32)
    losses = losses if weights is None else jnp.where(weights > 0, losses, 0.0)
    if axis_name is not None:
        ids, losses = jax.lax.all_gather((ids, losses), axis_name, tiled=True)
    return history.at[ids].add(jax.lax.stop_gradient(losses))


def relative(history: chex.Array, ids: chex.Array) -> chex.Array:
    """The histories of the examples `ids` [B], min-max normalised over all to [0, 1]."""
    low, high = history.min(), history.max()
    return (history[ids] - low) / jnp.maximum(high - low, 1e-12)
