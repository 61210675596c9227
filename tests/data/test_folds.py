"""Every row is tested once, classes keep their shares, groups stay whole."""
import dataclasses

import numpy as np
import pytest

from jaxmm import data
from jaxmm.batch import make_batch
from jaxmm.config import DataConfig, StreamConfig
from jaxmm.data import folds
from jaxmm.data.rows import Rows, join, select
from jaxmm.data.streams import make_stream
from jaxmm.errors import UserError


def write(path, label, group=None, **more):
    """An .npz file with train alone, whose modality holds the number of each row."""
    rows = np.arange(len(label), dtype=np.float32)
    arrays = {"train/x": np.stack([rows, -rows], 1), "train/label": label} | more
    np.savez(path, **arrays | ({} if group is None else {"train/group": group}))
    return DataConfig(name="arrays", path=str(path), folds=5)


def rows_of(batch):
    return batch["inputs"]["x"][:, 0].astype(int)


@pytest.mark.parametrize("label", [
    np.arange(40) % 4, np.array([["cat", "dog"][i % 5 == 0] for i in range(40)]),
    np.arange(40)[:, None] % [2, 4] == 0, np.linspace(0, 1, 40)], ids=["classes", "words", "multilabel", "numbers"])
def test_five_folds_test_every_row_once_with_the_shares_of_the_classes(label, tmp_path):
    config = write(tmp_path / "a.npz", label)
    load, tested = data.load_folds(config), []
    for fold in range(5):
        splits = load(fold).splits
        parts = {split: rows_of(batch) for split, batch in splits.items()}
        assert sorted(np.concatenate([*parts.values()])) == list(range(40))
        tested += list(parts["test"])
        assert splits["test"]["id"].tolist() == parts["test"].tolist()      # places in the file
        if label.dtype.kind != "f":
            _, counts = np.unique(label[parts["test"]], axis=0, return_counts=True)
            _, whole = np.unique(label, axis=0, return_counts=True)
            np.testing.assert_allclose(counts, whole / 5, atol=0.9)
    assert sorted(tested) == list(range(40))
    again = rows_of(data.load(dataclasses.replace(config, fold=4)).splits["test"])
    other = rows_of(data.load(dataclasses.replace(config, fold=4, seed=1)).splits["test"])
    assert again.tolist() == tested[-8:] != other.tolist()


