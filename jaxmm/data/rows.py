"""Rows that are read on demand, in place of an array in memory."""
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxmm.batch import Batch

ALIGNMENT = 64      # bytes: from such addresses on, JAX on CPU takes arrays over without copying them


class Rows:
    """One modality of a whole split, like an array [N, ...] that is never in memory as a whole.

    `rows[index]` with an array of positions reads those rows. The content of a row depends only on its
    position, so rows may be read in any order, by any thread and process.
    """

    def __init__(self, records: Sequence, read: Callable[[Any, int], np.ndarray],
                 shape: tuple[int, ...], dtype, checksum: int, index: np.ndarray | None = None):
        """
        Args:
          records: what rows are made from; must be picklable.
          read: (record, its position) -> row; must be picklable.
          shape: of one row.
          dtype: of its numbers.
          checksum: of everything that determines the content of the rows.
          index: positions of the rows among the records; all by default.
        """
        self.records, self.read = records, read
        self.index = np.arange(len(records)) if index is None else index
        self.shape, self.dtype = (len(self.index), *shape), np.dtype(dtype)
        self.checksum = checksum

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array that would hold all rows."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __getitem__(self, index) -> np.ndarray:
        positions = self.index[index]
        result = empty((*positions.shape, *self.shape[1:]), self.dtype)
        for place, position in np.ndenumerate(positions):
            result[place] = self.read(self.records[int(position)], int(position))
        return result

    def select(self, index) -> "Rows":
        """Some of the rows, still to be read."""
        return Rows(self.records, self.read, self.shape[1:], self.dtype, self.checksum,
                    self.index[index])

    def change(self, read: Callable[[Any, int], np.ndarray], dtype) -> "Rows":
        """Rows of the same shape with another `read` and type."""
        return Rows(self.records, read, self.shape[1:], dtype, self.checksum, self.index)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Like np.empty, at an address from which JAX on CPU takes the array over without copying it."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start:start + size].view(dtype).reshape(shape)


class Joined(Sequence):
    """Rows of several splits, one after the other; each is read as its own split reads it."""

    def __init__(self, parts: Sequence):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> np.ndarray:
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part][np.int64(index - (self.ends[part] - len(self.parts[part])))]


def read_joined(row: np.ndarray, position: int) -> np.ndarray:
    """A row of `Joined`, which has read it."""
    del position
    return row


def join(splits: Sequence[Batch]) -> Batch:
    """The rows of several splits as one, with their positions in it as ids."""
    def joined(*parts):
        if not any(isinstance(part, Rows) for part in parts):
            return np.concatenate(parts)
        checksum = zlib.crc32(repr([(part.checksum, len(part)) if isinstance(part, Rows) else
                                    zlib.crc32(np.ascontiguousarray(part)) for part in parts]).encode())
        return Rows(Joined(parts), read_joined, parts[0].shape[1:], parts[0].dtype, checksum)

    batch = jax.tree.map(joined, *splits)
    return batch | {"id": np.arange(len(batch["label"]), dtype=np.int32)}


def select(split: Batch, index) -> Batch:
    """Like `jaxmm.batch.take`, for whole splits: rows that are read on demand are not read."""
    return jax.tree.map(lambda x: x.select(index) if isinstance(x, Rows) else x[index], split)
