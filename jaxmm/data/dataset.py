"""A data set: each split is one batch, checked before anything is trained on it."""
import collections
import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from jaxmm.batch import Batch, batch_size, check_rows
from jaxmm.config import DataConfig, TaskConfig
from jaxmm.data.rows import Rows, select
from jaxmm.errors import UserError
from jaxmm.task import DENSE, check_labels, check_maps, kind_of, make_task

SPLITS = ("train", "val", "test")
SAMPLED_ROWS = 512          # for the statistics of rows that are read on demand
RESERVED = ("head", "fused", "dynamic", "nme", "experts", "label", "exchange",     # taken by heads and groups
            "projection", "decoder", "predictor")


class Dataset(NamedTuple):
    """Splits of one problem with M modalities; the type of the labels says what is predicted."""
    name: str
    splits: dict[str, Batch]          # "train", "val", "test": whole splits, their inputs NumPy
                                      # arrays or `Rows`
    class_names: tuple[str, ...]      # by class number, or by column of labels [N, K]
    num_tokens: Mapping[str, int] = {}  # of modalities that are texts: token ids are below it
    vocabularies: Mapping[str, tuple[str, ...]] = {}    # of these, where they are known: tokens by id, or
                                      # the JSON of another tokenizer than WordPiece alone
    files: Mapping[str, Any] = {}     # of a table of files: "columns", their kinds by modality, and the
                                      # "options" that they were decoded with
    groups: Mapping[str, np.ndarray] = {}   # by split: whole numbers or text [N], such as the speaker of each
                                      # row, where every split of a file says so
    target: str = ""                  # of a segmentation: the input that is predicted, int [N, H, W], which has
                                      # no mask in "present"; labels are 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in alphabetical order, whatever the order in a file."""
        return tuple(sorted(set(self.splits["train"]["inputs"]) - {self.target}))

    @property
    def num_classes(self) -> int:
        """Number of classes, or of columns of the labels."""
        return len(self.class_names)


class Form(NamedTuple):
    """The form of the examples of one modality in the training split."""
    shape: tuple[int, ...]      # of an example
    dtype: np.dtype
    most: float                 # largest magnitude in at most SAMPLED_ROWS rows; NaN if not looked at
    whole: bool                 # whether these are whole numbers


def forms_of(split: Batch) -> dict[str, Form]:
    """The form of every input of a whole split; rows that are read on demand are not read for it."""
    forms = {}
    for m, x in split["inputs"].items():
        present = split["present"].get(m, np.ones(len(x), bool))        # a target has no mask
        most, whole = (math.nan, False) if isinstance(x, Rows) else reach(x, present)
        forms[m] = Form(tuple(x.shape[1:]), np.dtype(x.dtype), most, whole)
    return forms


def with_target(split: Batch, target: str) -> Batch:
    """The split with the input `target` as what is predicted; without a name as it is."""
    return split | {"present": {m: mask for m, mask in split["present"].items() if m != target}}


