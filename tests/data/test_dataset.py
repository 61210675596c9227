from types import SimpleNamespace

import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.data.dataset import fingerprint, statistics
from jaxmm.data.rows import Rows

ALL = ["train", "val", "test"]


def test_statistics_by_rank():
    """Vectors by feature, channels by channel, matrices and all else as one."""
    rng = np.random.default_rng(0)
    inputs = {"vector": rng.normal(3, 2, size=(50, 4)), "matrix": rng.normal(size=(50, 3, 5)),
              "image": rng.integers(0, 255, (50, 3, 5, 2)).astype(np.uint8),
              "frames": rng.normal(size=(50, 2, 3, 5, 2)), "constant": np.ones((50, 2))}
    found = statistics(make_batch(inputs, np.zeros(50)))
    axes = {"vector": 0, "matrix": None, "image": (0, 1, 2), "frames": (0, 1, 2, 3)}
    for m, axis in axes.items():
        mean, std = found[m]
        np.testing.assert_allclose(mean, inputs[m].astype(float).mean(axis), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(std, inputs[m].astype(float).std(axis), rtol=1e-5)
    np.testing.assert_array_equal(found["constant"][1], 1)


def test_missing_rows_do_not_count():
    x = np.array([[1.0], [3.0], [np.nan]])
    batch = make_batch({"sound": x}, np.zeros(3), present={"sound": [True, True, False]})
    mean, std = statistics(batch)["sound"]
    np.testing.assert_allclose([mean[0], std[0]], [2, 1])


def change(path, value):
    """A change of one array of the test split, at `path`."""
    def apply(dataset):
        *sections, name = path.split("/")
        part = test = dataset.splits["test"] | {
            "inputs": dict(dataset.splits["test"]["inputs"]),
            "present": dict(dataset.splits["test"]["present"])}
        for section in sections:
            part = part[section]
        part[name] = value(part[name])
        return dataset._replace(splits=dataset.splits | {"test": test}), ()
    return apply


def other_first(x):
    x = x.copy()
    x.flat[0] = 1 - x.flat[0]
    return x


def rename(dataset):
    names = {"sound": "music", "image": "image"}
    splits = {split: batch | {part: {names[m]: x for m, x in batch[part].items()}
                              for part in ("inputs", "present")}
              for split, batch in dataset.splits.items()}
    return dataset._replace(splits=splits), ()


def rows(checksum, positions):
    return Rows(range(40), None, (3,), np.float32, checksum, np.arange(16) + positions)


@pytest.mark.parametrize("apply, expected", [
    (lambda dataset: (dataset, ()), []),
    (change("inputs/sound", other_first), ["test"]),
    (change("label", other_first), ["test"]),
    (change("id", other_first), ["test"]),
    (change("present/image", lambda x: ~x), ["test"]),
    (change("inputs/sound", lambda x: x.reshape(16, 3, 1)), ["test"]),
    (change("inputs/sound", lambda x: x.view(np.int32)), ["test"]),
    (rename, ALL),
    (lambda dataset: (dataset._replace(class_names=("a", "b", "c")), ()), ALL),
    (lambda dataset: (dataset._replace(num_tokens={"sound": 9}), ()), ALL),
    (lambda dataset: (dataset, [SimpleNamespace(indices={
        "train": np.arange(2), "val": np.arange(0), "test": np.arange(0)})]), ALL)])
def test_fingerprints_tell_what_has_changed(apply, expected, make_dataset):
    before = fingerprint(make_dataset())
    after = fingerprint(*apply(make_dataset()))
    assert list(before) == ALL and [s for s in ALL if before[s] != after[s]] == expected


def test_fingerprints_of_rows_follow_what_they_hold_and_which_they_are(make_dataset):
    prints = [fingerprint(change("inputs/sound", lambda _, made=made: made)(make_dataset())[0])["test"]
              for made in (rows(1, 0), rows(1, 0), rows(2, 0), rows(1, 4))]
    assert prints[0] == prints[1] and len(set(prints)) == 3
