from types import SimpleNamespace

import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import DataConfig
from jaxmm.data.dataset import (Dataset, by_number, check_dataset, fingerprint, say, shares,
                                split_train, statistics)
from jaxmm.data.rows import Rows
from jaxmm.errors import UserError

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


def test_fingerprints_without_masks_follow_all_else(make_dataset):
    before, expected = fingerprint(make_dataset(), masks=False), {"present/image": [], "label": ["test"]}
    for part, changed in expected.items():
        after = fingerprint(*change(part, lambda x: 1 - x)(make_dataset()), masks=False)
        assert [s for s in ALL if before[s] != after[s]] == changed


def test_fingerprints_of_rows_follow_what_they_hold_and_which_they_are(make_dataset):
    prints = [fingerprint(change("inputs/sound", lambda _, made=made: made)(make_dataset())[0])["test"]
              for made in (rows(1, 0), rows(1, 0), rows(2, 0), rows(1, 4))]
    assert prints[0] == prints[1] and len(set(prints)) == 3


@pytest.mark.parametrize("values, constant", [
    (np.float32([1e-9, 2e-9]), False), (np.float32([0.1, np.nextafter(np.float32(0.1), 1)]), True),
    (np.float64([1.7e9, 1.7e9 + 1]), False), (np.float64([0.1, np.nextafter(0.1, 1)]), True),
    (np.float64([0.1, 0.1]), True), (np.int64([2**60, 2**60 + 1]), False),
    (np.uint8([255, 255]), True), (np.float16([2000, 2000]), True), (np.float16([2000, 2001]), False),
])
def test_constant_is_what_differs_by_no_more_than_rounding(values, constant, caplog):
    batch = make_batch({"m": np.repeat(values, 300)[:, None]}, np.zeros(600))
    mean, std = statistics(batch)["m"]
    wide = values.astype(np.longdouble)
    np.testing.assert_allclose(np.longdouble(mean[0]) - wide[0], wide.mean() - wide[0], rtol=1e-6,
                               atol=np.spacing(mean[0]))
    np.testing.assert_allclose(std, [1 if constant else wide.std()], rtol=1e-6)
    assert ("train/m: 1 of 1 features are constant (0)" in caplog.text) == constant


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_numbers_whose_squares_do_not_fit_are_refused(scale):
    with pytest.raises(UserError, match="train/m holds numbers that are too large or too close"):
        statistics(make_batch({"m": scale * np.arange(4.0)[:, None]}, np.zeros(4)))


@pytest.fixture(autouse=True)
def forget_what_was_said():
    say.cache_clear()


def make(train, test=None, label=(0, 1, 0, 1), names=("a", "b"), test_label=(0, 1, 0, 1)):
    splits = {s: make_batch({"m": np.asarray(x)}, l) for s, x, l in (
        ("train", train, label), ("test", train if test is None else test, test_label))}
    return Dataset("d", splits, names)


BYTES = np.arange(0, 256, 4).reshape(4, 4, 4)


@pytest.mark.parametrize("train, test, message", [
    (BYTES.astype(np.uint8), BYTES / 255, "test/m reaches 0.988.*train/m 252.* fractions, the other bytes"),
    (BYTES / 255, BYTES.astype(np.float32), "test/m reaches 252"),
    (BYTES.astype(np.float32), BYTES / 127.5 - 1, "one holds fractions, the other bytes"),
    (BYTES.astype(np.uint8), BYTES.astype(float), "test/m holds floats \\(float64\\), train/m integers"),
    (BYTES.astype(np.uint8), BYTES > 9, "test/m holds bools"),
])
def test_splits_of_another_type_or_scale_are_refused(train, test, message):
    with pytest.raises(UserError, match=message):
        check_dataset(make(train, test))


@pytest.mark.parametrize("dataset, said", [
    (make(np.ones((4, 2)), np.full((4, 2), 60.0)), "test/m reaches 60, train/m 1; if only one"),
    (make(np.ones((4, 3, 8, 8))), "read as [rows, height, width, channels]: images of 8 channels"),
    (make(np.ones((4, 5, 3, 8, 8))), "images of 8 channels"),
    (make(np.ones((4, 3, 5, 8, 8))), "images of 8 channels"),
    (make(np.ones((4, 8, 8, 3))), ""), (make(np.ones((4, 3, 8, 8, 3))), ""), (make(np.ones((4, 3, 8))), ""),
    (make(np.ones((4, 2)), names=("a", "b", "c", "e"), test_label=(0, 1, 2, 2)),
     "2 of 4 classes have no training example: c, e; 2 rows of test are of such classes"),
    (make(np.ones((4, 2)), names=("Cat", "cat ")), "'Cat', 'cat ' are classes of their own"),
    (make(np.ones((4, 2)), label=[0] * 4, names=("a",), test_label=[0] * 4), "one class, 'a'"),
    (make(np.ones((4, 2))), ""),
])
def test_what_is_doubtful_is_said_once(dataset, said, caplog):
    for _ in range(2):
        assert check_dataset(dataset) is dataset
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(said)
    assert not said or said in lines[0]


