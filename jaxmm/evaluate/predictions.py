"""Predictions for whole splits, and the scores of every head."""
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmm.batch import Batch, batch_size
from jaxmm.evaluate import metrics

SCORES = {
    "accuracy": metrics.accuracy,
    "macro_f1": metrics.macro_f1,
    "ece": metrics.expected_calibration_error,
    "nll": metrics.negative_log_likelihood,
}


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


def score(logits: Mapping[str, np.ndarray], split: Batch) -> dict[str, dict[str, float]]:
    """Accuracy, macro F1, ECE and NLL of each head, over the examples that have its modality."""
    scores = {}
    for head, z in logits.items():
        rows = split["present"].get(head, np.ones(batch_size(split), bool))
        if rows.any():
            z, labels = (z, split["label"]) if rows.all() else (z[rows], split["label"][rows])
            scores[head] = {name: float(fn(z, labels)) for name, fn in SCORES.items()}
    return scores
