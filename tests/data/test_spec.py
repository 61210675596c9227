"""What a run keeps of its data, to the last bit."""
import json

import chex
import numpy as np
import pytest

from jaxmm import files
from jaxmm.batch import make_batch
from jaxmm.config import StreamConfig
from jaxmm.data import spec as spec_lib
from jaxmm.data.dataset import Dataset, Form, fingerprint
from jaxmm.data.streams import make_stream
from jaxmm.errors import UserError


def describe(dataset, stream=None, tasks=None):
    tasks = [np.arange(len(dataset.splits["train"]["label"]))] if tasks is None else tasks
    return spec_lib.make_spec(dataset, stream, tasks, fingerprint(dataset), {})


@pytest.fixture(name="dataset")
def make_mixed():
    """Statistics in float64 and long double, bytes, texts, a mask."""
    rng = np.random.default_rng(0)
    inputs = {"float": 1e7 + rng.random((9, 3)), "large": 2**60 + rng.integers(0, 9, (9, 2)),
              "bytes": rng.integers(0, 256, (9, 4, 4, 3)).astype(np.uint8),
              "text": rng.integers(0, 5, (9, 6)).astype(np.int32)}
    batch = make_batch(inputs, np.arange(9) % 3, ids=np.arange(9) * 2, present={"float": np.arange(9) > 2})
    return Dataset("mixed", {s: batch for s in ("train", "val", "test")}, ("a", "b", "ü"), {"text": 5},
                   {"text": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "ß")})


def test_a_spec_is_read_as_it_was_written(dataset):
    spec = describe(dataset)
    read = spec_lib.from_json(files.parse_json(json.dumps(spec_lib.to_json(spec))))
    assert set(spec.norms) == {"float", "large", "bytes", "text"}
    for m, (mean, std) in spec.norms.items():
        assert read.norms[m][0].dtype == mean.dtype
        np.testing.assert_array_equal(read.norms[m][0], mean)
        np.testing.assert_array_equal(read.norms[m][1], std)
    assert spec.norms["large"][0].dtype == np.longdouble
    assert read._replace(norms={}) == spec._replace(norms={})
    assert read.forms["bytes"] == Form((4, 4, 3), np.dtype(np.uint8), float(
        dataset.splits["train"]["inputs"]["bytes"].max()), True)
    assert read.num_examples == 17 and read.rows == (9,) and read.modalities == (
        "bytes", "float", "large", "text")
    assert read.checksum == spec.checksum


def test_the_checksum_is_of_what_decides_predictions(dataset):
    spec = describe(dataset)
    assert spec._replace(name="moved", checksums={}).checksum == spec.checksum
    mean, std = spec.norms["float"]
    other = [spec._replace(norms=dict(spec.norms) | {"float": (mean, np.nextafter(std, 9))}),
             spec._replace(class_names=("b", "a", "ü")),
             spec._replace(vocabularies={"text": tuple(reversed(spec.vocabularies["text"]))})]
    assert len({s.checksum for s in [spec, *other]}) == 4


def test_the_stream_of_a_run_is_kept(make_dataset):
    config = StreamConfig(kind="class", num_tasks=2)
    dataset, stream = make_stream(config, make_dataset())
    spec = describe(dataset, stream, [task.indices["train"] for task in stream.tasks])
    read = spec_lib.from_json(spec_lib.to_json(spec))
    chex.assert_trees_all_equal(read.stream.label_of, stream.label_of)
    for a, b in zip(read.stream.tasks, stream.tasks, strict=True):
        np.testing.assert_array_equal(a.classes, b.classes)
        assert a.indices == {}
    assert read.rows == tuple(len(task.indices["train"]) for task in stream.tasks)
    other = make_stream(StreamConfig(kind="class", num_tasks=2, seed=1), make_dataset())[1]
    assert other.tasks[0].classes.tolist() != stream.tasks[0].classes.tolist()
    with pytest.raises(UserError, match="it has the classes in task 1"):
        spec_lib.check_same_form(read, dataset, other)


@pytest.mark.parametrize("label", [np.linspace(0, 1, 9), np.arange(18).reshape(9, 2) % 3 == 0])
def test_what_is_predicted_is_kept(dataset, label):
    batch = make_batch(dataset.splits["train"]["inputs"], label)
    columns = batch["label"].shape[1]
    other = dataset._replace(splits={"train": batch}, class_names=tuple("xy"[:columns]))
    spec = spec_lib.from_json(spec_lib.to_json(describe(other)))
    assert spec.label == (batch["label"].dtype, (columns,)) and spec.class_names == other.class_names
    like = spec_lib.example(spec)["label"]
    assert like.dtype == batch["label"].dtype and like.shape == (2, columns)
    spec_lib.check_same_form(spec, other, None)
    kind = "regression" if label.dtype == float else "multilabel"
    with pytest.raises(UserError, match=f"it has the task classification, the run {kind};"):
        spec_lib.check_same_form(spec, dataset, None)


@pytest.mark.parametrize("change", [
    lambda v: v.pop("rows"), lambda v: v["modalities"]["float"].update(shape=[10**6] * 4),
    lambda v: v["modalities"]["float"].update(shape=[-1]), lambda v: v.update(modalities=3),
    lambda v: v["modalities"]["float"].update(dtype="O"), lambda v: v.update(class_names="abc"),
    lambda v: v["modalities"]["float"]["std"].update(shape=[2]), lambda v: v.update(num_examples=True),
    lambda v: v["modalities"]["float"]["mean"].update(values="nan nan nan")])
def test_what_is_no_spec_is_refused(dataset, change):
    values = spec_lib.to_json(describe(dataset))
    change(values)
    with pytest.raises(ValueError, match="checksum is wrong"):
        spec_lib.from_json(values)
    del values["checksum"]
    with pytest.raises(ValueError, match="(?!checksum)"):
        spec_lib.from_json(values | {"checksum": spec_lib._checksum(values)})


def test_splits_that_are_not_there_say_so(dataset):
    gone = spec_lib.absent(describe(dataset), "FILE is gone")
    assert not gone.splits and gone.num_classes == 3
    with pytest.raises(UserError, match="FILE is gone"):
        gone.splits["test"]
