"""The user's own arrays: one `.npz` file, any number of modalities.

The file holds `{split}/{modality}` [N, ...], real numbers of any type, and `{split}/label` for the
splits `train`, `test` and, optionally, `val`. The type of the labels says what is predicted: integers
[N] are class numbers from 0; text [N] the names of the classes, which are numbered in their order,
numbers as numbers; bools [N, K] are labels that hold or not; floats [N] or [N, K] are numbers to
predict. Optional too: `{split}/present/{modality}` bool [N], False where an example lacks the modality;
`class_names`, text by class number; and `label_names`, text by column of bools or floats. Modalities that have
rows of their own have labels of their own, in place of those of the split: `{split}/{modality}/label`;
see `jaxmm/data/unpaired.py`. `train/group` [N], whole numbers or text, says which rows belong together
(one speaker, one patient): they are not divided when validation data or folds (`jaxmm/data/folds.py`) are
taken of train. Where `val` and `test` are there, too, and say `{split}/group`, a stream may learn group after
group.

For a segmentation `data.target` names the input with the class of every pixel, integers [N, H, W] from 0, -1
for void; there is no `label` then, and all other inputs are images [N, H, W, C] or maps [N, H, W].
"""
import collections
import contextlib
import functools
import math
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import psutil

from jaxmm import files
from jaxmm.batch import is_unpaired, make_batch
from jaxmm.config import DataConfig
from jaxmm.data import folds, unpaired
from jaxmm.data.dataset import SPLITS, Dataset, by_number, listed, with_target
from jaxmm.errors import UserError, suggest
from jaxmm.task import VOID, check_maps

NAMES = ("class_names", "label_names")
MOST_CLASSES = 2**15        # of pixels: more is a map of something else
FORM = "an .npz file with SPLIT/MODALITY and SPLIT/label, as numpy.savez writes it"


def load(config: DataConfig) -> Dataset:
    """Reads `config.path`; without a `val` split, `config.seed` draws one from train.

    With `config.folds` the file has train alone, of which one fold is the test split.

    Raises:
      UserError: the file is missing, damaged, larger than the memory that is left, holds pickled
        objects, or is not of this form.
    """
    return reader(config)(config)


def reader(config: DataConfig) -> Callable[[DataConfig], Dataset]:
    """Reads the file, once: what it returns makes of it the data set of a config, which may be of any fold."""
    if not config.path:
        raise UserError("data.path is empty; name your file: --config.data.path=FILE.npz")
    path = files.expand(config.path)
    return functools.partial(assemble, path, read(path))


