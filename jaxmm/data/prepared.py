"""Prepared data sets: TFDS `array_record` files on disk, read at random without TensorFlow.

A prepared data set is the folder NAME/VERSION with what TFDS needs (`dataset_info.json`,
`features.json`, the shards) and `summary.json`, which says how it was made: class names,
modalities, counts, skipped examples, checksums. `jaxmm prepare` writes it.

Every record is one example::

    {"id":      int,                  # position among the listed examples of its split, by key;
                                      # the ids of skipped examples are not given to others
     "key":     str,                  # name of the example: its files are called so
     "label":   int,                  # class number, -1 where the data set has no classes; or
                                      # float32 [K], where it has numbers to predict ("outputs"), or
                                      # labels that hold or not, 1 or 0 ("multilabel")
     "inputs":  {modality: value},    # by the kind of the modality, see `KINDS`
     "present": {modality: bool}}     # False where the example lacks the modality: value is empty
"""
import concurrent.futures
import contextlib
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmm import extras, files
from jaxmm.caches import cache_folder
from jaxmm.data.dataset import SPLITS
from jaxmm.errors import UserError, as_typed

tfds = extras.Later("tensorflow_datasets", "prepared data")      # slow to import, and few need it
proto = extras.Later("tensorflow_datasets.proto", "prepared data")

KINDS = {
    "audio": "Sound: mono samples in int16 and their rate",
    "frames": "list of images, each the bytes of a JPEG file, in the order of time",
    "flow": "list of grey JPEG files: T of the horizontal flow, then T of the vertical one",
    "map": "list of one PNG file whose values are not colours: depth, class of each pixel",
    "text": "str",
    "features": "float32 array of any shape",
}
SUMMARY = "summary.json"
DESCRIPTION = ("dataset_info.json", "features.json")    # what TFDS knows a data set by


class Sound(NamedTuple):
    """A clip of mono sound."""
    samples: np.ndarray     # int16 [T]; full scale is 32768
    rate: int               # Hz; 0 where the example has no sound


class Records(Sequence):
    """The examples of one split, by position; may be sent to other processes."""

    def __init__(self, where: str, source: Any, modalities: Mapping[str, Mapping[str, Any]]):
        self.where = where              # folder and split, for messages
        self.source = source            # what TFDS returns: records in bytes
        self.modalities = modalities

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            return self._parse(stored_fields(self.source[index % len(self)]))
        # Damage is found by the checksums of the file, or where numbers do not fit.
        except Exception as error:  # pylint: disable=broad-exception-caught
            raise UserError(f"{self.where}: record {index} is damaged ({_one_line(error)}); "
                            "prepare the data set again") from error

    def _parse(self, fields: Mapping[str, Sequence]) -> dict[str, Any]:
        (number,), (key,), label = fields["id"], fields["key"], fields["label"]
        return {"id": number, "key": key.decode(),
                "label": np.array(label, np.float32) if isinstance(label[0], float) else label[0],
                "inputs": {m: _unpack(info["kind"], f"inputs/{m}", fields) for m, info in self.modalities.items()},
                "present": {m: bool(fields[f"present/{m}"][0]) for m in self.modalities}}


