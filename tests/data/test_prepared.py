import json
import pickle
import shutil

import numpy as np
import pytest
from tensorflow_datasets.core import example_serializer

from jaxmm.data import prepared
from jaxmm.data.prepared import Records, Sound, open_prepared, pack, tfds_features
from jaxmm.errors import UserError
from jaxmm.prepare.run import prepare


@pytest.fixture(name="folder", scope="module")
def make_folder(layouts, tmp_path_factory):
    root = tmp_path_factory.mktemp("iemocap")
    layouts.iemocap(root / "source", clips=1)
    prepare("iemocap", root / "source", root, progress=False, shard_size=3)
    return root / "iemocap/1.1.0"


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_records_are_a_sequence_that_can_be_sent_to_processes(folder):
    records = open_prepared(folder).splits["train"]
    keys = [record["key"] for record in records]
    assert len(records) == len(keys) == 4 and keys == sorted(keys)
    assert records[-1]["key"] == keys[3]
    for index in (4, -5):
        with pytest.raises(IndexError):
            records[index]
    copy = pickle.loads(pickle.dumps(records))[2]
    assert copy["key"] == keys[2] and copy["inputs"]["text"] == f"Well, {keys[2]}."
    np.testing.assert_array_equal(copy["inputs"]["audio"].samples,
                                  records[2]["inputs"]["audio"].samples)


def test_the_folder_of_all_versions_will_do_if_there_is_one(folder, tmp_path):
    assert open_prepared(folder.parent).folder == folder
    shutil.copytree(folder, tmp_path / "a/1.1.0")
    shutil.copytree(folder, tmp_path / "a/2.0.0")
    with pytest.raises(UserError, match="expected a prepared data set, found 1.1.0, 2.0.0"):
        open_prepared(tmp_path / "a")


def test_what_is_missing_is_stored_as_nothing():
    assert pack("text", None) == "" and pack("frames", None) == []
    assert pack("audio", None)["rate"] == 0 and len(pack("audio", None)["samples"]) == 0
    assert pack("features", None)["values"].shape == (0,)
    stored = pack("features", np.arange(6, dtype=np.float32).reshape(2, 3))
    assert stored["shape"].tolist() == [2, 3] and stored["values"].tolist() == list(range(6))
    assert pack("audio", Sound(np.ones(3, np.int16), 8000))["rate"] == 8000


@pytest.mark.parametrize("label, outputs", [(3, 0), (np.array([0.5, -2.0], np.float32), 2),
                                            (np.array([0.25], np.float32), 1)])
def test_records_of_all_kinds_are_read_as_they_were_packed(label, outputs):
    full = {"audio": Sound(np.array([1, -2, 3], np.int16), 8000), "frames": [b"one", b"two"], "flow": [b"a", b"b"],
            "map": [b"map"], "text": "w\u00f6rds", "features": np.arange(6, dtype=np.float32).reshape(2, 3)}
    modalities = {kind: {"kind": kind} for kind in full}
    features = tfds_features(modalities, outputs)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())

    def serialized(number, values):
        record = {"id": number, "key": "k\u00e4y", "label": label,
                  "present": {m: value is not None for m, value in values.items()},
                  "inputs": {m: pack(m, value) for m, value in values.items()}}
        return serializer.get_tf_example(features.encode_example(record)).SerializeToString(deterministic=True)

    records = Records("here", [serialized(0, full), serialized(1, dict.fromkeys(full))], modalities)
    for number, record in enumerate(records):
        assert (record["id"], record["key"]) == (number, "k\u00e4y")
        assert set(record["present"].values()) == {number == 0}
        np.testing.assert_array_equal(record["label"], label)
        assert np.asarray(record["label"]).dtype == (np.float32 if outputs else np.int64)
    found, empty = (record["inputs"] for record in records)
    np.testing.assert_array_equal(found["audio"].samples, full["audio"].samples)
    assert found["audio"].samples.dtype == np.int16 and found["audio"].rate == 8000
    np.testing.assert_array_equal(found["features"], full["features"])
    assert all(found[m] == full[m] for m in ("frames", "flow", "map", "text"))
    assert empty["audio"].samples.size == 0 and empty["audio"].rate == 0 and empty["features"].size == 0
    assert empty["text"] == "" and all(empty[m] == [] for m in ("frames", "flow", "map"))