def assemble(path: pathlib.Path, arrays: Mapping[str, np.ndarray], config: DataConfig,
             needed: Sequence[str] = ("train", "test")) -> Dataset:
    """The data set of arrays that are named as in a file; `path` is what they are called in messages.

    Raises:
      UserError: they are not of this form, or a split that is needed is not there.
    """
    arrays = dict(arrays)
    names = {key: _names(path, key, arrays.pop(key)) for key in NAMES if key in arrays}
    groups = _groups(path, arrays)
    splits = collections.defaultdict(lambda: {"inputs": {}, "present": {}})
    for name, array in arrays.items():
        split, _, rest = name.partition("/")
        if split not in SPLITS or not rest:
            raise UserError(f"{path}: unexpected array {name!r}; expected SPLIT/MODALITY or "
                            f"SPLIT/label with SPLIT one of {', '.join(SPLITS)}")
        if rest == "label":
            splits[split]["label"] = array
        elif rest.startswith("present/"):
            splits[split]["present"][rest.removeprefix("present/")] = array
        else:
            splits[split]["inputs"][rest] = array
    for split in ("train",) if config.folds else needed:
        if split not in splits:
            raise UserError(f"{path}: no {split} split; expected {split}/MODALITY and {split}/label" + (
                ", or --config.data.folds=K for cross-validation" if split == "test" and len(splits) == 1
                else ""))
    if config.folds and len(splits) > 1:
        raise UserError(f"{path} has the splits {', '.join(s for s in SPLITS if s in splits)}; data.folds="
                        f"{config.folds} needs all rows in train: join them, or set data.folds=0")
    splits = {split: unpaired.stack(f"{path}: {split}", parts) for split, parts in splits.items()}
    if config.target:
        splits = {split: _dense(f"{path}: {split}", parts, config.target) for split, parts in splits.items()}
    for split, parts in splits.items():
        if "label" not in parts or not parts["inputs"]:
            missing = "label" if parts["inputs"] else "MODALITY"
            raise UserError(f"{path}: {split}/{missing} is missing; every split needs both")
    labels = {split: parts["label"] for split, parts in splits.items()}
    check_alike(path, labels)
    columns = labels["train"].ndim == 2 or labels["train"].dtype.kind == "f"
    known, other = ("label_names", "class_names") if columns else ("class_names", "label_names")
    if other in names:
        raise UserError(f"{path}: {other} is not for labels of {labels['train'].dtype} "
                        f"{list(labels['train'].shape)}; call it {known}")
    labels, class_names = _number(path, labels, names.get(known))
    splits = {split: with_target(make_batch(parts["inputs"], labels[split], present=parts["present"],
                                            where=f"{path}: {split}"), config.target)
              for split, parts in splits.items()}
    if class_names is None and config.target:
        maps = splits["train"]["inputs"][config.target]
        class_names = _numbered(f"{path}: train/{config.target}", maps[maps != VOID])
    elif class_names is None:
        class_names = _numbered(f"{path}: train/label", splits["train"]["label"])
    where, train = str(path), splits["train"]
    for split, group in groups.items():
        rows = len(labels.get(split, ()))
        if len(group) != rows:
            raise UserError(f"{path}: {split}/group has {len(group)} rows, {split}/label {rows}; expected one for "
                            "each row")
    group = np.unique(groups["train"], return_inverse=True)[1] if groups else None
    if config.folds:
        tested = folds.assign(where, train["label"], group, config.folds, config.seed) == config.fold
        splits = folds.cut(where, train, tested, group, config)
    elif "val" not in splits and is_unpaired(train["present"]):
        splits |= unpaired.split_each(where, train, config)
    elif "val" not in splits:
        splits |= folds.hold_out(where, train, group, config)
    return Dataset(path.stem, {s: splits[s] for s in SPLITS if s in splits}, class_names,
                   groups=groups if len(groups) > 1 else {}, target=config.target)


def _dense(where: str, parts: Mapping[str, Any], target: str) -> dict[str, Any]:
    """The arrays of a split with the label 0 everywhere, if `target` is there and nothing else is predicted."""
    if target not in parts["inputs"]:
        raise UserError(f"{where}/{target} is missing; data.target={target} names the class of every pixel"
                        f"{suggest(target, parts['inputs'], 'it among')}")
    other = "label" if "label" in parts else f"present/{target}" if target in parts["present"] else ""
    if other:
        raise UserError(f"{where}/{other} is there beside data.target={target}, which is what is predicted; remove "
                        "it, or leave data.target out")
    maps = parts["inputs"][target]
    check_maps(f"{where}/{target}", maps, MOST_CLASSES)
    return {**parts, "label": np.zeros(len(maps), np.int32)}


