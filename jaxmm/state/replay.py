"""Replay memory: a uniform sample of every example seen so far, as a pytree.

Reservoir sampling (Vitter, "Random sampling with a reservoir", 1985, algorithm R): example number
t of the stream, from 0, fills slot t while there are free slots. Later ones draw a slot uniformly
from [0, t] and overwrite it if the memory has that slot. Every example seen is then in the memory
with the same probability.

With several devices there is one memory of the global stream, and each device holds a copy of it.
This keeps algorithm R exact and restores onto any number of devices.
"""
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.errors import UserError


class ReplayState(NamedTuple):
    """The memory; slots [0, size) are filled."""
    storage: chex.ArrayTree     # [capacity, ...], in the types of the example
    seen: chex.Array            # int32 []: examples added so far; exact below 2**31 - 1
    add_key: chex.PRNGKey       # constant: example t draws with fold_in(add_key, t)
    sample_key: chex.PRNGKey    # advances with every sample


def init(capacity: int, example: chex.ArrayTree, key: chex.PRNGKey) -> ReplayState:
    """An empty memory for `capacity` examples of the shapes and types of `example`.

    Args:
      capacity: number of slots, at least 1.
      example: one example without a batch axis; arrays or `jax.ShapeDtypeStruct`s.
      key: for all later draws.

    Raises:
      UserError: a capacity below 1.
    """
    if capacity < 1:
        raise UserError(f"replay capacity {capacity} holds nothing; expected at least 1 example")
    add_key, sample_key = jax.random.split(key)
    storage = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example)
    return ReplayState(storage, jnp.zeros((), jnp.int32), add_key, sample_key)


