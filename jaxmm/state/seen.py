"""Which classes have come so far in a stream, and in which of its tasks each came first."""
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class SeenState(NamedTuple):
    """The first task of each class, and the current task."""
    first: chex.Array   # int32 [C]: the task in which a class first came; -1: not yet
    task: chex.Array    # int32 []: number of the current task, from 0


def init(num_classes: int) -> SeenState:
    """The state before any class has come."""
    return SeenState(jnp.full(num_classes, -1, jnp.int32), jnp.zeros((), jnp.int32))


def update(state: SeenState, labels: chex.Array, *, axis_name: str | None = None) -> SeenState:
    """The state after labels int [B] of the current task (on all devices of `axis_name`).

    A class that comes again keeps its first task.
    """
    occurs = jnp.zeros(state.first.shape, jnp.int32).at[labels].set(1)
    if axis_name is not None:
        occurs = jax.lax.pmax(occurs, axis_name)
    return state._replace(first=jnp.where((occurs > 0) & (state.first < 0), state.task, state.first))


def next_task(state: SeenState) -> SeenState:
    """The state at the start of the next task."""
    return state._replace(task=state.task + 1)


def old(state: SeenState) -> chex.Array:
    """bool [C]: the classes that first came in an earlier task."""
    return (state.first >= 0) & (state.first < state.task)


def restrict(logits: chex.Array, allowed: chex.Array) -> chex.Array:
    """Logits [B, C], masked so that classes not `allowed`, bool [C], have probability 0 and no gradient."""
    return jnp.where(allowed, logits, jnp.finfo(logits.dtype).min)