def check_dataset(dataset: Dataset) -> Dataset:
    """The data set itself, if it can be trained on; warns of what is doubtful in it.

    Raises:
      UserError: no training split, or an empty split; modalities, row shapes, or kinds of numbers or
        labels that differ between splits; different numbers of rows within a split; labels that are
        not classes; values that are not finite; or an example without any modality.
    """
    if "train" not in dataset.splits:
        raise UserError(f"{dataset.name} has no train split; found {sorted(dataset.splits)}")
    names, train = dataset.class_names, dataset.splits["train"]
    if dataset.target and not dataset.modalities:
        raise UserError(f"{dataset.name}: {dataset.target} is the only input, and what is predicted; add the modalities "
                        "to predict it from")
    check_split(f"{dataset.name}: train", train, target=dataset.target)
    forms = forms_of(train)
    for m in map(str, train["inputs"]):
        # They are parts of the names of folders, arrays and options.
        if m in RESERVED or not m.strip() or not m.isprintable() or "/" in m:
            raise UserError(f"{dataset.name}: a modality may not be called {m!r}; rename it")
    twice = next((name for name, n in collections.Counter(names).items() if n > 1), None)
    if twice is not None or "" in names:
        raise UserError(f"{dataset.name}: class_names holds {twice or ''!r} "
                        f"{'as a name' if twice is None else 'twice'}; give every class a name of "
                        "its own")
    task = make_task(TaskConfig(), names, train["label"], f"{dataset.name}: train", dataset.target)
    for split, batch in dataset.splits.items():
        where = f"{dataset.name}: {split}"
        if batch is not train:
            check_split(where, batch, forms, target=dataset.target)
            check_labels(where, task, batch["label"])
        if dataset.target and not isinstance(batch["inputs"][dataset.target], Rows):     # checked when prepared
            check_maps(f"{where}/{dataset.target}", batch["inputs"][dataset.target], task.size)
        for m, x in batch["inputs"].items():
            check_kind(f"{where}/{m}", x.dtype, f"train/{m}", forms[m].dtype)
    for m, x in train["inputs"].items():
        _say_axes(f"{dataset.name}: train/{m}", x.shape)
        if m != dataset.target and not train["present"][m].any():
            say(f"{dataset.name}: no row of train has {m}; nothing can be learnt from it")
    if dataset.target:
        _check_sizes(dataset.name, forms, dataset.target)
    {"classification": _say_classes, "multilabel": _say_labels, "regression": _say_numbers,
     DENSE: _say_maps}[task.name](dataset)
    return dataset


def _check_sizes(name: str, forms: Mapping[str, Form], target: str) -> None:
    """Raises UserError unless all inputs are images or maps with as many pixels as the class maps."""
    size = forms[target].shape
    for m, form in forms.items():
        if len(form.shape) not in (2, 3) or form.shape[:2] != size:
            raise UserError(f"{name}: train/{m} has rows of shape {form.shape}, the class maps {target} of {size}; a "
                            f"{DENSE} needs images [{size[0]}, {size[1]}, channels] or maps [{size[0]}, {size[1]}]")


_KINDS = {"b": "bools", "u": "integers", "i": "integers", "f": "floats"}


def check_kind(where: str, dtype: np.dtype, like: str, expected: np.dtype) -> None:
    """Raises UserError unless both types are of bools, of integers, or of floats."""
    kinds = _KINDS[dtype.kind], _KINDS[expected.kind]
    if kinds[0] != kinds[1]:
        raise UserError(f"{where} holds {kinds[0]} ({dtype}), {like} {kinds[1]} ({expected}); give every "
                        "split the same type, and the same scale")