def _groups(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The groups of rows by split, taken out of the arrays: of train alone, or of all splits.

    Arrays of another rank are a modality.
    """
    named = {split: f"{split}/group" for split in SPLITS if f"{split}/group" in arrays}
    found = {split: arrays.pop(name) for split, name in named.items() if arrays[name].ndim == 1}
    if set(found) not in (set(), {"train"}, set(SPLITS)):
        other = min(set(found) - {"train"})
        raise UserError(f"{path}: {other}/group is not used; groups are those of train/group, or of all of "
                        f"{', '.join(SPLITS)}: remove it, or add the others")
    for split, group in found.items():
        if group.dtype.kind not in "iuSU":
            raise UserError(f"{path}: {split}/group is {group.dtype}; expected whole numbers or text")
    return found


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file by name, after a check that they fit into memory.

    Raises:
      UserError: there is no such file, it is not a complete `.npz` file of plain arrays, or they are
        larger than the free memory.
    """
    with open_file(path, FORM) as (file, members):
        size, left = sum(member.file_size for member in members.values()), memory_left()
        if size > left:
            raise UserError(f"{path}: its arrays take {size / 2**30:.1f} GiB of memory, "
                            f"{left / 2**30:.1f} GiB are left; give fewer rows or a smaller type "
                            "(uint8, float16), or run it on a larger machine")
        return {name: read_member(file, member) for name, member in members.items()}


@contextlib.contextmanager
def open_file(path: pathlib.Path, form: str,
              ) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """An `.npz` file and its members, by the names of the arrays.

    Raises:
      UserError: there is no such file, it is not a complete `.npz` file, or reading it fails; `form`
        says what was expected.
    """
    if not path.is_file():
        raise UserError(f"{path}: {not_there(path)}; expected {form}")
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            if _count(path) not in (len(members), 2**16 - 1):   # which stands for more
                raise ValueError("the directory at its end is not whole")
            _check_members(path, [member.filename for member in members])
            yield file, {member.filename.removesuffix(".npy"): member for member in members}
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    # Damage shows in many ways: where numbers do not fit, in checksums, in unknown versions.
    except Exception as error:  # pylint: disable=broad-exception-caught
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path}: {_other_file(path)} ({reason}); expected {form}") from error


class Header(NamedTuple):
    """The header of a `.npy` array."""
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


