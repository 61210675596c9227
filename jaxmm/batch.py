"""The batch: what every data set ends as and every method starts from.

A batch is a plain dictionary::

    {"inputs":  {modality: array [B, ...]},
     "label":   int32 [B],
     "id":      int32 [B],                 # stable index of the example in its split
     "present": {modality: bool [B]}}      # all True when nothing is missing

A whole split of a data set has the same form, with B its number of rows. An unpaired batch, whose
modalities come from data sets of their own, has `label` and `id` as dictionaries by modality too;
only methods that train one modality at a time take it.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import numpy as np

Batch = dict[str, Any]
Logits = dict[str, chex.Array]      # by head: each modality, "fused", and a method's own extras
Metrics = dict[str, chex.Array]


def make_batch(inputs: Mapping[str, chex.Array], label, *, ids=None, present=None) -> Batch:
    """A batch from the arrays of its modalities, complete unless `present` says otherwise.

    Args:
      inputs: arrays [B, ...] by modality.
      label: [B] class numbers.
      ids: [B] stable indices of the examples; their positions by default.
      present: bool [B] by modality; modalities it does not name are present everywhere.
    """
    size = len(label)
    present = present or {}
    return {
        "inputs": dict(inputs),
        "label": np.asarray(label, np.int32),
        "id": np.arange(size, dtype=np.int32) if ids is None else np.asarray(ids, np.int32),
        "present": {m: np.asarray(present.get(m, np.ones(size, bool)), bool) for m in inputs},
    }


def batch_size(batch: Batch) -> int:
    """Number of rows B of a paired batch."""
    return batch["label"].shape[0]


def take(batch: Batch, index) -> Batch:
    """The rows of a batch (or of a whole split) at the positions `index`."""
    return jax.tree.map(lambda x: x[index], batch)


def for_modality(batch: Batch, modality: str):
    """Inputs [B, ...], labels [B] and present mask [B] of one modality, paired batch or not."""
    label = batch["label"]
    label = label[modality] if isinstance(label, Mapping) else label
    return batch["inputs"][modality], label, batch["present"][modality]


def check_batch(batch: Batch, modalities: Sequence[str], num_classes: int | None = None) -> None:
    """Asserts that a paired batch has the form of this module (ranks, lengths, types).

    With `num_classes` the label values are checked too, which needs concrete arrays.
    """
    chex.assert_trees_all_equal(sorted(batch["inputs"]), sorted(modalities))
    chex.assert_rank([batch["label"], batch["id"]], 1)
    chex.assert_type([batch["label"], batch["id"]], int)
    leaves = [batch["id"], *batch["inputs"].values(), *batch["present"].values()]
    chex.assert_equal_shape_prefix([batch["label"], *leaves], 1)
    chex.assert_type(list(batch["present"].values()), bool)
    if num_classes is not None and not ((0 <= batch["label"]) & (batch["label"] < num_classes)).all():
        raise ValueError(f"labels must lie in [0, {num_classes}), found {batch['label']}")