def check_split(where: str, batch: Batch, like: Mapping[str, Form] | None = None,
                first: int = 0, target: str = "") -> None:
    """Raises UserError unless the batch has modalities in the form and scale of the training split.

    Args:
      where: what the batch is called in messages.
      batch: a whole split.
      like: the forms of the training split, by modality; None for that split itself.
      first: number of its first row, for messages.
      target: of a segmentation, see `Dataset`.
    """
    try:
        inputs, present, label = batch["inputs"], batch["present"], batch["label"]
        masks, _ = {x.dtype for x in present.values()}, {x.dtype for x in inputs.values()}
        forms = (batch["id"].dtype.kind, batch["id"].ndim), (label.dtype.kind, label.ndim)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{where} is not a batch ({type(error).__name__}: {error}); make it by "
                        "jaxmm.batch.make_batch") from error
    expected = set(inputs if like is None else like)
    if set(inputs) != expected or set(present) != {m for m in expected if m != target or not target}:
        other = present if set(inputs) == expected else inputs
        raise UserError(f"{where} has the modalities {sorted(other)}, train has "
                        f"{sorted(expected)}; give every split the same ones")
    classes = ("i", 1), ("u", 1)
    if forms[0] not in classes or forms[1] not in (*classes, ("b", 2), ("f", 2)) or masks != {np.dtype(bool)}:
        raise UserError(f"{where} has labels of {label.dtype} {list(label.shape)}, ids of "
                        f"{batch['id'].dtype} and masks of {', '.join(sorted(map(str, masks)))}; make the "
                        "batch by jaxmm.batch.make_batch")
    check_rows(where, batch)
    for m, x in inputs.items():
        if x.dtype.kind not in _KINDS or len(x.shape) < 2 or not math.prod(x.shape):
            raise UserError(f"{where}/{m} is {x.dtype} of shape {x.shape}; expected numbers with at "
                            "least two axes [rows, ...]")
        if like and x.shape[1:] != like[m].shape:
            raise UserError(f"{where}/{m} has rows of shape {x.shape[1:]}, train/{m} "
                            f"{like[m].shape}; every split needs the same shape")
        if isinstance(x, Rows) or m == target:      # finite and of one scale when prepared; see `check_maps`
            continue
        if x.dtype.kind == "f":
            finite = np.isfinite(x).reshape(len(x), -1).all(axis=1) | ~present[m]
            if not finite.all():
                raise UserError(f"{where}/{m} has values that are not finite (NaN or infinite) in "
                                f"{np.sum(~finite)} rows, the first row {first + np.argmin(finite)}; "
                                "repair or remove these rows")
        if like:
            found = reach(x, present[m])
            check_scale(f"{where}/{m}", found, f"train/{m}", like[m])
            say_scale(f"{where}/{m}", found, f"train/{m}", like[m])
    nothing = ~np.any(list(present.values()), axis=0)
    if nothing.any():
        raise UserError(f"{where} has {nothing.sum()} rows without any modality, the first row "
                        f"{first + np.argmax(nothing)}; every example needs at least one")