def read_header(file: zipfile.ZipFile, member: zipfile.ZipInfo, stream) -> Header:
    """The header of an array at whose start `stream` is, if the member has the size that it states."""
    version = np.lib.format.read_magic(stream)
    headers = {(1, 0): np.lib.format.read_array_header_1_0,
               (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise ValueError(f"{member.filename} is of version {version}")
    header = Header(*headers[version](stream))
    if header.dtype.hasobject:
        raise UserError(f"{file.filename}: {member.filename} holds pickled Python objects, which "
                        "may run code; expected plain arrays: numbers, or text of one length "
                        "(numpy.array(names, str))")
    size = math.prod(header.shape) * header.dtype.itemsize
    held = member.file_size - stream.tell()
    if size != held or not header.dtype.itemsize:
        raise ValueError(f"{member.filename} says {header.dtype} of shape {header.shape}, {size} "
                         f"bytes, and holds {held}")
    return header


def read_member(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array, read to its end, where the checksum is compared; its size must be what its header says."""
    with file.open(member) as stream:
        read_header(file, member, stream)
    with file.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError(f"{member.filename} holds more than it says")
        return array


def read_rows(file: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> Iterator[np.ndarray]:
    """The rows of one array, `size` at a time, without ever holding more of them.

    An array in Fortran order, whose rows are not contiguous, is read as a whole.
    """
    with file.open(member) as stream:
        shape, fortran_order, dtype = read_header(file, member, stream)
        if fortran_order and len(shape) > 1:
            whole = read_member(file, member)
            yield from (whole[i:i + size] for i in range(0, shape[0], size))
            return
        for start in range(0, shape[0], size):
            part = (min(size, shape[0] - start), *shape[1:])
            content = stream.read(math.prod(part) * dtype.itemsize)
            yield np.frombuffer(content, dtype).reshape(part)
        if stream.read(1):      # the end, where the checksum is compared
            raise ValueError(f"{member.filename} holds more than it says")


def _count(path: pathlib.Path) -> int:
    """The number of members that the end record of a zip file states, which `zipfile` does not check."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 22))     # a comment may follow it
        end = file.read()
    return int.from_bytes(end[end.rfind(b"PK\5\6") + 10:][:2], "little")


def _check_members(path: pathlib.Path, names: list[str]) -> None:
    twice = [name for name, n in collections.Counter(names).items() if n > 1]
    if twice:
        raise UserError(f"{path}: holds {twice[0]} twice; which one is meant? Write the file again")
    other = [name for name in names if not name.endswith(".npy")]
    if other:
        raise UserError(f"{path}: holds {other[0]!r}, which is not an array; expected {FORM}")


def memory_left() -> int:
    """Bytes of free memory of this machine, at most the limit of its container (cgroup)."""
    left = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):      # no container, or "max"
        left = min(left, int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text()))
    return left


def not_there(path: pathlib.Path) -> str:
    """Why there is no regular file at `path`."""
    if path.is_dir():
        return "is a folder"
    if path.is_symlink() and not path.exists():
        return "is a link that leads nowhere"
    if path.exists():
        return "is not a regular file"
    alike = []
    with contextlib.suppress(OSError):
        alike = [f.name for f in sorted(path.parent.iterdir())
                 if f.name.casefold() in (path.name.casefold(), f"{path.name}.npz".casefold())]
    where = "" if path.is_absolute() else f" in {pathlib.Path.cwd()}"
    return f"no such file{where}" + (f", but {alike[0]}" if alike else "")


def _other_file(path: pathlib.Path) -> str:
    """What is wrong with a file that cannot be read, by its first bytes."""
    start = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer in place of the file, which `git lfs pull` fetches"
    if start.startswith(b"PK"):
        return "is damaged or cut short"
    return "is not an .npz file, or damaged or cut short" if start else "is empty, damaged or cut short"


def _names(path: pathlib.Path, key: str, names: np.ndarray) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise UserError(f"{path}: {key} is {names.dtype} of shape {names.shape}; expected text "
                        f"of shape [{'classes' if key == 'class_names' else 'columns'}]")
    return _texts(path, key, names)


def _texts(path: pathlib.Path, name: str, array: np.ndarray) -> tuple[str, ...]:
    """Text or numbers as strings, of which none is empty."""
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: {name} is not UTF-8 text ({error}); save it as str") from error
    texts = tuple(map(str, array))
    blank = next((row for row, text in enumerate(texts) if not text.strip()), None)
    if blank is not None:
        raise UserError(f"{path}: {name} is empty in row {blank}; expected a name")
    return texts


def check_alike(path: pathlib.Path, labels: Mapping[str, np.ndarray]) -> None:
    """Raises UserError unless the labels of all splits have one kind: integers, names, and so on."""
    kinds = {split: {"u": "i", "S": "U"}.get(x.dtype.kind, x.dtype.kind) for split, x in labels.items()}
    for split, label in labels.items():
        if kinds[split] != kinds["train"]:
            raise UserError(f"{path}: {split}/label is {label.dtype}, train/label "
                            f"{labels['train'].dtype}; give every split labels of one type")


def _number(path: pathlib.Path, labels: Mapping[str, np.ndarray], class_names: tuple[str, ...] | None):
    """(labels as numbers, class names). Names become their position among all names of train.

    Numbers stay as they are.
    """
    for split, label in labels.items():
        if label.ndim == 1 and label.dtype.kind == "i" and label.size and label.min() < 0:
            raise UserError(f"{path}: {split}/label has the value {label.min()} in row {label.argmin()}; "
                            "expected class numbers from 0: remove rows without a class")
    if labels["train"].dtype.kind not in "US" or any(x.ndim != 1 for x in labels.values()):
        return labels, class_names
    texts = {split: _texts(path, f"{split}/label", label) for split, label in labels.items()}
    names = class_names or tuple(sorted(set(texts["train"]), key=by_number))
    number = {name: i for i, name in enumerate(names)}
    for split, text in texts.items():
        unknown = [(row, name) for row, name in enumerate(text) if name not in number]
        if unknown:
            row, name = unknown[0]
            raise UserError(f"{path}: {split}/label is {name!r} in row {row}, which is not among the "
                            f"{'class_names' if class_names else 'labels of train'} "
                            f"({listed(names)}); {len(unknown)} such rows")
    return {split: np.array([number[name] for name in text], np.int32)
            for split, text in texts.items()}, names


def _numbered(where: str, label: np.ndarray) -> tuple[str, ...]:
    """Numbers as names: of columns, or of the classes up to the highest that is trained on.

    A larger label elsewhere is then out of range.
    """
    if label.ndim == 2:
        return tuple(map(str, range(label.shape[1])))
    found, count = np.unique(label), int(label.max()) + 1
    if 2 * len(found) <= count:
        raise UserError(f"{where} has {len(found)} different numbers, up to {count - 1}: "
                        f"{listed(found)}; expected classes numbered from 0: remove rows that have no "
                        "class, renumber the classes, or name all of them by class_names")
    return tuple(map(str, range(count)))
