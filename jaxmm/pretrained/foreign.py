"""Weights in the files of other programs: of `torch.save`, TorchScript archives, pickles of flax.

Nothing in a file is executed, see `jaxmm.pretrained.unpickle`. Of `torch.save` there are two forms: since
torch 1.6 a zip archive, before that pickles one after the other with the numbers behind them.
"""
import collections
import contextlib
import io
import mmap
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxmm import files
from jaxmm.data import arrays
from jaxmm.errors import UserError
from jaxmm.pretrained import unpickle
from jaxmm.pretrained.unpickle import Object, Pickle, Storage, entries_of

FORM = "a file of torch.save, a TorchScript archive, or a pickle of flax parameters"
MAGIC = 0x1950a86a20f9469cfc6c      # begins files of torch before 1.6
PROTOCOL = 1001
MOST_NAMES = 2**16
MOST_SHARED = 4             # arrays may be given several names: their bytes over those of the file
# Where weights are: at the first of these names, if it is there; in pickles at each in turn.
IN_TORCH = "state_dict", "model_state_dict", "model", "module"
IN_PICKLES = "state", "params", "params"
OWN = "_parameters", "_buffers", "_modules"     # of a module that was saved as a whole: no part of names
PLAIN = {*unpickle.ARRAYS, *unpickle.TENSORS, *unpickle.PARAMETERS, *unpickle.BYTES, "numpy.dtype",
         "_codecs.encode", "torch.Size", "collections.OrderedDict", "builtins.set", "__builtin__.set"}


class Found(NamedTuple):
    """The weights in a file."""
    form: str                       # of the file, in words
    where: str                      # the names that lead to the weights; "": they are all
    weights: dict[str, np.ndarray]  # by name, as stored
    arrays_left: int                # arrays that are no weights, such as those of the optimizer
    objects_left: Mapping[str, int]     # everything else that a pickle would have made, by class


class Opened(NamedTuple):
    """A file of one of the forms."""
    form: str
    joint: str                      # between the parts of a name
    pickle: Pickle
    numbers: Callable[[Storage], Any]


def read(path: pathlib.Path) -> Found:
    """The weights in a file, in arrays that are views of it.

    Raises:
      UserError: it cannot be read, is not FORM, is damaged, is larger than the free memory, or holds no
        weights.
    """
    with files.open_regular(path) as file, _explained(path, file):
        size, left = os.fstat(file.fileno()).st_size, arrays.memory_left()
        if size > left:
            raise UserError(f"{path} has {size / 2**30:.1f} GiB, and {left / 2**30:.1f} GiB of memory are left; convert it "
                            "on a larger machine")
        if file.read(4) == b"PK\3\4":
            with zipfile.ZipFile(file) as archive:
                return _find(path, _open_archive(archive), size)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _find(path, _open_pickles(content), size)


@contextlib.contextmanager
def _explained(path: pathlib.Path, file: BinaryIO) -> Iterator[None]:
    """Turns whatever damage raises into one line."""
    try:
        yield
    except UserError:
        raise
    # Damage shows in many ways: in lengths, checksums, unknown instructions, text that is no text.
    except Exception as error:  # pylint: disable=broad-exception-caught
        file.seek(0)
        start = file.read(64)
        said = ("is empty" if not start else
                "is a git-lfs pointer in place of the file, which `git lfs pull` fetches"
                if start.startswith(b"version https://git-lfs") else
                "is damaged, cut short or of another kind")
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path} {said} ({reason}); expected {FORM}") from error


def _open_archive(archive: zipfile.ZipFile) -> Opened:
    members = {member.filename: member for member in archive.infolist()}
    mains = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(mains) != 1 or len(members) < len(archive.infolist()):
        raise ValueError(f"{len(mains)} members FOLDER/data.pkl among {len(archive.infolist())}")
    folder = mains[0].removesuffix("data.pkl")

    def content(name: str) -> bytes:
        if members[name].compress_type != zipfile.ZIP_STORED:     # so that none grows beyond the file
            raise ValueError(f"{name} is compressed")
        return archive.read(name)

    if f"{folder}byteorder" in members and content(f"{folder}byteorder") != b"little":
        raise ValueError("its numbers are big-endian")
    found: dict[str, bytes] = {}

    def numbers(storage: Storage) -> bytes:
        if storage.key not in found:
            found[storage.key] = content(f"{folder}data/{storage.key}")
        return found[storage.key]

    form = "TorchScript archive" if f"{folder}constants.pkl" in members else "file of torch.save"
    return Opened(form, ".", unpickle.read(io.BytesIO(content(mains[0]))), numbers)


