"""What a run keeps of its data, so that it can be restored and can predict without them.

Normalisation statistics, vocabularies and class names are those of the training split when training
began; the files at `data.path` may have changed since.
"""
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmm.batch import Batch, batch_size, make_batch
from jaxmm.config import PreprocessConfig
from jaxmm.data.dataset import Dataset, Form, check_kind, check_split, forms_of, listed, with_target
from jaxmm.data.streams import Stream, Task
from jaxmm.data.transform import Norms, normalisation
from jaxmm.errors import UserError
from jaxmm.task import kind_of

LARGEST = 2**31 - 1
MOST_NUMBERS = 2**28        # in an example: more is a mistake, or an attempt to fill the memory


class DataSpec(NamedTuple):
    """The data of a run, without its rows."""
    name: str                                       # of the data set
    class_names: tuple[str, ...]                    # of what is learned: on a stream, of its labels;
                                                    # of labels [N, K], of the columns
    label: tuple[np.dtype, tuple[int, ...]]         # type of the labels, shape of one
    forms: dict[str, Form]                          # by modality
    norms: Norms                                    # by modality, of all but texts
    num_tokens: dict[str, int]                      # by modality, of texts
    vocabularies: dict[str, tuple[str, ...]]        # of these, where they are known, see `Dataset`
    rows: tuple[int, ...]                           # of the training split, by task that is learned
    num_examples: int                               # ids of training examples lie below it
    stream: Stream | None                           # its tasks, without examples
    checksums: dict[str, str]                       # by split: `fingerprint` when training began
    files: Mapping[str, Any] = {}                   # how those of a table were read, see `Dataset`
    target: str = ""                                # of a segmentation, see `Dataset`; it has a form, too

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.forms) - {self.target}))

    @property
    def checksum(self) -> str:
        """Checksum of all that determines the predictions; checkpoints keep it."""
        values = {k: v for k, v in to_json(self).items() if k not in ("name", "checksums", "checksum")}
        return _checksum(values)


class NoSplits(dict):
    """The splits of data that are not available: accessing one raises UserError."""

    def __init__(self, message: str):
        super().__init__()
        self.message = message

    def __missing__(self, split):
        raise UserError(self.message)


def make_spec(dataset: Dataset, stream: Stream | None, tasks: Sequence[np.ndarray],
              checksums: Mapping[str, str], sections: Mapping[str, PreprocessConfig]) -> DataSpec:
    """The spec of data as they are learned.

    Args:
      dataset: with the labels to learn.
      stream: its tasks, if there are several.
      tasks: rows of the training split, by task that is learned.
      checksums: by split.
      sections: how it is preprocessed, by modality.
    """
    train = dataset.splits["train"]
    return DataSpec(
        dataset.name, tuple(dataset.class_names), (train["label"].dtype, train["label"].shape[1:]),
        dict(sorted(forms_of(train).items())),
        normalisation(train, sections), dict(dataset.num_tokens),
        {m: tuple(v) for m, v in dataset.vocabularies.items()}, tuple(map(len, tasks)),
        int(train["id"].max()) + 1, stream and _without_rows(stream), dict(checksums), dict(dataset.files),
        dataset.target)


def _without_rows(stream: Stream) -> Stream:
    return stream._replace(tasks=tuple(task._replace(indices={}) for task in stream.tasks))


def absent(spec: DataSpec, message: str) -> Dataset:
    """The data set without its splits; accessing one raises UserError with this message."""
    return Dataset(spec.name, NoSplits(message), spec.class_names, spec.num_tokens, spec.vocabularies,
                   spec.files, target=spec.target)


def example(spec: DataSpec, dtypes: Mapping[str, Any] | None = None) -> Batch:
    """A batch of two rows of zeros in the form of the data; `dtypes` are other types, by modality."""
    types = {m: form.dtype for m, form in spec.forms.items()} | dict(dtypes or {})
    dtype, shape = spec.label
    batch = make_batch({m: np.zeros((2, *form.shape), types[m]) for m, form in spec.forms.items()},
                       np.zeros(2, np.int32))
    return with_target(batch, spec.target) | {"label": np.zeros((2, *shape), dtype)}


def coarse_map(spec: DataSpec) -> dict[int, str] | None:
    """The category of every class of a domain-incremental stream, by number."""
    if spec.stream is None:
        return None
    return {number: spec.class_names[label] for number, label in enumerate(spec.stream.label_of)
            if label >= 0}


def check_same_form(spec: DataSpec, dataset: Dataset, stream: Stream | None) -> None:
    """Raises UserError unless the data have the form of those that the run was trained on.

    Rows may differ, which checksums tell. Modalities, shapes, types, scale, what is predicted and the
    tasks of a stream may not.
    """
    other = f"{dataset.name} is not the data this run was trained on"
    known, found = kind_of(example(spec)["label"]), kind_of(dataset.splits["train"]["label"])
    pairs = [("task", [known], [found]), ("class maps", [spec.target or "none"], [dataset.target or "none"]),
             ("classes" if known == "classification" else "outputs", spec.class_names, dataset.class_names)]
    if spec.stream and stream:
        pairs += [("classes", spec.stream.class_names, stream.class_names),
                  ("labels", spec.stream.label_of.tolist(), stream.label_of.tolist())]
        pairs += [(f"classes in task {i}", a.classes.tolist(), b.classes.tolist())
                  for i, (a, b) in enumerate(zip(spec.stream.tasks, stream.tasks), 1)]
    for what, known, found in pairs:
        if list(known) != list(found):
            raise UserError(f"{other}: it has the {what} {listed(found)}, the run {listed(known)}; "
                            "restore those data, or name them")
    for split, batch in dataset.splits.items():
        if batch_size(batch):
            check_split(f"{other}: {split}", batch, spec.forms, target=spec.target)
            for m, x in batch["inputs"].items():
                check_kind(f"{other}: {split}/{m}", x.dtype, f"train/{m} of the run", spec.forms[m].dtype)


