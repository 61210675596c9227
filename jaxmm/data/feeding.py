"""Batches of rows, read before they are needed by threads or processes (grain)."""
import atexit
import operator
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from absl import flags

from jaxmm import extras
from jaxmm.batch import Batch, take
from jaxmm.data.rows import Rows
from jaxmm.errors import check_choice

GRAIN = "grain", "reading rows ahead of training"
grain = extras.Later(*GRAIN)    # slow to import, and few need it

MOST_THREADS = 16
STREAM_ABOVE_BYTES = 2**31      # a split larger than this is streamed by placement="auto"
READ_AT_ONCE = 64           # rows, where whole splits are read
DEVICE_SHARE = 1 / 8        # of its memory that training rows take with placement="auto"

_open = weakref.WeakSet()   # iterators that may still have threads and processes


class Batches(Sequence):
    """(item, take(split, rows_of(item))) for each item of a sequence, in any order."""

    def __init__(self, split: Batch, order: Sequence[tuple], rows_of: Callable[[tuple], np.ndarray]):
        self.split, self.order, self.rows_of = split, order, rows_of

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[tuple, Batch]:
        item = self.order[number]
        return item, take(self.split, self.rows_of(item))


class Mapped(Sequence):
    """fn of each item of a sequence, computed on access."""

    def __init__(self, fn: Callable, items: Sequence):
        self.fn, self.items = fn, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int):
        return self.fn(self.items[number])


def read_ahead(split: Batch, order: Sequence[tuple],
               rows_of: Callable[[tuple], np.ndarray] = operator.itemgetter(0),
               workers: int = 0) -> Iterator[tuple[tuple, Batch]]:
    """Each item of a sequence with its rows of the split; a few items are read in advance.

    The result does not depend on the number of threads or workers.

    Args:
      split: a whole split.
      order: the items, computed when they are due; by default an item's first part is its index.
      rows_of: item -> index of its rows.
      workers: processes that read; 0: threads of this one.
    """
    if not len(order):
        return iter(())
    if len(order) == 1 and not workers:     # nothing to be ahead of
        return iter(Batches(split, order, rows_of))
    threads = 1 if workers else min(os.cpu_count() or 1, MOST_THREADS, len(order))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    dataset = grain.MapDataset.source(Batches(split, order, rows_of)).to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():     # in notebooks; grain sends the flags to its workers
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(
            num_workers=min(workers, len(order)), per_worker_buffer_size=2))
    iterator = iter(dataset)
    _open.add(iterator)
    return iterator


@atexit.register
def _close_all() -> None:
    """Ends the threads and processes of iterators that were not exhausted, as in a stopped run."""
    for iterator in list(_open):
        iterator.close()


def check_streaming() -> None:
    """Raises UserError if the package that reads ahead is not installed."""
    extras.need(*GRAIN)


def is_streamed(split: Batch, placement: str) -> bool:
    """Whether the rows of a split stay on the host: placement "host", or "auto" above 2 GiB.

    Raises:
      UserError: there is no such placement.
    """
    check_choice("data.placement", placement, ("auto", "device", "host"))
    return placement == "host" or (placement == "auto" and size_of(split) > STREAM_ABOVE_BYTES)


def place_training(split: Batch, placement: str) -> str:
    """The placement of rows that every epoch comes back to.

    "auto" is "device" where a small part of its memory holds them, as on large GPUs. What is read of a data
    set beforehand, and its statistics, depend on `is_streamed` alone and not on the device.
    """
    fits = size_of(split) <= DEVICE_SHARE * device_memory()
    return "device" if placement == "auto" and fits else placement


def device_memory() -> int:
    """Bytes of memory of a device; 0 if it does not report them, as a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)


def size_of(split: Batch) -> int:
    """Bytes of a split."""
    return sum(x.nbytes for x in jax.tree.leaves(split))


def count_pixels(maps: Any, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(pixels of each class, pixels of the pictures that hold it), int64 [C] each, of the `rows` int [N] of class maps.

    Maps [N, H, W] hold class numbers below `size`, or less than 0 for void. Shows a bar if it takes long.
    """
    pixels, area = np.zeros((2, size), np.int64)
    parts = np.array_split(rows, -(-len(rows) // READ_AT_ONCE))
    found = read_ahead({"maps": maps}, list(zip(parts)))
    for _, part in tqdm.tqdm(found, "counting pixels", len(parts), delay=2, unit="batch"):
        for classes in part["maps"]:
            counts = np.bincount(classes[classes >= 0], minlength=size)
            pixels += counts
            area += np.where(counts > 0, classes.size, 0)
    return pixels, area


def read_all(split: Batch) -> Batch:
    """The split with all its rows in memory."""
    lazy = {m: x for m, x in split["inputs"].items() if isinstance(x, Rows)}
    if not lazy:
        return split
    arrays = {m: np.empty(x.shape, x.dtype) for m, x in lazy.items()}
    parts = np.array_split(np.arange(len(split["label"])), -(-len(split["label"]) // READ_AT_ONCE))
    for (index,), part in read_ahead({"inputs": lazy}, list(zip(parts))):
        for m, x in part["inputs"].items():
            arrays[m][index] = x
    return split | {"inputs": split["inputs"] | arrays}
