"""Rows drawn so that classes keep their shares and groups stay whole: folds of a cross-validation.

With `data.folds=K` a data set without test data is divided K times: the rows of fold `data.fold`, from 0
to K - 1, are its test split, and all others its training split, of which validation data are taken. So
every row is tested in one of K runs.
"""
import warnings

import numpy as np

from jaxmm.batch import Batch, batch_size, is_unpaired
from jaxmm.config import DataConfig
from jaxmm.data.dataset import listed, say, split_train, strata
from jaxmm.data.rows import select
from jaxmm.errors import UserError
from jaxmm.task import kind_of

MOST = 1000


def check(config: DataConfig) -> None:
    """Raises UserError unless the config asks for no folds, or for one that there is."""
    if config.folds == 0 and config.fold == 0:
        return
    if not 2 <= config.folds <= MOST:
        raise UserError(f"data.folds={config.folds}; expected 2 to {MOST}, or 0 for no cross-validation")
    if not 0 <= config.fold < config.folds:
        raise UserError(f"data.fold={config.fold}; expected 0 to {config.folds - 1}, as "
                        f"data.folds={config.folds}")


def assign(where: str, label: np.ndarray, group: np.ndarray | None, count: int, seed: int,
           remedy: str = "lower data.folds") -> np.ndarray:
    """The fold [N] of every row, from 0 to `count` - 1.

    Every fold has its share of every class, or of every set of labels that hold together (those that
    occur once count as one); of numbers to predict any rows are drawn.

    Args:
      where: what the data are called in messages.
      label: [N] or [N, K], as a batch has them.
      group: numbers [N]; rows of one group come into one fold. None: every row for itself.
      count: folds.
      seed: draws them.
      remedy: what to do where there are too few rows, in messages.

    Raises:
      UserError: there are fewer rows, or groups, than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold   # slow to import, and seldom needed
    units = len(label) if group is None else len(np.unique(group))
    few = f"{where} has {units} {'rows' if group is None else 'groups'}, too few for {count} parts"
    if units < count:
        raise UserError(f"{few}; add some, or {remedy}")
    classes, counts = strata(label)
    if (counts < count).all():
        classes = np.zeros(len(label), int)
        say(f"{where}: no class has {count} rows, one for each part; rows are drawn whatever their class")
    elif kind_of(label) == "classification" and (counts < count).any():
        say(f"{where}: {(counts < count).sum()} classes have fewer rows than the {count} parts, of which "
            "some have none of them")
    splitter = (StratifiedKFold if group is None else StratifiedGroupKFold)(
        count, shuffle=True, random_state=seed)
    fold = np.zeros(len(label), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # what they say is said above
        for i, (_, rows) in enumerate(splitter.split(fold, classes, group)):
            fold[rows] = i
    empty = np.setdiff1d(np.arange(count), fold)
    if len(empty):
        raise UserError(f"{few}: none is left for part {listed(empty)}; {remedy}")
    return fold


def cut(where: str, batch: Batch, tested: np.ndarray, group: np.ndarray | None,
        config: DataConfig) -> dict[str, Batch]:
    """The three splits of rows of which those `tested`, bool [N], are test.

    Their ids are their positions among all rows.
    """
    if is_unpaired(batch["present"]):
        raise UserError(f"{where}: modalities that are not paired cannot be divided into folds; set "
                        "data.folds=0 and give them a test split")
    rest = np.flatnonzero(~tested)
    test = select(batch, np.flatnonzero(tested))
    return hold_out(where, select(batch, rest), None if group is None else group[rest], config) | {
        "test": test}


def hold_out(where: str, train: Batch, group: np.ndarray | None, config: DataConfig) -> dict[str, Batch]:
    """Train and validation data as `split_train` has them, without dividing a group [N]."""
    if group is None:
        return split_train(where, train, config)
    if not 0 < config.val_fraction < 1:
        raise UserError(f"data.val_fraction is {config.val_fraction}; expected a share in (0, 1)")
    count = min(max(round(1 / config.val_fraction), 2), len(np.unique(group)))
    if count < 2:
        raise UserError(f"{where}: all rows of train are of one group, which cannot be shared with "
                        "validation; add a val split to the data, or more groups")
    held = assign(where, train["label"], group, count, config.seed, "raise data.val_fraction") == 0
    parts = {"train": select(train, np.flatnonzero(~held)), "val": select(train, np.flatnonzero(held))}
    return {split: part | {"id": np.arange(batch_size(part), dtype=np.int32)}
            for split, part in parts.items()}
