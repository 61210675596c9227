"""Prepared data sets: TFDS `array_record` files on disk, read at random without TensorFlow.

A prepared data set is the folder NAME/VERSION with what TFDS needs (`dataset_info.json`,
`features.json`, the shards) and `summary.json`, which says how it was made: class names,
modalities, counts, skipped examples, checksums. `launch/prepare.py` writes it.

Every record is one example::

    {"id":      int,                  # position among the listed examples of its split, by key;
                                      # the ids of skipped examples are not given to others
     "key":     str,                  # name of the example: its files are called so
     "label":   int,                  # class number, -1 where the data set has no classes
     "inputs":  {modality: value},    # by the kind of the modality, see `KINDS`
     "present": {modality: bool}}     # False where the example lacks the modality: value is empty
"""
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmm.data.dataset import SPLITS
from jaxmm.errors import UserError

KINDS = {
    "audio": "Sound: mono samples in int16 and their rate",
    "frames": "list of images, each the bytes of a JPEG file, in the order of time",
    "flow": "list of grey JPEG files: T of the horizontal flow, then T of the vertical one",
    "map": "list of one PNG file whose values are no colours: depth, class of each pixel",
    "text": "str",
    "features": "float32 array of any shape",
}
SUMMARY = "summary.json"


class Sound(NamedTuple):
    """A clip of mono sound."""
    samples: np.ndarray     # int16 [T]; full scale is 32768
    rate: int               # Hz; 0 where the example has no sound


class Records(Sequence):
    """The examples of one split, by position; may be sent to other processes."""

    def __init__(self, where: str, source: Any, modalities: Mapping[str, Mapping[str, Any]]):
        self.where = where              # folder and split, for messages
        self.source = source            # what TFDS returns
        self.modalities = modalities

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            record = self.source[index % len(self)]
        # Damage is found by the checksums of the file, or where numbers do not fit.
        except Exception as error:  # pylint: disable=broad-exception-caught
            raise UserError(f"{self.where}: record {index} is damaged ({_one_line(error)}); "
                            "prepare the data set again") from error
        inputs = {m: _unpack(info["kind"], record["inputs"][m])
                  for m, info in self.modalities.items()}
        return record | {"key": record["key"].decode(), "inputs": inputs}


class Prepared(NamedTuple):
    """A prepared data set."""
    name: str
    folder: pathlib.Path
    class_names: tuple[str, ...]            # by class number
    modalities: dict[str, dict[str, Any]]   # by name: "kind", and what else holds for all examples:
                                            # "rate" in Hz (None: they differ), "fps" of raw video
    splits: dict[str, Records]              # those there are, in the order train, val, test
    summary: dict[str, Any]                 # all of `summary.json`


def open_prepared(folder: str | pathlib.Path) -> Prepared:
    """The data set in `folder`, which is NAME/VERSION, or NAME with one version in it.

    Raises:
      UserError: there is none, it is not finished, or a file is missing or cut short.
    """
    folder = _version_folder(pathlib.Path(folder))
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        for name, shard in summary["shards"].items():
            size = (folder / name).stat().st_size
            if size != shard["size"]:
                raise UserError(f"{folder / name} has {size} bytes, {SUMMARY} says "
                                f"{shard['size']}; prepare the data set again")
        modalities, class_names = summary["modalities"], tuple(summary["class_names"])
        import tensorflow_datasets as tfds      # here, as it is slow and few need it
        builder = tfds.builder_from_directory(folder)
        splits = {split: Records(f"{folder}: {split}", builder.as_data_source(split), modalities)
                  for split in SPLITS if split in builder.info.splits}
    except UserError:
        raise
    # Whatever is wrong with the files that describe it.
    except Exception as error:  # pylint: disable=broad-exception-caught
        raise UserError(f"{folder}: the prepared data set is damaged ({_one_line(error)}); "
                        "prepare it again") from error
    return Prepared(summary["name"], folder, class_names, modalities, splits, summary)


def tfds_features(modalities: Mapping[str, Mapping[str, Any]]):
    """The TFDS features of a record, plain tensors alone so that TensorFlow is not needed."""
    import tensorflow_datasets as tfds
    tensor = tfds.features.Tensor
    return tfds.features.FeaturesDict({
        "id": tensor(shape=(), dtype=np.int32),
        "key": tensor(shape=(), dtype=np.object_),
        "label": tensor(shape=(), dtype=np.int32),
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


def _unpack(kind: str, stored) -> Any:
    """The inverse of `pack`."""
    if kind == "audio":
        return Sound(stored["samples"], int(stored["rate"]))
    if kind == "features":
        return stored["values"].reshape(stored["shape"])
    return stored.decode() if kind == "text" else list(stored)


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
        raise UserError(f"{folder}: expected a prepared data set, found {found}; make one with "
                        "python -m launch.prepare --dataset=NAME --source=DIR --output=DIR")
    return versions[0]
