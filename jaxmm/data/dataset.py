"""A data set: every split one batch, checked before anything is trained on it."""
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmm.batch import Batch, batch_size
from jaxmm.config import DataConfig
from jaxmm.data.rows import Rows, select
from jaxmm.errors import UserError

SPLITS = ("train", "val", "test")
SAMPLED_ROWS = 512          # for the statistics of rows that are read on demand
RESERVED = ("head", "fused", "dynamic", "label")    # taken by heads and parameter groups


class Dataset(NamedTuple):
    """Splits of a classification problem with M modalities."""
    name: str
    splits: dict[str, Batch]          # "train", "val", "test": whole splits, their inputs NumPy
                                      # arrays or `Rows`
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
            if x.dtype.kind in "bui" or isinstance(x, Rows):    # which are finite when prepared
                continue
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


def split_train(where: str, train: Batch, config: DataConfig) -> dict[str, Batch]:
    """Train without, and validation data of, the share `val_fraction` of rows drawn by the seed."""
    if not 0 < config.val_fraction < 1:
        raise UserError(f"data.val_fraction is {config.val_fraction}; expected a share in (0, 1)")
    rows = np.random.default_rng(config.seed).permutation(batch_size(train))
    cut = len(rows) - round(config.val_fraction * len(rows))
    if not 0 < cut < len(rows):
        raise UserError(f"{where}: {len(rows)} rows of train leave {len(rows) - cut} for "
                        f"validation at data.val_fraction={config.val_fraction}; expected at least one each")
    parts = {"train": select(train, np.sort(rows[:cut])), "val": select(train, np.sort(rows[cut:]))}
    return {split: part | {"id": np.arange(batch_size(part), dtype=np.int32)}
            for split, part in parts.items()}


def fingerprint(dataset: Dataset, tasks: Sequence = ()) -> dict[str, str]:
    """A checksum of each split, to tell whether a run goes on with the data it began with.

    It covers inputs, labels, ids and masks with their names, types and shapes, and the names of the
    classes; of rows that are read on demand, what decides what they hold.

    Args:
      dataset: as it is learned.
      tasks: of a stream: their rows belong to the splits.
    """
    shared = repr((dataset.class_names, sorted(dataset.num_tokens.items()))).encode()
    prints = {}
    for split, batch in dataset.splits.items():
        checksum = zlib.crc32(shared)
        parts = batch, [task.indices[split] for task in tasks]
        for path, x in jax.tree_util.tree_leaves_with_path(parts):
            kind = "array"
            if isinstance(x, Rows):
                kind, x = f"rows {x.checksum}", x.index
            header = f"{jax.tree_util.keystr(path)} {kind} {x.dtype} {x.shape}"
            checksum = zlib.crc32(np.ascontiguousarray(x), zlib.crc32(header.encode(), checksum))
        prints[split] = f"{checksum:08x}"
    return prints


def old_fingerprint(dataset: Dataset) -> int:
    """The checksum of the training split that older versions left in run folders."""
    checksum = 0
    for x in jax.tree.leaves(dataset.splits["train"]):
        x = np.array([x.checksum]) if isinstance(x, Rows) else np.ascontiguousarray(x)
        checksum = zlib.crc32(x, checksum)
    return checksum


def statistics(train: Batch, process: Callable[[str, np.ndarray], Any] = lambda m, x: x,
               ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of each modality over the rows that have it.

    One number per feature of a vector, per channel of [H, W, C] and [T, H, W, C], and one for all
    of [H, W]; float32, standard deviations below 1e-6 replaced by 1. Of rows that are read on
    demand, at most SAMPLED_ROWS are looked at, at equal steps.

    Args:
      train: a whole split.
      process: (modality, rows [n, ...]) -> what to take the statistics of, [n, ...].
    """
    result = {}
    for m, x in train["inputs"].items():
        rows, at_once = np.flatnonzero(train["present"][m]), 256
        if isinstance(x, Rows):
            rows, at_once = rows[::-(-len(rows) // SAMPLED_ROWS) or 1], 16
        # By chunks: a float64 copy of all rows may not fit.
        sums, count = [], 0
        for i in range(0, len(rows), at_once):
            part = np.asarray(process(m, x[rows[i:i + at_once]]), np.float64)
            axes = {2: (0,), 3: (0, 1, 2)}.get(part.ndim, tuple(range(part.ndim - 1)))
            sums.append((part.sum(axes), np.square(part).sum(axes)))
            count += np.prod([part.shape[a] for a in axes])
        mean, square = (sum(s[i] for s in sums) / max(count, 1) for i in (0, 1))
        mean, square = np.asarray(mean), np.asarray(square)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        result[m] = mean.astype(np.float32), np.where(std < 1e-6, 1, std).astype(np.float32)
    return result