def _open_pickles(content: mmap.mmap) -> Opened:
    pickle = unpickle.read(content)
    if pickle.value != MAGIC:
        return Opened("pickle", "/", pickle, _no_numbers)
    protocol, machine = unpickle.read(content).value, unpickle.read(content).value
    if protocol != PROTOCOL or not entries_of(machine).get("little_endian"):
        raise ValueError(f"protocol {protocol!r:.20} of torch, or numbers that are big-endian")
    pickle, keys = unpickle.read(content), unpickle.read(content).value
    known = {storage.key: storage for storage in map(unpickle.storage_of, pickle.stored)}
    places, position = {}, content.tell()
    for key in keys:
        count = int.from_bytes(content[position:position + 8], "little")
        start = position + 8
        position = start + count * known[key].dtype.itemsize
        if count != known[key].count or position > len(content):
            raise ValueError(f"{count} numbers behind the pickles, of which {known[key].count} should be")
        places[key] = slice(start, position)
    return Opened("file of torch.save before 1.6", ".", pickle,
                  lambda storage: memoryview(content)[places[storage.key]])


def _no_numbers(storage: Storage) -> Any:
    raise ValueError(f"the numbers of storage {storage.key:.20} are not there")


def _find(path: pathlib.Path, opened: Opened, size: int) -> Found:
    """The weights of a file of `size` bytes."""
    root, where = opened.pickle.value, []
    for names in ([IN_TORCH] if opened.joint == "." else [[name] for name in IN_PICKLES]):
        inner = next((name for name in names if _is_level(entries_of(root).get(name))), None)
        if inner is not None:
            root = entries_of(root)[inner]
            where.append(inner)
    weights, total = {}, 0
    used: dict[int, str] = {}       # names of the objects that are, or hold, weights
    for name, array in _leaves(root, opened, used):
        if not name or name == "__metadata__" or name in weights:
            raise ValueError(f"{name!r} is the name of two arrays, or of none")
        weights[name] = array
        total += array.nbytes
        if total > MOST_SHARED * size:
            raise ValueError(f"more than {total} bytes of arrays in a file of {size}")
    if not weights:
        held = ", ".join(map(str, list(entries_of(root))[:5])) or unpickle.kind(root)
        raise UserError(f"{path} holds no arrays that have names, but {held:.200}; expected the state dict of "
                        "a model, or its parameters")
    left = collections.Counter(opened.pickle.calls)
    left.subtract(used.values())
    arrays_left = sum(left[name] for name in (*unpickle.TENSORS, *unpickle.ARRAYS))
    return Found(opened.form, ".".join(where), weights, arrays_left,
                 {name: count for name, count in left.most_common() if count > 0 and name not in PLAIN})


def _is_level(value: Any) -> bool:
    """Whether this is a dictionary, or a state that has parameters: no module, which is a part of the model."""
    if isinstance(value, Object) and not _is_dict(value):
        return bool(entries_of(entries_of(value).get("params")))
    return bool(entries_of(value))


def _leaves(root: Any, opened: Opened, used: dict[int, str]) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays at and below `root` by name; objects that are or hold them go into `used`."""
    waiting: list[tuple[str, Any, Any]] = [("", root, None)]    # last (object that holds it, what holds that)
    steps = 0
    while waiting:
        prefix, value, held = waiting.pop()
        value = unpickle.bare(value)
        if isinstance(value, Object):
            held = value, held
        array = unpickle.array_of(value, opened.numbers)
        if array is not None:
            while held and id(held[0]) not in used:
                used[id(held[0])], held = held[0].name, held[1]
            yield prefix, array
            continue
        for key, entry in reversed(entries_of(value).items()):
            # Dictionaries in a state dict are no parts of the model.
            if opened.joint == "/" or key in OWN or isinstance(entry, Object) and not _is_dict(entry):
                steps += 1
                name = prefix if key in OWN else f"{prefix}{opened.joint if prefix else ''}{key}"
                if steps > MOST_NAMES or len(name) > unpickle.LONGEST_NAME:
                    raise ValueError(f"more than {MOST_NAMES} names, or a name of {len(name)} letters")
                waiting.append((name, entry, held))


def _is_dict(value: Object) -> bool:
    return value.name in ("collections.OrderedDict", "flax.core.frozen_dict.FrozenDict")
