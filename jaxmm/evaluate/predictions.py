"""Predictions for whole splits, and the scores of every head."""
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from jaxmm.batch import Batch
from jaxmm.task import CLASS_SCORES


def row_chunks(rows: int, size: int) -> list[np.ndarray]:
    """Positions of all rows in chunks of one length int32 [size], the last filled up with row 0."""
    index = np.zeros(-(-rows // size) * size, np.int32)
    index[:rows] = np.arange(rows)
    return list(index.reshape(-1, size))


def read_rows(read, feed, rows: int, chunks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Applies a compiled reader (predict, features) to the first `rows` rows of a feed.

    Args:
      read: index [B] -> {name: [B, ...]}.
      feed: where the rows are.
      rows: their number.
      chunks: of `row_chunks`.
    """
    outputs, start = {}, 0
    for index in chunks:
        for k, x in read(feed, index).items():
            # Written where it belongs: of many classes, a list of parts and its join take twice as much.
            outputs.setdefault(k, np.empty((rows, *x.shape[1:]), x.dtype))[start:start + len(x)] = (
                x[:rows - start])
        start += len(index)
    return outputs


def head_rows(heads: Collection[str], present: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """bool [N] by head: the examples that it is scored on.

    The head of a modality is scored on those that have it, any other one on those that have one of
    the modalities with a head: a run of part of the modalities predicts nothing of the rest.
    """
    own = [present[m] for m in present if m in heads]
    anything = np.any(own or list(present.values()), axis=0)
    return {head: present.get(head, anything) for head in heads}


def score(outputs: Mapping[str, np.ndarray], split: Batch,
          fns: Mapping[str, Callable] = CLASS_SCORES) -> dict[str, dict[str, float]]:
    """The scores of each head over its examples, see `head_rows`; `fns` are the task's."""
    scores, counted = {}, head_rows(outputs, split["present"])
    for head, z in outputs.items():
        rows = counted[head]
        if rows.any():
            z, labels = (z, split["label"]) if rows.all() else (z[rows], split["label"][rows])
            scores[head] = {name: float(fn(z, labels)) for name, fn in fns.items()}
    return scores
