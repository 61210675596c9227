"""Predictions for whole splits, and the scores of every head."""
from collections.abc import Mapping

import numpy as np

from jaxmm.batch import Batch, batch_size
from jaxmm.evaluate import metrics

SCORES = {
    "accuracy": metrics.accuracy,
    "macro_f1": metrics.macro_f1,
    "ece": metrics.expected_calibration_error,
    "nll": metrics.negative_log_likelihood,
}


def read_rows(read, feed, rows: int, chunk: int) -> dict[str, np.ndarray]:
    """Applies a compiled reader (predict, features) to the first `rows` rows of a feed.

    Args:
      read: index [B] -> {name: [B, ...]}, called with chunks of one length.
      feed: where the rows are.
      rows: their number.
      chunk: rows in one call; the last chunk is filled up with row 0.
    """
    outputs = []
    for first in range(0, rows, chunk):
        index = np.arange(first, first + chunk, dtype=np.int32)
        index[index >= rows] = 0
        outputs.append({k: x[:rows - first] for k, x in read(feed, index).items()})
    return {k: np.concatenate([o[k] for o in outputs]) for k in outputs[0]}


def score(logits: Mapping[str, np.ndarray], split: Batch) -> dict[str, dict[str, float]]:
    """Accuracy, macro F1, ECE and NLL of each head, over the examples that have its modality."""
    scores = {}
    for head, z in logits.items():
        rows = split["present"].get(head, np.ones(batch_size(split), bool))
        if rows.any():
            scores[head] = {name: float(fn(z[rows], split["label"][rows]))
                            for name, fn in SCORES.items()}
    return scores
