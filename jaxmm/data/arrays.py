"""The user's own arrays: one `.npz` file, any number of modalities.

The file holds `{split}/{modality}` [N, ...] and `{split}/label` [N] for the splits `train`, `test`
and, optionally, `val`. Optional too: `{split}/present/{modality}` bool [N], False where an example
lacks the modality, and `class_names`, text by class number.
"""
import collections
import pathlib
import zipfile
import zlib

import numpy as np

from jaxmm.batch import make_batch
from jaxmm.config import DataConfig
from jaxmm.data.dataset import SPLITS, Dataset, check_rows, split_train
from jaxmm.errors import UserError


def load(config: DataConfig) -> Dataset:
    """Reads `config.path`; without a `val` split, a slice of train drawn by `config.seed` is it.

    Raises:
      UserError: the file is missing, damaged, holds pickled objects, or is not of this form.
    """
    path = pathlib.Path(config.path)
    if not config.path:
        raise UserError("data.path is empty; name your file: --config.data.path=FILE.npz")
    arrays = _read(path)
    class_names = arrays.pop("class_names", None)
    splits = collections.defaultdict(lambda: {"inputs": {}, "present": {}})
    for name, array in arrays.items():
        split, _, rest = name.partition("/")
        if split not in SPLITS or not rest:
            raise UserError(f"{path}: unexpected array {name!r}; expected SPLIT/MODALITY or "
                            f"SPLIT/label with SPLIT one of {', '.join(SPLITS)}")
        if rest == "label":
            splits[split]["label"] = _check_label(path, name, array)
        elif rest.startswith("present/"):
            if array.ndim != 1:
                raise UserError(f"{path}: {name} has shape {array.shape}; expected [rows]")
            splits[split]["present"][rest.removeprefix("present/")] = array.astype(bool)
        elif array.dtype.kind not in "buif" or array.ndim < 2:
            raise UserError(f"{path}: {name} is {array.dtype} of shape {array.shape}; expected "
                            "numbers with at least two axes [rows, ...]")
        else:
            splits[split]["inputs"][rest] = array
    for split in ("train", "test"):
        if split not in splits:
            raise UserError(f"{path}: no {split} split; expected {split}/MODALITY and {split}/label")
    for split, parts in splits.items():
        if "label" not in parts or not parts["inputs"]:
            missing = "label" if parts["inputs"] else "MODALITY"
            raise UserError(f"{path}: {split}/{missing} is missing; every split needs both")
        unknown = set(parts["present"]) - set(parts["inputs"])
        if unknown:
            raise UserError(f"{path}: {split}/present/{min(unknown)} names no modality; "
                            f"expected one of {sorted(parts['inputs'])}")
        splits[split] = make_batch(parts["inputs"], parts["label"], present=parts["present"])
        check_rows(f"{path}: {split}", splits[split])
    if "val" not in splits:
        splits |= split_train(str(path), splits["train"], config)
    if class_names is None:
        # The classes that are trained on; a larger label elsewhere is then out of range.
        highest = splits["train"]["label"].max(initial=-1)
        class_names = np.arange(highest + 1)
    if class_names.ndim != 1:
        raise UserError(f"{path}: class_names has shape {class_names.shape}; expected [classes]")
    return Dataset(path.stem, {s: splits[s] for s in SPLITS}, tuple(map(str, class_names)))


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an .npz with SPLIT/MODALITY and "
                        "SPLIT/label")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error) or isinstance(error, TypeError):
            raise UserError(f"{path}: holds pickled Python objects, or is no .npz file; "
                            "expected plain numeric arrays saved by numpy.savez") from error
        raise UserError(f"{path}: cannot be read as .npz ({error}); the file may be damaged or "
                        "cut short: write it again with numpy.savez") from error


def _check_label(path: pathlib.Path, name: str, label: np.ndarray) -> np.ndarray:
    if label.ndim != 1 or label.dtype.kind not in "ui":
        raise UserError(f"{path}: {name} is {label.dtype} of shape {label.shape}; expected "
                        "integer class numbers of shape [rows]")
    if label.size and label.min() < 0:
        raise UserError(f"{path}: {name} has the value {label.min()}; expected class numbers from 0")
    return label
