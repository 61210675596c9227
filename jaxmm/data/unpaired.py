"""Unpaired data: modalities with rows and labels of their own, as rows in which only one is present.

In an `.npz` file they are `{split}/{modality}` and `{split}/{modality}/label`. Rows are stacked modality
after modality, in alphabetical order.
"""
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmm.batch import Batch, batch_size
from jaxmm.config import DataConfig
from jaxmm.data.dataset import split_train
from jaxmm.data.rows import select
from jaxmm.errors import UserError

OWN = "/label"


def stack(where: str, parts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arrays of a split as stacked rows, if its modalities have labels of their own.

    Args:
      where: what the split is called in messages.
      parts: "inputs" by modality, among them "MODALITY/label" if they are unpaired; "present" by
        modality; and "label" if they are paired.

    Raises:
      UserError: a modality without labels, labels without a modality or of another kind than those of
        the others, numbers of rows that differ, or a label for all rows, or masks, beside them.
    """
    labels = {name.removesuffix(OWN): x for name, x in sorted(parts["inputs"].items())
              if name.endswith(OWN)}
    if not labels:
        return parts
    inputs = {m: x for m, x in parts["inputs"].items() if not m.endswith(OWN)}
    if "label" in parts or parts["present"]:
        other = "label" if "label" in parts else f"present/{min(parts['present'])}"
        raise UserError(f"{where}/{other} and {where}/{min(labels)}/label: give one label for the rows "
                        "of all modalities, or every modality labels of its own and no present")
    for m in sorted(inputs.keys() ^ labels.keys()):
        raise UserError(f"{where}/{m} is there without {where}/{m}/label, or that without it; where one "
                        "modality has labels of its own, every one needs them")
    first = min(labels)
    for m, label in labels.items():
        if not label.shape or label.shape[:1] != inputs[m].shape[:1]:
            raise UserError(f"{where}/{m} has the shape {inputs[m].shape}, {where}/{m}/label "
                            f"{label.shape}; every row needs one label")
        if _kind(label) != _kind(labels[first]):
            raise UserError(f"{where}/{m}/label is {label.dtype} of shape {label.shape}, "
                            f"{where}/{first}/label {labels[first].dtype} of shape "
                            f"{labels[first].shape}; give the labels of all modalities one type")
    owner = np.repeat(list(labels), [len(label) for label in labels.values()])
    return {"inputs": {m: _spread(x, owner == m) for m, x in inputs.items()},
            "present": {m: owner == m for m in inputs},
            "label": np.concatenate(list(labels.values()))}


def split_each(where: str, train: Batch, config: DataConfig) -> dict[str, Batch]:
    """`split_train` for the rows of each modality separately: each has its share of every class."""
    parts = [split_train(f"{where}: {m}", select(train, np.flatnonzero(rows)), config)
             for m, rows in train["present"].items()]
    return {split: _join([part[split] for part in parts]) for split in ("train", "val")}


def _join(batches) -> Batch:
    """The rows of batches one after the other, renumbered."""
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in ("label", "id")}
    joined |= {part: {m: np.concatenate([batch[part][m] for batch in batches]) for m in batches[0][part]}
               for part in ("inputs", "present")}
    return joined | {"id": np.arange(batch_size(joined), dtype=np.int32)}


def _kind(label: np.ndarray):
    """What labels that are stacked must agree in."""
    return "i" if label.dtype.kind in "iu" else label.dtype.kind, label.shape[1:]


def _spread(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """x [n, ...] in the n `rows` bool [N] of zeros [N, ...]."""
    result = np.zeros((len(rows), *x.shape[1:]), x.dtype)
    result[rows] = x
    return result
