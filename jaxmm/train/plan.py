"""Which examples each step sees: a function of the seed and the step alone."""
import functools
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from jaxmm.config import TrainConfig
from jaxmm.errors import UserError


class Epoch(NamedTuple):
    """The place of a step within its task, in integers: a compiled division may round 3 / 3 down."""
    done: chex.Array       # int32, epochs before it
    step: chex.Array       # int32, steps of its epoch before it
    steps: chex.Array      # int32, steps in an epoch
    epochs: int = 1        # of the task

    @property
    def fraction(self) -> chex.Array:
        """Epochs done, float32; only for what varies smoothly."""
        return self.done + self.step / self.steps


class Chunk(NamedTuple):
    """Steps made in one call."""
    index: np.ndarray      # int32 [K, B]: rows of the training split
    task: int
    epoch: int             # within the task, from 0
    end: int               # steps done after it
    ends_epoch: bool
    ends_task: bool


def steps_per_epoch(task: Sized, batch_size: int) -> int:
    """Full batches in one pass over the rows of a task; one if it has fewer rows than a batch."""
    return max(len(task) // batch_size, 1)


def check_batch_size(tasks: Sequence[Sequence[int]], batch_size: int) -> None:
    """Raises UserError if the batch is larger than all the data."""
    rows = sum(len(task) for task in tasks)
    if not 1 <= batch_size <= rows:
        raise UserError(f"train.batch_size={batch_size}; expected between 1 and the {rows} "
                        "training examples there are")


def timetable(tasks: Sequence[Sized], config: TrainConfig) -> np.ndarray:
    """int32 [2, T]: the first step of each task, and the steps in an epoch of it."""
    lengths = np.array([steps_per_epoch(task, config.batch_size) for task in tasks], np.int32)
    return np.stack([config.epochs * (np.cumsum(lengths) - lengths), lengths]).astype(np.int32)


def make_epoch(tasks: Sequence[Sized], config: TrainConfig) -> Callable[[chex.Array], Epoch]:
    """epoch(step): the place of a step within its task."""
    return epoch_by(timetable(tasks, config), config.epochs)


def epoch_by(times: chex.Array, epochs: int) -> Callable[[chex.Array], Epoch]:
    """The same by a `timetable`, which may be traced, and the epochs of each task."""
    def epoch(step):
        starts, lengths = map(jnp.asarray, times)
        # Of the methods of searchsorted, the one without a loop, which accelerators would wait for.
        task = jnp.searchsorted(starts, step, side="right", method="compare_all") - 1
        return Epoch(*jnp.divmod(step - starts[task], lengths[task]), lengths[task], epochs)

    return epoch


def total_steps(tasks: Sequence[Sequence[int]], config: TrainConfig) -> int:
    """Steps of the whole run."""
    return sum(config.epochs * steps_per_epoch(task, config.batch_size) for task in tasks)


def visits(tasks: Sequence[np.ndarray], batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All rows of a task in order, by batches.

    Args:
      tasks: the rows of the task of each of S runs that one program trains.
      batch_size: B.

    Yields:
      Rows int32, and bool for the rows that count; both are [1, B] for one run and [1, S, B] for
      several. Rows that pad the last batches do not count.
    """
    length = -(-max(map(len, tasks)) // batch_size) * batch_size
    index, counts = np.zeros((len(tasks), length), np.int32), np.zeros((len(tasks), length), bool)
    for i, rows in enumerate(tasks):
        index[i, :len(rows)], counts[i, :len(rows)] = rows, True
    for start in range(0, length, batch_size):
        part = [x[None, :, start:start + batch_size] for x in (index, counts)]
        yield tuple(x[:, 0] if len(tasks) == 1 else x for x in part)


def join(chunks: Sequence[Chunk]) -> Chunk:
    """The same chunk of S runs in one, with index [K, S, B]: the runs differ in their rows."""
    return chunks[0]._replace(index=np.stack([chunk.index for chunk in chunks], axis=1))


class Chunks(Sequence):
    """The chunks of a run by number, each drawn on access.

    Each epoch of a task goes through the task's rows in a new order and drops the last, incomplete
    batch; a task with fewer rows than a batch repeats some. Chunks start at the start of an epoch, so
    a resumed run makes the same calls.
    """

    def __init__(self, tasks: Sequence[np.ndarray], config: TrainConfig, steps_per_call: int,
                 start: int = 0):
        """
        Args:
          tasks: rows of the training split, by task.
          config: seed, epochs, batch size.
          steps_per_call: longest chunk.
          start: steps done already. A run resumed with another `steps_per_call` may start within a chunk.
        """
        self.args = tasks, config, steps_per_call, start
        self.steps = np.array([steps_per_epoch(task, config.batch_size) for task in tasks])
        self.chunks = -(-self.steps // steps_per_call)                  # in an epoch of each task
        self.first = 0                                                  # chunk not done yet
        if start < config.epochs * self.steps.sum():
            task, epoch, step = self._locate(self.steps, start)
            self.first = self._before(self.chunks, task, epoch) + step // steps_per_call
        else:
            self.first = config.epochs * self.chunks.sum()
        self.order = functools.lru_cache(1)(self._order)

    def __len__(self) -> int:
        return int(self.args[1].epochs * self.chunks.sum() - self.first)

    def __getitem__(self, number: int) -> Chunk:
        if not 0 <= number < len(self):
            raise IndexError(f"chunk {number} of {len(self)}")
        _, config, steps_per_call, start = self.args
        task, epoch, place = self._locate(self.chunks, self.first + number)
        begin = self._before(self.steps, task, epoch)
        last = min((place + 1) * steps_per_call, self.steps[task])
        first = max(place * steps_per_call, start - begin)
        ends_epoch = bool(last == self.steps[task])
        return Chunk(self.order(task, epoch)[first:last], task, epoch, int(begin + last),
                     ends_epoch, ends_epoch and epoch == config.epochs - 1)

    def __reduce__(self):
        return Chunks, self.args

    def _locate(self, per_epoch: np.ndarray, number: int) -> tuple[int, int, int]:
        """Task, epoch and place in it of the step or chunk with this number."""
        ends = self.args[1].epochs * np.cumsum(per_epoch)
        task = int(np.searchsorted(ends, number, side="right"))
        epoch, place = divmod(int(number - (ends[task - 1] if task else 0)), int(per_epoch[task]))
        return task, epoch, place

    def _before(self, per_epoch: np.ndarray, task: int, epoch: int) -> int:
        """Steps or chunks before an epoch."""
        return int(self.args[1].epochs * per_epoch[:task].sum() + epoch * per_epoch[task])

    def _order(self, task: int, epoch: int) -> np.ndarray:
        """Rows of all steps of an epoch, int32 [steps, B]."""
        tasks, config, _, _ = self.args
        order = np.random.default_rng([config.seed, task, epoch]).permutation(tasks[task])
        steps = self.steps[task]
        return np.resize(order, steps * config.batch_size).reshape(steps, -1).astype(np.int32)