class Prepared(NamedTuple):
    """A prepared data set."""
    name: str
    folder: pathlib.Path
    class_names: tuple[str, ...]            # by class number
    modalities: dict[str, dict[str, Any]]   # by name: "kind", and what else holds for all examples:
                                            # "rate" in Hz (None: they differ), "fps" of raw video
    splits: dict[str, Records]              # those there are, in the order train, val, test
    summary: dict[str, Any]                 # all of `summary.json`

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the numbers to predict, or labels that hold or not, if it has these in place of classes."""
        return tuple(self.summary.get("outputs", ()))

    @property
    def multilabel(self) -> bool:
        """Whether the outputs are labels that hold or not."""
        return self.summary.get("multilabel", False)

    @property
    def drawn(self) -> bool:
        """Whether its splits were drawn when it was prepared."""
        return self.summary.get("drawn", False)

    def groups(self, splits: Iterable[str]) -> np.ndarray | None:
        """Numbers [N] of the groups that the records of these splits are of, if there are any."""
        found = self.summary.get("groups")
        return np.concatenate([np.array(found[split], int) for split in splits]) if found else None


def open_prepared(folder: str | pathlib.Path) -> Prepared:
    """The data set in `folder`, which is NAME/VERSION, or NAME with one version in it.

    Its files are compared with the checksums in the summary, once (see `verify`).

    Raises:
      UserError: there is none, it is not finished, or a file is missing or has changed.
    """
    folder = _version_folder(files.expand(folder))
    try:
        summary = check_summary(files.parse_json(files.read(folder / SUMMARY)))
        for name, shard in summary["shards"].items():
            size = (folder / name).stat().st_size
            if size != shard["size"]:
                raise UserError(f"{folder / name} has {size} bytes, {SUMMARY} says "
                                f"{shard['size']}; prepare the data set again")
        for name in DESCRIPTION:
            if not (folder / name).is_file():
                raise ValueError(f"{name} is missing, or is not a regular file")
            found = checksum(folder / name)
            if found != summary.get("files", {}).get(name, found):      # of older data sets, no checksum
                raise ValueError(f"{name} is not the file that was written")
        verify(folder, summary["shards"])
        modalities, class_names = summary["modalities"], tuple(summary["class_names"])
        builder, raw = tfds.builder_from_directory(folder), tfds.decode.DeserializeMethod.RAW_BYTES
        splits = {split: Records(f"{folder}: {split}", builder.as_data_source(split, deserialize_method=raw),
                                 modalities)
                  for split in SPLITS if split in builder.info.splits}
        read = {name for split in builder.info.splits.values() for name in split.filenames}
        if read != set(summary["shards"]):
            raise ValueError(f"{SUMMARY} names other shards than {DESCRIPTION[0]}")
        if groups := summary.get("groups"):
            if {split: len(found) for split, found in groups.items()} != {s: len(x) for s, x in splits.items()}:
                raise ValueError(f"groups in {SUMMARY} are not those of all records")
    except UserError:
        raise
    # Whatever is wrong with the files that describe it.
    except Exception as error:  # pylint: disable=broad-exception-caught
        raise UserError(f"{folder}: the prepared data set is damaged ({_one_line(error)}); "
                        "prepare it again") from error
    return Prepared(summary["name"], folder, class_names, modalities, splits, summary)


def check_summary(summary: Any) -> dict[str, Any]:
    """The content of a summary file, if its types are those that the rest relies on.

    Raises:
      ValueError: they are not.
    """
    def check(where: str, value: Any, kind: type, good: Callable[[Any], bool] = lambda x: True):
        if type(value) is not kind or not good(value):
            raise ValueError(f"{where} in {SUMMARY} is {json.dumps(value)[:60]}")
        return value

    check("all", summary, dict, lambda x: {"name", "class_names", "modalities", "shards"} <= set(x))
    check("name", summary["name"], str)
    for names in ("class_names", "outputs"):
        check(names, summary.get(names, []), list,
              lambda x: all(type(c) is str for c in x) and len(set(x)) == len(x))
    for name in ("multilabel", "drawn"):
        check(name, summary.get(name, False), bool)
    for split, found in check("groups", summary.get("groups", {}), dict).items():
        check(f"groups/{split}", found, list, lambda x: all(type(n) is int and 0 <= n < 2**31 for n in x))
    for m, info in check("modalities", summary["modalities"], dict, len).items():
        check(f"modalities/{m}", info, dict, lambda x: x.get("kind") in [*KINDS])
        if "spectrogram" in info:
            check(f"modalities/{m}/spectrogram", info["spectrogram"], dict)
            check(f"modalities/{m}/shape", info.get("shape"), list,
                  lambda x: all(type(n) is int and n > 0 for n in x))
    for name, found in check("files", summary.get("files", {}), dict).items():
        check(name, found, str, lambda _, name=name: name in DESCRIPTION)
    for name, shard in check("shards", summary["shards"], dict).items():
        check(name, shard, dict, lambda x, name=name: pathlib.PurePath(name).name == name
              and type(x.get("size")) is int and type(x.get("sha256")) is str)
    return summary


def verify(folder: pathlib.Path, shards: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises UserError unless every shard has the checksum in the summary, SHA-256 of the whole file.

    A file is read for it once: the cache folder keeps the result for as long as size and time of the
    file stay the same. (Records have their own checksums, which are checked whenever they are read.)
    """
    known = _verified(folder)
    todo = [name for name, shard in shards.items()
            if known.get(name) != _mark(folder / name, shard["sha256"])]
    with concurrent.futures.ThreadPoolExecutor() as pool:       # hashing leaves Python's lock
        for name, found in zip(todo, pool.map(checksum, [folder / name for name in todo])):
            if found != shards[name]["sha256"]:
                raise UserError(f"{folder / name} is not the file that was written, by its checksum; "
                                "prepare the data set again")
    if todo:
        remember(folder, shards)


