"""The newest value of every example, such as what a modality contributed to it when it was last seen (SMV).

UNSEEN marks examples without one, which lack the modality or have not come yet.
"""
import chex
import jax
import jax.numpy as jnp

UNSEEN = -jnp.inf


def init(num_examples: int) -> chex.Array:
    """Values [N] float32 of examples with ids below N, before the first step."""
    return jnp.full(num_examples, UNSEEN, jnp.float32)


def update(latest: chex.Array, ids: chex.Array, values: chex.Array, counts: chex.Array, *,
           axis_name: str | None = None) -> chex.Array:
    """The values [N] with `values` [B] in place of those of the examples `ids` int [B] that count, bool [B].

    No id may count twice. With an `axis_name` those of all its devices are taken.
    """
    chex.assert_rank([latest, ids, values, counts], 1)
    chex.assert_type(ids, int)
    if axis_name is not None:
        ids, values, counts = jax.lax.all_gather((ids, values, counts), axis_name, tiled=True)
    return latest.at[jnp.where(counts, ids, len(latest))].set(jax.lax.stop_gradient(values), mode="drop")


def mean(latest: chex.Array) -> chex.Array:
    """Mean of the values of the examples that have one, float32 []; NaN if none has."""
    return jnp.mean(latest, where=latest != UNSEEN)
