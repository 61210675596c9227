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


def occurring(labels: chex.Array, num_classes: int, *, axis_name: str | None = None) -> chex.Array:
    """bool [C]: the classes among labels int [B] (on all devices of `axis_name`)."""
    occurs = jnp.zeros(num_classes, jnp.int32).at[labels].set(1)
    return (occurs if axis_name is None else jax.lax.pmax(occurs, axis_name)) > 0


def update(state: SeenState, labels: chex.Array, *, axis_name: str | None = None) -> SeenState:
    """The state after labels int [B] of the current task (on all devices of `axis_name`).

    A class that comes again keeps its first task.
    """
    occurs = occurring(labels, len(state.first), axis_name=axis_name)
    return state._replace(first=jnp.where(occurs & (state.first < 0), state.task, state.first))


def next_task(state: SeenState) -> SeenState:
    """The state at the start of the next task."""
    return state._replace(task=state.task + 1)


def old(state: SeenState) -> chex.Array:
    """bool [C]: the classes that first came in an earlier task."""
    return (state.first >= 0) & (state.first < state.task)


def own_side(state: SeenState, labels: chex.Array) -> chex.Array:
    """bool [B, C]: for labels int [B] of an earlier task the classes of earlier tasks, for others those of the
    current one."""
    earlier = old(state)
    return jnp.where(earlier[labels][:, None], earlier, state.first == state.task)


def restrict(logits: chex.Array, allowed: chex.Array) -> chex.Array:
    """Logits [B, C], masked so that classes not `allowed`, bool [C] or [B, C], have probability 0 and no
    gradient."""
    return jnp.where(allowed, logits, jnp.finfo(logits.dtype).min)
