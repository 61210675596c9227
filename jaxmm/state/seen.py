"""Which classes a stream has brought so far, and in which of its tasks each came first."""
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class SeenState(NamedTuple):
    first: chex.Array   # int32 [C]: the task in which a class first came, -1 before
    task: chex.Array    # int32 []: of the coming step, from 0


def init(num_classes: int) -> SeenState:
    """Nothing seen."""
    return SeenState(jnp.full(num_classes, -1, jnp.int32), jnp.zeros((), jnp.int32))


def update(state: SeenState, labels: chex.Array, *, axis_name: str | None = None) -> SeenState:
    """With the classes of labels int [B] (and those of all devices of `axis_name`) as seen.

    A class that comes back stays with its first task.
    """
    occurs = jnp.zeros(state.first.shape, jnp.int32).at[labels].set(1)
    if axis_name is not None:
        occurs = jax.lax.pmax(occurs, axis_name)
    return state._replace(first=jnp.where((occurs > 0) & (state.first < 0), state.task, state.first))


def next_task(state: SeenState) -> SeenState:
    """The next task begins."""
    return state._replace(task=state.task + 1)


def old(state: SeenState) -> chex.Array:
    """bool [C]: the classes of earlier tasks."""
    return (state.first >= 0) & (state.first < state.task)


def restrict(logits: chex.Array, allowed: chex.Array) -> chex.Array:
    """Logits [B, C] with the classes that are not `allowed` bool [C] out of the softmax.

    They have probability 0 and no gradient.
    """
    return jnp.where(allowed, logits, jnp.finfo(logits.dtype).min)