@pytest.mark.parametrize("group", [np.arange(60) // 3, np.array([f"speaker {i // 4}" for i in range(60)])])
def test_groups_are_never_divided_nor_by_validation(group, tmp_path):
    config, tested = write(tmp_path / "a.npz", np.arange(60) % 2, group), []
    for fold in range(5):
        splits = data.load(dataclasses.replace(config, fold=fold)).splits
        found = [set(group[rows_of(batch)]) for batch in splits.values()]
        assert all(found) and sum(map(len, found)) == len(set.union(*found)) == len(set(group))
        tested += list(rows_of(splits["test"]))
    assert sorted(tested) == list(range(60))


def test_validation_of_data_with_a_test_split_keeps_groups_whole(tmp_path):
    group = np.arange(60) // 3
    config = write(tmp_path / "a.npz", np.arange(60) % 2, group,
                   **{"test/x": np.zeros((4, 2), np.float32), "test/label": np.arange(4) % 2})
    splits = data.load(dataclasses.replace(config, folds=0)).splits
    held = set(group[rows_of(splits["val"])])
    assert held and not held & set(group[rows_of(splits["train"])])


def test_groups_of_all_splits_make_a_stream(tmp_path):
    """Of speakers in every split; without validation groups it is said what is missing."""
    more = {f"{split}/{name}": x for split in ("val", "test") for name, x in (
        ("x", np.zeros((4, 2), np.float32)), ("label", np.arange(4) % 2), ("group", np.array(["b", "a", "b", "a"])))}
    config = dataclasses.replace(write(tmp_path / "a.npz", np.arange(12) % 2, np.repeat(["a", "b"], 6), **more), folds=0)
    dataset = data.load(config)
    assert {split: x.tolist() for split, x in dataset.groups.items()} == {
        "train": ["a"] * 6 + ["b"] * 6, "val": ["b", "a", "b", "a"], "test": ["b", "a", "b", "a"]}
    _, stream = make_stream(StreamConfig(kind="group", num_tasks=2, order="sorted"), dataset)
    assert [task.indices["val"].tolist() for task in stream.tasks] == [[1, 3], [0, 2]]
    for lost, message in (({"val/group"}, "test/group is not used; .* add the others"),
                          ({"val/x", "val/label"}, "val/group has 4 rows, val/label 0")):
        with pytest.raises(UserError, match=message):
            data.load(dataclasses.replace(write(tmp_path / "b.npz", np.arange(12) % 2, np.repeat(["a", "b"], 6), **{
                name: x for name, x in more.items() if name not in lost}), folds=0))


@pytest.mark.parametrize("change, message", [
    ({"folds": 1}, "data.folds=1; expected 2 to 1000"),
    ({"fold": 5}, "data.fold=5; expected 0 to 4, as data.folds=5"),
    ({"folds": 0, "fold": 2}, "data.folds=0; expected 2"),
    ({"folds": 0}, "no test split; expected test/MODALITY and test/label, or --config.data.folds=K"),
    ({"folds": 13}, "has 12 rows, too few for 13 parts; add some, or lower data.folds"),
    ({"name": "av_digits", "path": ""}, "av_digits has a test split"),
], ids=str)
def test_folds_that_cannot_be_are_refused(change, message, tmp_path):
    config = write(tmp_path / "a.npz", np.arange(12) % 2)
    with pytest.raises(UserError, match=message):
        data.load(dataclasses.replace(config, **change))


@pytest.mark.parametrize("more, message", [
    ({"test/x": np.zeros((2, 2)), "test/label": [0, 1]}, "has the splits train, test; data.folds=5 needs all rows"),
    ({"train/group": np.arange(11)}, "train/group has 11 rows, train/label 12"),
    ({"train/group": np.arange(12.0)}, "train/group is float64; expected whole numbers or text"),
    ({"train/group": np.arange(12) % 4}, "has 4 groups, too few for 5 parts"),
    ({"val/group": np.arange(12)}, "val/group is not used; groups are those of train/group, or of all"),
])
def test_files_that_folds_do_not_fit_are_refused(more, message, tmp_path):
    with pytest.raises(UserError, match=message):
        data.load(write(tmp_path / "a.npz", np.arange(12) % 2, **more))


def test_classes_with_fewer_rows_than_folds_are_said(caplog):
    folds.assign("few", np.array([0] * 10 + [1] * 3), None, 5, 0)
    assert "few: 1 classes have fewer rows than the 5 parts" in caplog.text


def read_double(record, position):
    return np.array([2 * record, position], np.float32)


def test_rows_of_several_splits_are_read_as_each_would_be():
    first = make_batch({"x": Rows([1, 2, 3], read_double, (2,), np.float32, 7)}, np.arange(3))
    second = make_batch({"x": np.array([[8, 9]], np.float32)}, np.array([5]))
    both = join([first, select(first, np.array([2, 0])), second])
    rows = [[2, 0], [4, 1], [6, 2], [6, 2], [2, 0], [8, 9]]
    np.testing.assert_array_equal(both["inputs"]["x"][np.arange(6)], rows)
    np.testing.assert_array_equal(select(both, np.array([5, 3]))["inputs"]["x"][np.arange(2)], [[8, 9], [6, 2]])
    assert (both["label"].tolist(), both["id"].tolist()) == ([0, 1, 2, 2, 0, 5], list(range(6)))
    other = second | {"inputs": {"x": np.array([[8, 7]], np.float32)}}
    assert join([first, other])["inputs"]["x"].checksum != join([first, second])["inputs"]["x"].checksum
