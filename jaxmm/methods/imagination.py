"""Methods that imagine the modalities an example lacks, in training those that they hide themselves."""
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp

from jaxmm.keys import named_key


def hide(key: chex.PRNGKey, ids: chex.Array, present: Mapping[str, chex.Array],
         probability: chex.Numeric) -> dict[str, chex.Array]:
    """Which modalities of the examples are given, bool [B] by modality; the others present are hidden.

    Each is hidden with this probability. An example that would be given nothing keeps one of its
    modalities, drawn with equal probability; one that has none gets none. As in `jaxmm.data.missing.drop`,
    but by step: the draws depend on the key, the modality's name and the example's id.

    Args:
      key: of the step and of what it is drawn for, see `jaxmm.methods.common.own_key`.
      ids: int [B].
      present: bool [B] by modality.
      probability: in [0, 1].
    """
    def draw(m):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(named_key(key, m), ids)
        return jax.vmap(lambda k: jax.random.uniform(k, (2,)))(keys)

    names = sorted(present)
    had = jnp.stack([present[m] for m in names])                                    # [M, B]
    drawn, turn = jnp.moveaxis(jnp.stack([draw(m) for m in names]), -1, 0)
    kept = had & (drawn >= probability)
    spared = jnp.where(had, turn, -1.0).argmax(0) == jnp.arange(len(names))[:, None]
    return dict(zip(names, kept | had & spared & ~kept.any(0)))
