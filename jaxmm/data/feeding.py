"""Batches of rows, read before they are needed by threads or processes (grain)."""
import atexit
import os
import weakref
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import flags

from jaxmm.batch import Batch, take
from jaxmm.data.rows import Rows
from jaxmm.errors import check_choice

MOST_THREADS = 16
STREAM_ABOVE_BYTES = 2**31      # a split larger than this is streamed by placement="auto"
READ_AT_ONCE = 64           # rows, where whole splits are read

_open = weakref.WeakSet()   # iterators that may still have threads and processes


class Batches(Sequence):
    """`take(split, index)` for each index of a sequence, with the index, in any order."""

    def __init__(self, split: Batch, indices: Sequence[np.ndarray]):
        self.split, self.indices = split, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> tuple[np.ndarray, Batch]:
        index = self.indices[number]
        return index, take(self.split, index)


class Mapped(Sequence):
    """fn of each item of a sequence, when it is asked for."""

    def __init__(self, fn: Callable, items: Sequence):
        self.fn, self.items = fn, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int):
        return self.fn(self.items[number])


def make_reader(split: Batch, coming: Sequence[np.ndarray] = (),
                workers: int = 0) -> Callable[[np.ndarray], Batch]:
    """read(index), which is take(split, index), prepared for the indices that are `coming`.

    What is read does not depend on threads, workers, or whether anything is read ahead.

    Args:
      split: a whole split.
      coming: the indices that `read` will be called with, in this order; once they are used up,
        or without any, rows are read when they are asked for.
      workers: processes that read ahead; 0: threads of this one.
    """
    ahead = read_ahead(split, coming, workers)

    def read(index):
        expected, batch = next(ahead, (None, None))
        if expected is None:
            return take(split, index)
        if not np.array_equal(expected, index):
            raise AssertionError("rows were asked for in another order than announced")
        return batch

    return read


def read_ahead(split: Batch, indices: Sequence[np.ndarray], workers: int = 0):
    """An iterator over `Batches`, which reads a few of them in advance, in the same order."""
    if not len(indices):
        return iter(())
    import grain        # here, as it is slow and few need it
    threads = 1 if workers else min(os.cpu_count() or 1, MOST_THREADS, len(indices))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    dataset = grain.MapDataset.source(Batches(split, indices)).to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():     # in notebooks; grain sends the flags to its workers
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(
            num_workers=min(workers, len(indices)), per_worker_buffer_size=2))
    iterator = iter(dataset)
    _open.add(iterator)
    return iterator


@atexit.register
def _close_all() -> None:
    """Ends the threads and processes of iterators that were not used up, as in a stopped run."""
    for iterator in list(_open):
        iterator.close()


def is_streamed(split: Batch, placement: str) -> bool:
    """Whether the rows of a split stay on the host: placement "host", or "auto" above 2 GiB.

    Raises:
      UserError: there is no such placement.
    """
    check_choice("data.placement", placement, ("auto", "device", "host"))
    size = sum(x.nbytes for x in jax.tree.leaves(split))
    return placement == "host" or (placement == "auto" and size > STREAM_ABOVE_BYTES)


def read_all(split: Batch) -> Batch:
    """The split with all its rows in memory."""
    lazy = {m: x for m, x in split["inputs"].items() if isinstance(x, Rows)}
    if not lazy:
        return split
    arrays = {m: np.empty(x.shape, x.dtype) for m, x in lazy.items()}
    parts = np.array_split(np.arange(len(split["label"])), -(-len(split["label"]) // READ_AT_ONCE))
    for index, part in read_ahead({"inputs": lazy}, parts):
        for m, x in part["inputs"].items():
            arrays[m][index] = x
    return split | {"inputs": split["inputs"] | arrays}