def reach(x: np.ndarray, present: np.ndarray) -> tuple[float, bool]:
    """The largest magnitude in at most SAMPLED_ROWS rows, and whether all values are whole numbers."""
    rows = np.flatnonzero(present)
    x = np.asarray(x[rows[::-(-len(rows) // SAMPLED_ROWS) or 1]])
    whole = x.dtype.kind != "f" or bool((x == np.round(x)).all())
    return (max(abs(float(x.min())), abs(float(x.max()))) if x.size else 0.0), whole


def check_scale(name: str, found: tuple[float, bool], train: str, form: Form) -> None:
    """Raises UserError if one has bytes and the other fractions.

    `found` is the result of `reach`. Rows that are read on demand have NaN, which passes.
    """
    expected = form.most, form.whole
    for (fractions, whole), (most, other_whole) in ((found, expected), (expected, found)):
        if fractions <= 1 and not whole and other_whole and 50 < most <= 255:
            raise UserError(f"{name} reaches {found[0]:g}, {train} {expected[0]:g}: one holds "
                            "fractions, the other bytes; give every split the same scale")


def say_scale(name: str, found: tuple[float, bool], train: str, form: Form) -> None:
    """Warns if one reaches much further than the other; see `check_scale`."""
    if found[0] > 50 * form.most > 0 or form.most > 50 * found[0] > 0:
        say(f"{name} reaches {found[0]:g}, {train} {form.most:g}; if only one of them is scaled, "
            "results mean nothing")


def _say_axes(name: str, shape: tuple[int, ...]) -> None:
    """Warns of images whose channels seem to come first, and says how they are read."""
    form = {4: "[rows, height, width, channels]", 5: "[rows, frames, height, width, channels]"}
    if len(shape) in form and min(shape[1:-2]) <= 4 < min(shape[-2:]):
        say(f"{name} has the shape {list(shape)}, read as {form[len(shape)]}: images of {shape[-1]} "
            "channels; if they come first, move that axis to the end (numpy.moveaxis)")


def _say_classes(dataset: Dataset) -> None:
    """Warns of classes without a training example, and of class names that are nearly alike."""
    counts = {split: np.bincount(batch["label"], minlength=dataset.num_classes)
              for split, batch in dataset.splits.items()}
    lacking = np.flatnonzero(counts["train"] == 0)
    if len(lacking):
        tested = [f"{n} rows of {split}" for split, count in counts.items()
                  if (n := count[lacking].sum())]
        never = f"; {' and '.join(tested)} are of such classes and cannot be learnt" if tested else ""
        say(f"{dataset.name}: {len(lacking)} of {dataset.num_classes} classes have no training "
            f"example: {listed([dataset.class_names[c] for c in lacking])}{never}")
    elif dataset.num_classes == 1:
        say(f"{dataset.name} has one class, {dataset.class_names[0]!r}: nothing to tell apart")
    alike = {}
    for name in dataset.class_names:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    for group in alike.values():
        if len(group) > 1:
            say(f"{dataset.name}: {listed(list(map(repr, group)))} are classes of their own; if they "
                "mean the same, spell them alike")


def _say_maps(dataset: Dataset) -> None:
    """Warns of classes without a training pixel, where maps are in memory."""
    maps = dataset.splits["train"]["inputs"][dataset.target]
    if isinstance(maps, Rows):
        return
    lacking = np.setdiff1d(np.arange(dataset.num_classes), np.unique(maps))
    if len(lacking):
        say(f"{dataset.name}: {len(lacking)} of {dataset.num_classes} classes have no training pixel: "
            f"{listed([dataset.class_names[c] for c in lacking])}")


def _say_labels(dataset: Dataset) -> None:
    """Warns of labels that hold for every training example, or for none."""
    share = dataset.splits["train"]["label"].mean(0)
    for found, what in ((share == 0, "for none"), (share == 1, "for every one")):
        if found.any():
            say(f"{dataset.name}: {found.sum()} of {len(found)} labels hold {what} of the training examples: "
                f"{listed([dataset.class_names[k] for k in np.flatnonzero(found)])}; nothing can be learnt "
                "of them")


def _say_numbers(dataset: Dataset) -> None:
    """Warns of numbers to predict that may be classes, are constant, or are badly scaled."""
    label = dataset.splits["train"]["label"].astype(np.float64)
    where = f"{dataset.name}: train/label"
    if (label == np.round(label)).all():
        say(f"{where} holds whole numbers as floats, taken as numbers to predict; if they are classes, make "
            "them integers (argmax(1) of one-hot rows), if they are labels that hold or not, bools")
    mean, std = label.mean(0), label.std(0)
    for found, what in ((std == 0, "constant, and tell nothing"),
                        ((std > 0) & ((std < 0.01) | (np.maximum(std, np.abs(mean)) > 100)),
                         "far from 0 or from a deviation of 1; losses and learning rates follow their "
                         "scale: subtract the mean and divide")):
        if found.any():
            say(f"{where}: {found.sum()} of {len(found)} numbers to predict are {what} "
                f"({listed([dataset.class_names[k] for k in np.flatnonzero(found)])})")


@functools.cache
def say(message: str) -> None:
    """Prints a warning, each message once in a process."""
    logging.warning("%s", message)


def listed(items: Sequence) -> str:
    """The first few of the items, and how many more there are."""
    shown = ", ".join(str(item) for item in items[:5])
    return shown if len(items) <= 5 else f"{shown} and {len(items) - 5} more"


def by_number(name: str) -> tuple[bool, float, str]:
    """Sorts names: numbers as numbers ("2" before "10"), then text."""
    try:
        number = float(name)
    except ValueError:
        number = math.nan
    return (False, number, name) if math.isfinite(number) else (True, 0.0, name)


def split_train(where: str, train: Batch, config: DataConfig) -> dict[str, Batch]:
    """Divides the rows of train into train and val; val gets the share `val_fraction`, drawn by the seed.

    Every class has its share in both, and a class of two rows or more at least one row in each. For
    multilabel data this holds for every combination of labels; combinations that occur once count as
    one group. For numbers to predict any rows are drawn.
    """
    if not 0 < config.val_fraction < 1:
        raise UserError(f"data.val_fraction is {config.val_fraction}; expected a share in (0, 1)")
    label = train["label"]
    rows, total = len(label), round(config.val_fraction * len(label))
    if not 0 < total < rows:
        raise UserError(f"{where}: {rows} rows of train leave {total} for validation at "
                        f"data.val_fraction={config.val_fraction}; expected at least one each")
    label, counts = strata(label)
    drawn = shares(counts, config.val_fraction, total)
    order = np.random.default_rng(config.seed).permutation(rows)
    order = order[np.argsort(label[order], kind="stable")]      # by class, at random within each
    place = np.arange(rows) - np.repeat(np.cumsum(counts) - counts, counts)
    held = np.zeros(rows, bool)
    held[order] = place < np.repeat(drawn, counts)
    if held.all() or not held.any():
        raise UserError(f"{where}: no class of train has two rows, to share with validation; add a "
                        "val split to the data")
    parts = {"train": select(train, np.flatnonzero(~held)), "val": select(train, np.flatnonzero(held))}
    return {split: part | {"id": np.arange(batch_size(part), dtype=np.int32)}
            for split, part in parts.items()}


def strata(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The group [N] of each row, for a stratified split, and the size of each group."""
    if kind_of(label) == "regression":
        return np.zeros(len(label), int), np.array([len(label)])
    _, group, counts = np.unique(label, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    if label.ndim == 2:
        _, group, counts = np.unique(np.where(counts[group] == 1, -1, group), return_inverse=True,
                                     return_counts=True)
    return group, counts


def shares(counts: np.ndarray, fraction: float, total: int) -> np.ndarray:
    """How many rows of each class are held out: a fraction of each, about `total` in all.

    A class of two rows or more gives at least one and keeps at least one. The remaining rows come from
    the classes that are furthest below their share.
    """
    least, most = (counts > 1).astype(int), np.maximum(counts - 1, 0)
    drawn = np.clip(np.floor(fraction * counts).astype(int), least, most)
    missing = np.where(drawn < most, fraction * counts - drawn, -1)
    more = np.argsort(-missing, kind="stable")[:max(total - drawn.sum(), 0)]
    drawn[more[missing[more] > 0]] += 1
    return drawn


def fingerprint(dataset: Dataset, tasks: Sequence = (), masks: bool = True) -> dict[str, str]:
    """A checksum of each split, to check that a run resumes with the data it was started on.

    It covers inputs, labels, ids and masks with their names, types and shapes, and the names of the
    classes; for rows that are read on demand, everything that determines their content.

    Args:
      dataset: as it is learned.
      tasks: of a stream: their rows belong to the splits.
      masks: whether what is present counts.
    """
    shared = repr((dataset.class_names, sorted(dataset.num_tokens.items()))).encode()
    prints = {}
    for split, batch in dataset.splits.items():
        checksum = zlib.crc32(shared)
        parts = ({part: x for part, x in batch.items() if masks or part != "present"},
                 [task.indices[split] for task in tasks])
        for path, x in jax.tree_util.tree_leaves_with_path(parts):
            kind = "array"
            if isinstance(x, Rows):
                kind, x = f"rows {x.checksum}", x.index
            header = f"{jax.tree_util.keystr(path)} {kind} {x.dtype} {x.shape}"
            checksum = zlib.crc32(np.ascontiguousarray(x), zlib.crc32(header.encode(), checksum))
        prints[split] = f"{checksum:08x}"
    return prints


def old_fingerprint(dataset: Dataset) -> int:
    """The checksum of the training split that older versions wrote to run folders."""
    checksum = 0
    for x in jax.tree.leaves(dataset.splits["train"]):
        x = np.array([x.checksum]) if isinstance(x, Rows) else np.ascontiguousarray(x)
        checksum = zlib.crc32(x, checksum)
    return checksum


def statistics(train: Batch, process: Callable[[str, np.ndarray], Any] = lambda m, x: x, *,
               constant_deviation: float = 1.0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of each modality over the rows that have it.

    There is one number per feature of a vector, per channel of [H, W, C] and [T, H, W, C], and a single
    one for [H, W]. They are float64, or long double for 64-bit integers, which float64 cannot hold. The
    deviation of a feature that is constant up to rounding is replaced, with a warning. Of rows that are
    read on demand at most SAMPLED_ROWS, evenly spaced, are used.

    Args:
      train: a whole split.
      process: (modality, rows [n, ...]) -> the values [n, ...] to take the statistics of.
      constant_deviation: replaces the deviation of constant features; with 1 one can divide by it.
    """
    result = {}
    for m, present in train["present"].items():
        x = train["inputs"][m]
        mean, std, dtype = _moments(x, present, functools.partial(process, m))
        if not np.isfinite(std).all():
            raise UserError(f"train/{m} holds numbers that are too large or too close together to be "
                            "squared in float64 (beyond 1e150, or 1e-150 apart); scale them")
        constant = is_constant(mean, std, dtype)
        if constant.any():
            say(f"train/{m}: {constant.sum()} of {constant.size} "
                f"{'channels' if train['inputs'][m].ndim > 2 else 'features'} are constant "
                f"({listed(np.flatnonzero(constant))}), and tell nothing")
        result[m] = mean, np.where(constant, constant_deviation, std)
    return result


def deviations(train: Batch) -> dict[str, np.ndarray]:
    """The standard deviation of each modality, see `statistics`; 0 where it is constant."""
    return {m: std for m, (_, std) in statistics(train, constant_deviation=0).items()}


def is_constant(mean: np.ndarray, std: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """True where numbers of this type vary by no more than their rounding."""
    rounding = np.finfo(np.promote_types(dtype, np.float32)).eps if dtype.kind == "f" else 0
    return std <= rounding * np.abs(mean)


def _moments(x, present: np.ndarray, process: Callable[[np.ndarray], Any]):
    """Mean, standard deviation (NaN where its square does not fit) and the type of the numbers."""
    rows, at_once = np.flatnonzero(present), 256
    if isinstance(x, Rows):
        rows, at_once = rows[::-(-len(rows) // SAMPLED_ROWS) or 1], 16
    if not len(rows):
        return np.float64(0), np.float64(1), x.dtype
    pivot, total, square, varies, count = None, 0, 0, False, 0
    # By chunks: a float64 copy of all rows may not fit. As differences from the first row, which
    # keep their digits where numbers are large and close together.
    for i in range(0, len(rows), at_once):
        part = process(x[rows[i:i + at_once]])
        dtype = np.dtype(part.dtype)
        exact = dtype == np.float64 or dtype.itemsize <= 4
        part = np.asarray(part).astype(np.float64 if exact else np.longdouble)
        axes = {2: (0,), 3: (0, 1, 2)}.get(part.ndim, tuple(range(part.ndim - 1)))
        pivot = part[(0,) * len(axes)].copy() if pivot is None else pivot
        part -= pivot
        with np.errstate(over="ignore"):
            total, square = total + part.sum(axes), square + np.square(part).sum(axes)
        varies = varies | (part != 0).any(axes)
        count += math.prod(part.shape[a] for a in axes)
    with np.errstate(over="ignore", invalid="ignore"):
        std = np.sqrt(np.maximum(square / count - np.square(total / count), 0))
    std = np.where(np.isfinite(std) & ((std > 0) | ~varies), std, np.nan)
    return np.asarray(pivot + total / count), std, dtype
