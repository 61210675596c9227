"""A free code of every training example, learned by an optimizer that moves the codes of a batch alone (CPM-Net).

Other rows stay bit for bit: they have neither momentum nor decay. With several devices each holds a copy of
the table.

References:
  Zhang et al., "CPM-Nets: cross partial multi-view networks", NeurIPS 2019.
"""
import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

UNSEEN = -1
ADAM = optax.scale_by_adam()


class CodesState(NamedTuple):
    """The table, by id of the examples."""
    codes: chex.Array           # float32 [N, K]
    opt_state: optax.OptState   # of ADAM, for each row its own: moments [N, K], updates so far int32 [N]
    labels: chex.Array          # int32 [N]; UNSEEN for ids that no batch has had


def init(key: chex.PRNGKey, num_examples: int, size: int) -> CodesState:
    """Codes of `size` numbers for ids below N, uniform in +-sqrt(6 / (N + K)), before the first step."""
    bound = math.sqrt(6 / (num_examples + size))
    codes = jax.random.uniform(key, (num_examples, size), jnp.float32, -bound, bound)
    return CodesState(codes, jax.vmap(ADAM.init)(codes), jnp.full(num_examples, UNSEEN, jnp.int32))


def see(state: CodesState, ids: chex.Array, labels: chex.Array, *, axis_name: str | None = None) -> CodesState:
    """The table that knows the labels int [B] of the examples `ids` int [B] (on all devices of `axis_name`)."""
    chex.assert_rank([ids, labels], 1)
    chex.assert_type([ids, labels], int)
    if axis_name is not None:
        ids, labels = jax.lax.all_gather((ids, labels), axis_name, tiled=True)
    return state._replace(labels=state.labels.at[ids].set(labels.astype(jnp.int32)))


def update(state: CodesState, ids: chex.Array, grads: chex.Array, first: chex.Array,
           learning_rate: chex.Numeric, *, axis_name: str | None = None) -> CodesState:
    """The table after a step of Adam on the codes of the examples `ids` int [B].

    Args:
      state: the table.
      ids: int [B].
      grads: [B, K], of each code by itself.
      first: bool [B]; False for rows that repeat an id, which are left out.
      learning_rate: of Adam.
      axis_name: mapped axis of the devices over which the rows are spread.
    """
    chex.assert_rank([ids, grads, first], [1, 2, 1])
    if axis_name is not None:
        ids, grads, first = jax.lax.all_gather((ids, grads, first), axis_name, tiled=True)
    direction, opt_state = jax.vmap(ADAM.update)(
        grads.astype(jnp.float32), jax.tree.map(lambda x: x[ids], state.opt_state))
    rows = jnp.where(first, ids, len(state.codes))      # past the end: dropped

    def put(old, new):
        return old.at[rows].set(new, mode="drop")

    return state._replace(codes=put(state.codes, state.codes[ids] - learning_rate * direction),
                          opt_state=jax.tree.map(put, state.opt_state, opt_state))


def class_sums(state: CodesState, num_classes: int) -> tuple[chex.Array, chex.Array]:
    """The sum of the codes [C, K] and the number [C] of the examples seen of each class."""
    ones = jnp.ones((len(state.labels), 1))
    rows = jnp.where(state.labels == UNSEEN, num_classes, state.labels)
    sums = jax.ops.segment_sum(jnp.concatenate([state.codes, ones], axis=1), rows, num_classes + 1)
    return sums[:num_classes, :-1], sums[:num_classes, -1]
