"""How far a head's confidence can be trusted, before and after temperature scaling."""
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxmm.batch import Batch, Logits
from jaxmm import metrics
from jaxmm.train.scores import head_rows
from jaxmm.report.tables import markdown, sort_heads


class Quality(NamedTuple):
    """Of the probabilities that a head gives."""
    ece: float
    nll: float
    brier: float
    bins: metrics.Reliability


class Calibration(NamedTuple):
    """Of one head."""
    before: Quality
    temperature: float | None       # None for a head that has none
    after: Quality | None           # of the logits divided by it


def calibration(logits: Logits, split: Batch,
                temperature: Mapping[str, float]) -> dict[str, Calibration]:
    """By head, over its examples (see `head_rows`); heads without examples are left out.

    Args:
      logits: [N, C] by head.
      split: its labels [N] and masks.
      temperature: by head, for those that have one.
    """
    result, counted = {}, head_rows(logits, split["present"])
    for head, z in logits.items():
        rows = counted[head]
        if rows.any():
            z, labels, t = z[rows], split["label"][rows], temperature.get(head)
            result[head] = Calibration(quality(z, labels), t,
                                       None if t is None else quality(z / t, labels))
    return result


def quality(logits: np.ndarray, labels: np.ndarray) -> Quality:
    """Of the softmax of the logits [N, C]."""
    return Quality(metrics.expected_calibration_error(logits, labels),
                   metrics.negative_log_likelihood(logits, labels),
                   metrics.brier_score(logits, labels), metrics.reliability(logits, labels))


def table(calibrations: Mapping[str, Calibration], modalities: Sequence[str]) -> str:
    """ECE, NLL and Brier score of every head, "before → after" where it has a temperature."""
    rows = []
    for head in sort_heads(calibrations, modalities):
        before, t, after = calibrations[head]
        row = {"head": head, "temperature": None if t is None else f"{t:.2f}"}
        for name, column in (("ece", "ECE"), ("nll", "NLL"), ("brier", "Brier")):
            row[column] = f"{getattr(before, name):.3f}"
            if after:
                row[column] += f" → {getattr(after, name):.3f}"
        rows.append(row)
    return markdown(rows, ["head", "temperature", "ECE", "NLL", "Brier"])