def to_json(spec: DataSpec) -> dict[str, Any]:
    """The spec as JSON holds it, to the last bit, with a checksum."""
    values = {
        "name": spec.name, "class_names": list(spec.class_names),
        "label": {"dtype": spec.label[0].name, "shape": list(spec.label[1])},
        "modalities": {m: {
            "shape": list(form.shape), "dtype": form.dtype.name,
            "most": None if np.isnan(form.most) else form.most, "whole": form.whole,
            "tokens": spec.num_tokens.get(m, 0), "vocabulary": list(spec.vocabularies.get(m, ())),
            "mean": _numbers(spec.norms[m][0]) if m in spec.norms else None,
            "std": _numbers(spec.norms[m][1]) if m in spec.norms else None,
        } for m, form in spec.forms.items()},
        "rows": list(spec.rows), "num_examples": spec.num_examples,
        "stream": spec.stream and {
            "class_names": list(spec.stream.class_names), "label_of": spec.stream.label_of.tolist(),
            "tasks": [{"classes": t.classes.tolist(), "evaluated": t.evaluated.tolist()}
                      for t in spec.stream.tasks]},
        "checksums": spec.checksums,
    } | ({"files": dict(spec.files)} if spec.files else {})     # data of other sources have none
    values |= {"target": spec.target} if spec.target else {}
    return values | {"checksum": _checksum(values)}


def from_json(values: Any) -> DataSpec:
    """The inverse of `to_json`.

    Raises:
      ValueError: it is something else, or its checksum is wrong.
    """
    if not isinstance(values, dict) or values.get("checksum") != _checksum(
            {k: v for k, v in values.items() if k != "checksum"}):
        raise ValueError("its checksum is wrong")
    try:
        return _from_json(values)
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _from_json(values: Mapping[str, Any]) -> DataSpec:
    forms, norms, num_tokens, vocabularies = {}, {}, {}, {}
    for m, value in values["modalities"].items():
        most = np.nan if value["most"] is None else float(value["most"])
        forms[m] = Form(_shape(value["shape"]), _dtype(value["dtype"]), most, bool(value["whole"]))
        if value["mean"] is not None:
            norms[m] = _array(value["mean"]), _array(value["std"])
            if norms[m][0].shape != norms[m][1].shape:
                raise ValueError(f"mean and std of {m} have other shapes")
        if value["tokens"]:
            num_tokens[m] = _count(value["tokens"])
        if value["vocabulary"]:
            vocabularies[m] = _names(value["vocabulary"])
    stream = values["stream"]
    if stream is not None:
        tasks = tuple(Task(np.array(t["classes"], np.int64), np.array(t["evaluated"], np.int64), {})
                      for t in stream["tasks"])
        stream = Stream(tasks, np.array(stream["label_of"], np.int32), _names(stream["class_names"]))
    label = values["label"]
    checksums = {str(split): str(found) for split, found in values["checksums"].items()}
    return DataSpec(str(values["name"]), _names(values["class_names"]),
                    (_dtype(label["dtype"]), _shape(label["shape"])), forms, norms, num_tokens,
                    vocabularies, tuple(map(_count, values["rows"])), _count(values["num_examples"]),
                    stream, checksums, _files(values.get("files", {})), _target(values, forms))


def _target(values: Mapping[str, Any], forms: Mapping[str, Form]) -> str:
    """The target of a segmentation, "" of others; ValueError for one that is no input."""
    target = values.get("target", "")
    if target != "" and target not in forms:
        raise ValueError("its target is no input")
    return target


def _files(values: Mapping[str, Any]) -> dict[str, Any]:
    """How the files of a table were read; ValueError for anything else."""
    if values:
        columns, options = values["columns"], values["options"]
        texts = [*columns, *columns.values(), options["variant"]]
        numbers = [options[name] for name in ("audio_rate", "fps", "short_side")]
        if not all(isinstance(x, str) for x in texts) or not all(isinstance(x, (int, float)) for x in numbers):
            raise ValueError("its files are of other kinds")
    return dict(values)


def _checksum(values: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def _numbers(x: np.ndarray) -> dict[str, Any]:
    """An array as text; float64 and long double as the shortest text that reads back exactly."""
    x = np.asarray(x)
    return {"dtype": "float64" if x.dtype == np.float64 else "longdouble", "shape": list(x.shape),
            "values": " ".join(map(str, x.ravel()))}


def _array(value: Mapping[str, Any]) -> np.ndarray:
    dtype = {"float64": np.float64, "longdouble": np.longdouble}[value["dtype"]]
    x = np.array([dtype(v) for v in value["values"].split()], dtype).reshape(value["shape"])
    if not np.isfinite(x).all():
        raise ValueError("a statistic is not finite")
    return x if x.ndim else x[()]


def _dtype(name: Any) -> np.dtype:
    dtype = np.dtype(str(name))
    if dtype.kind not in "buif":
        raise ValueError(f"{dtype} is not a numeric type")
    return dtype


def _shape(values: Any) -> tuple[int, ...]:
    shape = tuple(map(_count, values))
    if np.prod(shape, dtype=float) > MOST_NUMBERS:
        raise ValueError(f"an example of shape {shape} is too large")
    return shape


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value <= LARGEST:
        raise ValueError(f"{value!r} is not a count")
    return value


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise ValueError("names are not a list of text")
    return tuple(values)
