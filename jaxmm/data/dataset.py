"""A data set in memory: every split one batch, checked before anything is trained on it."""
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxmm.batch import Batch, batch_size
from jaxmm.errors import UserError

SPLITS = ("train", "val", "test")
RESERVED = ("head", "fused", "dynamic", "label")    # taken by heads and parameter groups


class Dataset(NamedTuple):
    """Splits of a classification problem with M modalities."""
    name: str
    splits: dict[str, Batch]          # "train", "val", "test": whole splits as NumPy batches
    class_names: tuple[str, ...]      # by class number; its length is C
    num_tokens: Mapping[str, int] = {}  # of modalities that are texts: token ids are below it

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in alphabetical order, whatever the order in a file."""
        return tuple(sorted(self.splits["train"]["inputs"]))

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def check_dataset(dataset: Dataset) -> Dataset:
    """The data set itself, if it can be trained on.

    Raises:
      UserError: an empty split, modalities or row shapes that differ between splits, numbers of
        rows that differ within one, labels that are no class, values that are not finite, or an
        example without any modality.
    """
    train = dataset.splits["train"]["inputs"]
    for m in RESERVED:
        if m in train:
            raise UserError(f"{dataset.name}: a modality may not be called {m!r}; rename it")
    for split, batch in dataset.splits.items():
        where = f"{dataset.name}: {split}"
        label, inputs, present = batch["label"], batch["inputs"], batch["present"]
        check_rows(where, batch)
        if set(inputs) != set(train):
            raise UserError(f"{where} has the modalities {sorted(inputs)}, train has "
                            f"{sorted(train)}; give every split the same ones")
        if label.min() < 0 or label.max() >= dataset.num_classes:
            raise UserError(f"{where}/label has values from {label.min()} to {label.max()}; "
                            f"expected class numbers from 0 to {dataset.num_classes - 1}")
        for m, x in inputs.items():
            if x.shape[1:] != train[m].shape[1:]:
                raise UserError(f"{where}/{m} has rows of shape {x.shape[1:]}, train/{m} "
                                f"{train[m].shape[1:]}; every split needs the same shape")
            finite = np.isfinite(x).reshape(len(x), -1).all(axis=1) | ~present[m]
            if not finite.all():
                raise UserError(f"{where}/{m} has values that are not finite (NaN or infinite) in "
                                f"{np.sum(~finite)} rows, the first row {np.argmin(finite)}; "
                                "repair or remove these rows")
        nothing = ~np.any(list(present.values()), axis=0)
        if nothing.any():
            raise UserError(f"{where} has {nothing.sum()} rows without any modality, the first row "
                            f"{np.argmax(nothing)}; every example needs at least one")
    return dataset


def check_rows(where: str, batch: Batch) -> None:
    """Raises UserError unless the batch has rows, as many in every array as there are labels."""
    rows = batch_size(batch)
    if rows == 0:
        raise UserError(f"{where} has no rows; expected at least one example")
    present = {f"present/{m}": x for m, x in batch["present"].items()}
    for name, x in (batch["inputs"] | present).items():
        if len(x) != rows:
            raise UserError(f"{where}/{name} has {len(x)} rows, {where}/label has {rows}; "
                            "every modality needs one row for each label")


def fingerprint(dataset: Dataset) -> int:
    """A checksum of the training split, to tell whether a run goes on with the data it began with."""
    checksum = 0
    for x in jax.tree.leaves(dataset.splits["train"]):
        checksum = zlib.crc32(np.ascontiguousarray(x), checksum)
    return checksum


def statistics(train: Batch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of each modality over the rows that have it.

    One number per feature of a vector, per channel of [H, W, C] and [T, H, W, C], and one for all
    of [H, W]; float32, standard deviations below 1e-6 replaced by 1.
    """
    result = {}
    for m, x in train["inputs"].items():
        axes = {2: (0,), 3: (0, 1, 2)}.get(x.ndim, tuple(range(x.ndim - 1)))
        rows = np.flatnonzero(train["present"][m])
        # By chunks: a float64 copy of all rows may not fit.
        sums = [(part.sum(axes), np.square(part).sum(axes)) for part in
                (x[rows[i:i + 256]].astype(np.float64) for i in range(0, len(rows), 256))]
        count = len(rows) * np.prod([x.shape[a] for a in axes if a]) if sums else 1
        mean, square = (sum(s[i] for s in sums) / count for i in (0, 1))
        mean, square = np.asarray(mean), np.asarray(square)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        result[m] = mean.astype(np.float32), np.where(std < 1e-6, 1, std).astype(np.float32)
    return result