def test_a_modality_that_no_row_of_train_has_is_said(caplog):
    splits = {s: make_batch({"m": np.ones((2, 1)), "n": np.ones((2, 1))}, [0, 1],
                            present={"n": [s == "test"] * 2}) for s in ("train", "test")}
    check_dataset(Dataset("d", splits, ("a", "b")))
    assert "no row of train has n" in caplog.text


@pytest.mark.parametrize("changes, message", [
    (dict(names=("a", "a")), "class_names holds 'a' twice"), (dict(names=("a", "")), "holds '' as a name"),
    (dict(names=("a",)), "values from 0 to 1; expected class numbers from 0 to 0"),
    (dict(test=np.ones((4, 3))), "test/m has rows of shape"),
    (dict(train=np.ones((4, 0))), "train/m is float64"),
    (dict(train=np.ones(4)), "at least two axes"),
    (dict(test=np.array([[1, 1], [1, np.inf], [1, 1], [1, 1]])),
     "test/m has values that are not finite.*row 1"),
])
def test_data_sets_from_python_are_checked(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        check_dataset(make(**{"train": np.ones((4, 2))} | changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change, message", [
    (lambda b: b["inputs"].update(m=np.ones((3, 2))), "train/m has 3 rows.*train/label has 4"),
    (lambda b: b["inputs"].update(m=np.ones((4, 2), complex)), "train/m is complex128"),
    (lambda b: b["inputs"].update(m=[[1, 2]] * 4), "train is not a batch.*make_batch"),
    (lambda b: b.update(label=np.arange(4.0)), "labels of float64"),
    (lambda b: b.update(label={"m": np.arange(4)}), "train is not a batch.*make_batch"),
    (lambda b: b["present"].update(m=np.ones(4)), "masks of float64"),
    (lambda b: b.pop("present"), "train is not a batch \\(KeyError: 'present'\\)"),
    (lambda b: b.update(present={}), "train has the modalities \\[\\]"),
])
def test_batches_made_by_hand_are_checked(change, message):
    dataset = make(np.ones((4, 2)))
    change(dataset.splits["train"])
    with pytest.raises(UserError, match=message):
        check_dataset(dataset)


def test_a_data_set_without_training_data():
    with pytest.raises(UserError, match="d has no train split; found \\['test'\\]"):
        check_dataset(Dataset("d", {"test": make(np.ones((4, 2))).splits["test"]}, ("a", "b")))


@pytest.mark.parametrize("seed", range(3))
def test_a_slice_of_train_has_every_class_in_proportion(seed):
    label = np.repeat([0, 1, 2, 4], [60, 30, 2, 1])
    train = make_batch({"m": np.arange(93)[:, None]}, np.random.default_rng(seed).permutation(label))
    parts = split_train("f", train, DataConfig(val_fraction=0.2, seed=seed))
    np.testing.assert_array_equal(np.bincount(parts["val"]["label"]), [12, 6, 1])
    np.testing.assert_array_equal(np.bincount(parts["train"]["label"]), [48, 24, 1, 0, 1])
    rows = {s: part["inputs"]["m"][:, 0] for s, part in parts.items()}
    np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(93))
    for split, part in parts.items():
        assert (np.diff(rows[split]) > 0).all()
        np.testing.assert_array_equal(part["label"], train["label"][rows[split]])
        np.testing.assert_array_equal(part["id"], np.arange(len(rows[split])))
    again = split_train("f", train, DataConfig(val_fraction=0.2, seed=seed))
    np.testing.assert_array_equal(again["val"]["inputs"]["m"][:, 0], rows["val"])
    other = split_train("f", train, DataConfig(val_fraction=0.2, seed=seed + 9))
    assert not np.array_equal(other["val"]["inputs"]["m"][:, 0], rows["val"])


@pytest.mark.parametrize("counts, fraction, total, expected", [
    ([10, 10, 10], 0.1, 3, [1, 1, 1]), ([5, 5, 5], 0.5, 8, [3, 3, 2]), ([2, 1, 3], 0.9, 5, [1, 0, 2]),
    ([100, 2, 2], 0.01, 1, [1, 1, 1]), ([7, 7, 6], 0.25, 5, [2, 2, 1]),
])
def test_shares_of_classes(counts, fraction, total, expected):
    assert shares(np.array(counts), fraction, total).tolist() == expected


def test_numbers_sort_as_numbers():
    assert sorted(["b", "10", "a", "9.5", "-1", "nan"], key=by_number) == ["-1", "9.5", "10", "a", "b", "nan"]


@pytest.mark.parametrize("name", ["../../x", "a/b", "", " ", "a\nb", "\x1b[2J", "\udcff", "label"])
def test_modalities_have_names_that_stay_names(name, make_dataset):
    """They are parts of folders, of arrays in checkpoints and of options."""
    with pytest.raises(UserError, match="a modality (may not be|is) called") as error:
        check_dataset(make_dataset({name: (3,), "image": (2,)}))
    assert repr(name) in str(error.value)
    check_dataset(make_dataset({"$\\frac{$": (3,), "mel (16 kHz)|`x`": (2,), "..": (2,)}))
