"""Which examples each step sees: a function of the seed and the step alone."""
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmm.config import TrainConfig
from jaxmm.errors import UserError


class Chunk(NamedTuple):
    """Steps made in one call."""
    index: np.ndarray      # int32 [K, B]: rows of the training split
    task: int
    epoch: int             # within the task, from 0
    end: int               # steps done after it
    ends_epoch: bool
    ends_task: bool


def steps_per_epoch(task: np.ndarray, batch_size: int) -> int:
    """Full batches in one pass over the rows of a task; one if it has fewer rows than a batch."""
    return max(len(task) // batch_size, 1)


def check_batch_size(tasks: Sequence[np.ndarray], batch_size: int) -> None:
    """Raises UserError if the batch is larger than all the data."""
    rows = sum(len(task) for task in tasks)
    if not 1 <= batch_size <= rows:
        raise UserError(f"train.batch_size={batch_size}; expected between 1 and the {rows} "
                        "training examples there are")


def make_epoch(tasks: Sequence[np.ndarray], config: TrainConfig):
    """epoch(step): the epochs done within the task that the step belongs to, fractional."""
    lengths = np.array([steps_per_epoch(task, config.batch_size) for task in tasks])
    starts = np.concatenate([[0], np.cumsum(config.epochs * lengths)[:-1]])

    def epoch(step):
        task = jnp.searchsorted(jnp.asarray(starts), step, side="right") - 1
        return (step - jnp.asarray(starts)[task]) / jnp.asarray(lengths)[task]

    return epoch


def total_steps(tasks: Sequence[np.ndarray], config: TrainConfig) -> int:
    """Steps of the whole run."""
    return sum(config.epochs * steps_per_epoch(task, config.batch_size) for task in tasks)


def chunks(tasks: Sequence[np.ndarray], config: TrainConfig, steps_per_call: int,
           start: int = 0) -> Iterator[Chunk]:
    """All chunks of a run after its first `start` steps.

    Each epoch of each task passes over the task's rows in an order of its own and drops the last,
    incomplete batch; a task with fewer rows than a batch repeats some. Chunks are laid out from the
    start of the epoch, so that a resumed run makes the very same calls.

    Args:
      tasks: rows of the training split, by task.
      config: seed, epochs, batch size.
      steps_per_call: longest chunk.
      start: steps done already.
    """
    end = 0
    for task, rows in enumerate(tasks):
        steps = steps_per_epoch(rows, config.batch_size)
        for epoch in range(config.epochs):
            if end + steps <= start:
                end += steps
                continue
            order = np.random.default_rng([config.seed, task, epoch]).permutation(rows)
            index = np.resize(order, steps * config.batch_size).reshape(steps, -1).astype(np.int32)
            for first in range(0, steps, steps_per_call):
                chunk = index[first:first + steps_per_call]
                end += len(chunk)
                if end > start:
                    # A run that is resumed with other chunks may start within one.
                    done = max(start - (end - len(chunk)), 0)
                    ends_epoch = first + len(chunk) == steps
                    yield Chunk(chunk[done:], task, epoch, end, ends_epoch,
                                ends_epoch and epoch == config.epochs - 1)