@pytest.mark.parametrize("file, change", [
    ("summary.json", lambda data: data[:100]), ("summary.json", lambda data: b"[]"),
    ("summary.json", lambda data: data.replace(b'"shards"', b'"shreds"')),
    ("dataset_info.json", None), ("dataset_info.json", lambda data: b"{}"),
    ("features.json", None), ("features.json", lambda data: data[:20]),
    ("iemocap-train.array_record-00001-of-00002", None),
    ("iemocap-train.array_record-00001-of-00002", lambda data: data[:-1])])
def test_damage_is_said_in_one_line(file, change, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "1.1.0")
    data = (copy / file).read_bytes()
    if change:
        (copy / file).write_bytes(change(data))
    else:
        (copy / file).unlink()
    with pytest.raises(UserError, match="prepare (it|the data set) again") as error:
        open_prepared(copy)
    assert "\n" not in str(error.value) and str(copy) in str(error.value)


def test_a_flipped_bit_is_found_before_or_when_it_is_read(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "1.1.0")
    (name, _), *_ = json.loads((copy / "summary.json").read_text())["shards"].items()
    records = open_prepared(copy).splits["train"]
    whole = (copy / name).read_bytes()
    for at in (whole.index(b"Well, Ses01F"), len(whole) // 2, len(whole) - 1):     # padding, too
        data = bytearray(whole)
        data[at] ^= 1
        (copy / name).write_bytes(bytes(data))
        with pytest.raises(UserError, match=f"{name} is not the file that was written, by its checksum"):
            open_prepared(copy)
        if data[at] ^ 1 == ord("W"):        # of a data set that was opened before
            with pytest.raises(UserError, match="train: record 0 is damaged .*; prepare the data set"):
                records[0]      # pylint: disable=pointless-statement


def test_checksums_are_compared_once_for_a_file_as_it_is(folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "1.1.0")
    read, checksum = [], prepared.checksum
    monkeypatch.setattr(prepared, "checksum", lambda path: (read.append(path.name), checksum(path))[1])
    shards = json.loads((copy / "summary.json").read_text())["shards"]
    for expected in (sorted(shards), []):
        open_prepared(copy)
        assert sorted(set(read) - {*prepared.DESCRIPTION}) == expected
        read.clear()
    open_prepared(folder)                   # written by this machine
    assert set(read) == {*prepared.DESCRIPTION}
    read.clear()
    first, second = sorted(shards)[-2:]     # of one size: train shards that have changed places
    a, b = ((copy / name).read_bytes() for name in (first, second))
    (copy / first).write_bytes(b)
    (copy / second).write_bytes(a)
    assert len(a) == len(b)
    with pytest.raises(UserError, match="is not the file that was written, by its checksum"):
        open_prepared(copy)


@pytest.mark.parametrize("key, value", [
    ("name", 3), ("name", None), ("class_names", "abc"), ("class_names", ["a", "a"]), ("class_names", [1]),
    ("class_names", None), ("modalities", []), ("modalities", {}), ("modalities", {"audio": "audio"}),
    ("modalities", {"audio": {"kind": "smell"}}), ("modalities", {"audio": {"kind": ["audio"]}}),
    ("modalities", {"audio": {"kind": "features", "spectrogram": 1, "shape": [1]}}),
    ("modalities", {"audio": {"kind": "features", "spectrogram": {}, "shape": [-1]}}),
    ("modalities", {"audio": {"kind": "features", "spectrogram": {}}}),
    ("shards", []), ("shards", {}), ("shards", {"../a": {"size": 1, "sha256": ""}}), ("shards", {"a": 3}),
    ("shards", {"a": {"size": "1", "sha256": ""}}), ("shards", {"a": {"size": 1, "sha256": None}}),
    ("files", ["features.json"]), ("files", {"/etc/passwd": "0"}), ("files", {"features.json": "0"})])
def test_summaries_of_any_types_end_in_one_line(key, value, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "1.1.0")
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {key: value}))
    with pytest.raises(UserError, match="the prepared data set is damaged .*; prepare it again") as error:
        open_prepared(copy)
    assert "\n" not in str(error.value)