def remember(folder: pathlib.Path, shards: Mapping[str, Mapping[str, Any]]) -> None:
    """Records in the cache folder that the shards have been verified in their current state."""
    marks = {name: _mark(folder / name, shard["sha256"]) for name, shard in shards.items()}
    path = _marks_path(folder)
    with contextlib.suppress(OSError, UserError):       # no cache then
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(marks))


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    with files.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mark(path: pathlib.Path, sha256: str) -> list:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, sha256]


def _marks_path(folder: pathlib.Path) -> pathlib.Path:
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return cache_folder() / f"verified_{name}.json"


def _verified(folder: pathlib.Path) -> dict[str, list]:
    try:
        known = json.loads(_marks_path(folder).read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}


def tfds_features(modalities: Mapping[str, Mapping[str, Any]], outputs: int = 0):
    """The TFDS features of a record: only plain tensors, so that TensorFlow is not needed.

    `outputs` is the number of values to predict, for data sets without classes.
    """
    tensor = tfds.features.Tensor
    return tfds.features.FeaturesDict({
        "id": tensor(shape=(), dtype=np.int32),
        "key": tensor(shape=(), dtype=np.object_),
        "label": (tensor(shape=(outputs,), dtype=np.float32) if outputs else
                  tensor(shape=(), dtype=np.int32)),
        "present": {m: tensor(shape=(), dtype=np.bool_) for m in modalities},
        "inputs": {m: _stored(info["kind"], tensor) for m, info in modalities.items()},
    })


def pack(kind: str, value) -> Any:
    """`value`, or an empty one for None, as it is stored."""
    if kind == "audio":
        sound = value or Sound(np.zeros(0, np.int16), 0)
        return {"samples": sound.samples, "rate": sound.rate}
    if kind == "features":
        value = np.zeros(0, np.float32) if value is None else value
        return {"values": value.ravel(), "shape": np.asarray(value.shape, np.int32)}
    return value or ("" if kind == "text" else [])


def stored_fields(data: bytes) -> dict[str, list]:
    """The fields of a record by name, each a list of numbers or of bytes.

    TFDS would make arrays of all of them, which takes three times as long and holds up other threads.
    """
    fields = proto.tf_example_pb2.Example.FromString(data).features.feature
    return {name: list(getattr(field, field.WhichOneof("kind")).value) for name, field in fields.items()}


def _unpack(kind: str, name: str, fields: Mapping[str, Sequence]) -> Any:
    """The inverse of `pack`, of the field or fields called so."""
    if kind == "audio":
        return Sound(np.frombuffer(fields[f"{name}/samples"][0], np.int16), fields[f"{name}/rate"][0])
    if kind == "features":
        shape = np.frombuffer(fields[f"{name}/shape"][0], np.int32)
        return np.frombuffer(fields[f"{name}/values"][0], np.float32).reshape(shape)
    return fields[name][0].decode() if kind == "text" else fields[name]


def _stored(kind: str, tensor) -> Any:
    """The TFDS feature of one modality."""
    numbers = functools.partial(tensor, shape=(None,), encoding="bytes")
    return {"audio": lambda: {"samples": numbers(dtype=np.int16),
                              "rate": tensor(shape=(), dtype=np.int32)},
            "features": lambda: {"values": numbers(dtype=np.float32),
                                 "shape": numbers(dtype=np.int32)},
            "text": lambda: tensor(shape=(), dtype=np.object_),
            }.get(kind, lambda: tensor(shape=(None,), dtype=np.object_))()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _version_folder(folder: pathlib.Path) -> pathlib.Path:
    """`folder` itself or the one version in it."""
    versions = [f for f in (folder, *sorted(folder.glob("*"))) if (f / SUMMARY).is_file()
                and not f.name.endswith(".incomplete")]
    if len(versions) != 1 and versions[:1] != [folder]:
        found = ", ".join(f.name for f in versions) or "none"
        remedy = ("name one of them" if versions else f"make one with {as_typed('prepare')} "
                  "--dataset=NAME --source=DIR --output=DIR")
        raise UserError(f"{folder}: expected a prepared data set, found {found}; {remedy}")
    return versions[0]