def add(state: ReplayState, batch: chex.ArrayTree, weights: chex.Array | None = None,
        axis_name: str | None = None) -> ReplayState:
    """Adds a batch row by row: of two rows that draw the same slot, the later one is kept.

    A row's draw depends only on its number in the stream, so the memory does not depend on how the
    stream was cut into batches or spread over devices.

    Args:
      state: the memory.
      batch: arrays [B, ...] with the structure, shapes and types of the memory's example.
      weights: 0 or 1 [B]; rows with 0 are not part of the stream. All 1 by default.
      axis_name: mapped axis over which the global batch is split, in the order of the devices.
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(_row(state.storage), _row(batch))
    batch_size = jax.tree.leaves(batch)[0].shape[0]
    weights = jnp.ones(batch_size, bool) if weights is None else jnp.asarray(weights) > 0
    chex.assert_shape(weights, (batch_size,))
    if axis_name is not None:
        batch, weights = jax.lax.all_gather((batch, weights), axis_name, tiled=True)

    capacity = _capacity(state)
    number = state.seen + jnp.cumsum(weights, dtype=jnp.int32) - 1      # in the stream, by row
    slots = jnp.where(weights, draw_slots(state.add_key, number, capacity), capacity)
    replaced = jnp.triu(slots[:, None] == slots[None, :], k=1).any(axis=1)  # by a later row
    # Rows that are not kept get indices past the end, all different so that indices are unique.
    dropped = capacity + jnp.arange(len(slots), dtype=jnp.int32)
    slots = jnp.where(replaced | (slots >= capacity), dropped, slots)
    storage = jax.tree.map(
        lambda old, new: old.at[slots].set(new, mode="drop", unique_indices=True),
        state.storage, batch)
    return state._replace(storage=storage, seen=state.seen + weights.sum(dtype=jnp.int32))


def draw_slots(key: chex.PRNGKey, number: chex.Array, capacity: int) -> chex.Array:
    """The slot that each example draws, int32 [B]; from `capacity` on: it is not kept.

    Args:
      key: `add_key` of the memory.
      number: int32 [B], position of the examples in the stream, from 0.
      capacity: number of slots.
    """
    draw = jax.vmap(lambda t: jax.random.randint(jax.random.fold_in(key, t), (), 0, t + 1))
    return jnp.where(number < capacity, number, draw(number))


def sample(state: ReplayState, batch_size: int, *, balanced: bool = False,
           axis_name: str | None = None) -> tuple[ReplayState, chex.ArrayTree, chex.Array]:
    """Draws examples uniformly, without replacement, and advances `sample_key`.

    With `balanced` it takes one random example of every class, then a second one of every class
    that has two, and so on; if the last round does not fit, its classes are drawn at random. The
    numbers of examples by class thus differ by at most 1, except for classes that are used up.

    Args:
      state: the memory.
      batch_size: rows B to return on this device.
      balanced: whether to balance over the classes, given by the leaf "label" of the examples.
      axis_name: mapped axis of the devices; each returns its own part of one global sample, the
        same that one device draws with the global batch size.

    Returns:
      The new state, a batch of arrays [B, ...], and valid, bool [B]. Valid is False for rows beyond
      the number of stored examples; their content is arbitrary.
    """
    sample_key, order_key, class_key = jax.random.split(state.sample_key, 3)
    capacity = _capacity(state)
    num_devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    total = batch_size * num_devices

    draw = jax.random.uniform(order_key, (capacity,))
    if balanced:
        label = jnp.where(filled(state), state.storage["label"], jnp.iinfo(jnp.int32).max)
        turn = jnp.where(filled(state), _random_rank(class_key, label), capacity)
        slots = jnp.lexsort((draw, turn))[:total]
    else:       # the smallest draws; on CPU a sort of 10,000 would take 4 ms, this 0.1 ms
        slots = jax.lax.top_k(jnp.where(filled(state), -draw, -jnp.inf), min(total, capacity))[1]
    slots = jnp.pad(slots, (0, total - len(slots)))
    valid = jnp.arange(total) < size(state)
    if axis_name is not None:
        start = jax.lax.axis_index(axis_name) * batch_size
        slots = jax.lax.dynamic_slice_in_dim(slots, start, batch_size)
        valid = jax.lax.dynamic_slice_in_dim(valid, start, batch_size)
    state, batch = read(state, slots)
    return state._replace(sample_key=sample_key), batch, valid


def read(state: ReplayState, slots: chex.Array) -> tuple[ReplayState, chex.ArrayTree]:
    """(The same state, what is in `slots` int [B]); a later `add` writes after this."""
    batch = jax.tree.map(lambda x: x[slots], state.storage)
    return state._replace(seen=_after(state.seen, batch)), batch


def size(state: ReplayState) -> chex.Array:
    """Number of filled slots, int32 []."""
    return jnp.minimum(state.seen, _capacity(state))


def filled(state: ReplayState) -> chex.Array:
    """Which slots hold an example, bool [capacity]."""
    return jnp.arange(_capacity(state)) < size(state)


def _random_rank(key: chex.PRNGKey, label: chex.Array) -> chex.Array:
    """Position [N] of every row, from 0, in a random order of the rows of its label [N]."""
    order = jnp.lexsort((jax.random.uniform(key, label.shape), label))
    start = jnp.searchsorted(label[order], label[order])    # of the row's label, in that order
    return jnp.zeros_like(start).at[order].set(jnp.arange(len(label)) - start, unique_indices=True)


def _after(value: chex.Array, batch: chex.ArrayTree) -> chex.Array:
    """An integer `value`, unchanged but made to depend on every array of `batch`.

    Unless the writes of a later `add` depend on what was read, XLA on CPU copies the whole memory
    for them; `optimization_barrier` does not prevent that.
    """
    first = [x[(0,) * x.ndim].astype(jnp.int32) for x in jax.tree.leaves(batch)]
    return value + sum((x == x + 1).astype(jnp.int32) for x in first)   # adds 0; XLA does not fold it


def _capacity(state: ReplayState) -> int:
    return jax.tree.leaves(state.storage)[0].shape[0]


def _row(batch: chex.ArrayTree) -> chex.ArrayTree:
    """Shape and type of one row of a batch."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
