"""Streams of tasks: who gets which class and which example."""
import json

import numpy as np
import pytest

from jaxmm.data import streams
from jaxmm.errors import UserError

COARSE = {0: "b", 1: "a", 2: "b", 3: "a", 4: "a", 5: "b"}


def labels_of(num_classes, size, seed=0):
    """`size` shuffled labels, every class at least once."""
    rng = np.random.default_rng(seed)
    extra = rng.integers(0, num_classes, size - num_classes)
    return rng.permutation(np.concatenate([np.arange(num_classes), extra])).astype(np.int32)


def assert_partition(arrays, size):
    """Every number below `size` is in exactly one of the arrays."""
    np.testing.assert_array_equal(np.sort(np.concatenate(arrays)), np.arange(size))


def train(stream):
    return [task.indices["train"] for task in stream.tasks]


def as_text(stream):
    return json.dumps(streams.to_json(stream))


def test_class_incremental_by_hand():
    labels = np.array([2, 0, 1, 1, 2, 0, 3])
    stream = streams.class_incremental(labels, 2, seed=0)
    assert_partition([task.classes for task in stream.tasks], 4)
    for task in stream.tasks:
        assert len(task.classes) == 2
        expected = [i for i, label in enumerate(labels) if label in task.classes]
        np.testing.assert_array_equal(task.indices["train"], expected)
        np.testing.assert_array_equal(task.evaluated, task.classes)
        assert task.indices["train"].dtype == np.int64


GROUPS = {"train": np.array(["ann", "bob", "cy", "bob", "ann"]), "test": np.array(["cy", "ann", "bob"])}
GROUPED = {"train": np.array([0, 1, 2, 0, 1]), "test": np.array([2, 0, 1])}


def test_groups_are_tasks_of_their_own_examples():
    stream = streams.group_incremental(GROUPED, GROUPS, 3, None)
    assert [task.groups for task in stream.tasks] == [("ann",), ("bob",), ("cy",)]
    assert [{split: x.tolist() for split, x in task.indices.items()} for task in stream.tasks] == [
        {"train": [0, 4], "test": [1]}, {"train": [1, 3], "test": [2]}, {"train": [2], "test": [0]}]
    assert [task.classes.tolist() for task in stream.tasks] == [[0, 1], [0, 1], [2]]
    assert [task.evaluated.tolist() for task in stream.tasks] == [[0], [1], [2]]
    np.testing.assert_array_equal(streams.relabel(stream, GROUPED["train"]), GROUPED["train"])
    assert "| 1 | ann | a; b | 2 | 1 |" in streams.describe(stream, "abc").splitlines()
    assert json.loads(as_text(stream))["tasks"][1]["groups"] == ["bob"]
    pairs = {streams.group_incremental(GROUPED, GROUPS, 2, seed).tasks[0].groups for seed in range(20)}
    assert pairs == {("ann", "bob"), ("ann", "cy"), ("bob", "cy")}
    for num_tasks, test, message in ((4, GROUPS["test"], "4 tasks cannot share 3 groups"),
                                     (3, np.array(["cy", "ann", "di"]), "groups di of split 'test' have no training"),
                                     (3, np.array(["cy", "ann", "ann"]), "groups bob, has no example in split 'test'")):
        with pytest.raises(UserError, match=message):
            streams.group_incremental(GROUPED, GROUPS | {"test": test}, num_tasks, None)


def test_rows_of_a_balanced_memory():
    """Classes 0 and 1 have four rows in the stream, class 2 one, class 3 none: 3, 3 and 1 of seven."""
    labels = np.array([3, 0, 1, 0, 1, 0, 1, 2, 0, 1, 3])
    rows = np.flatnonzero(labels < 3)
    found = [streams.balanced_rows(labels, rows, 7, seed) for seed in range(20)]
    assert all(np.bincount(labels[x]).tolist() == [3, 3, 1] and (np.diff(x) > 0).all() for x in found)
    assert len({tuple(x) for x in found}) > 5 and set(np.concatenate(found)) == set(rows)
    np.testing.assert_array_equal(found[0], streams.balanced_rows(labels, rows, 7, 0))
    np.testing.assert_array_equal(streams.balanced_rows(labels, rows, 100, 0), rows)
    with pytest.raises(UserError, match="stream.budget=-1; expected at least 1 example"):
        streams.balanced_rows(labels, rows, -1, 0)


def test_class_incremental_uses_every_example_once_in_even_groups():
    stream = streams.class_incremental(labels_of(11, 200), 4, seed=1)
    assert [len(task.classes) for task in stream.tasks] == [3, 3, 3, 2]
    assert_partition([task.classes for task in stream.tasks], 11)
    assert_partition(train(stream), 200)
    np.testing.assert_array_equal(streams.relabel(stream, labels_of(11, 200)), labels_of(11, 200))


def test_class_order_depends_on_the_seed_and_not_on_the_examples():
    few, many = labels_of(10, 30, seed=1), labels_of(10, 200, seed=2)
    orders = set()
    for seed in range(5):
        stream = streams.class_incremental(many, 5, seed)
        assert as_text(stream) == as_text(streams.class_incremental(many, 5, seed))
        orders.add(str([task.classes for task in stream.tasks]))
        for task, other in zip(stream.tasks, streams.class_incremental(few, 5, seed).tasks):
            np.testing.assert_array_equal(task.classes, other.classes)
    assert len(orders) == 5


def test_global_random_state_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    streams.class_incremental(labels_of(4, 20), 2, seed=3)
    streams.generalized_class_incremental(labels_of(4, 20), 2, 5, 3, True, seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_evaluation_examples_have_the_classes_of_the_task():
    test_labels = labels_of(10, 60, seed=5)
    stream = streams.class_incremental(labels_of(10, 200), 3, seed=1)
    stream = streams.add_split(stream, "test", test_labels)
    assert_partition([task.indices["test"] for task in stream.tasks], 60)
    assert_partition(train(stream), 200)
    for task in stream.tasks:
        np.testing.assert_array_equal(np.unique(test_labels[task.indices["test"]]), task.classes)


def test_domain_incremental_brings_new_classes_of_every_category():
    labels = labels_of(6, 50)
    stream = streams.domain_incremental(labels, COARSE, 3, seed=0)
    assert_partition([task.classes for task in stream.tasks], 6)
    assert_partition(train(stream), 50)
    for task in stream.tasks:
        assert sorted(COARSE[c] for c in task.classes) == ["a", "b"]
    # One map for all tasks: "a" is label 0 and "b" is label 1.
    np.testing.assert_array_equal(stream.label_of, [1, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(streams.relabel(stream, np.array([5, 4, 0])), [1, 0, 1])
    for labels_here in streams.task_labels(stream):
        np.testing.assert_array_equal(labels_here, [0, 1])
    orders = {str([t.classes for t in streams.domain_incremental(labels, COARSE, 3, seed).tasks])
              for seed in range(5)}
    assert len(orders) > 1


def test_domain_incremental_evaluates_the_classes_of_the_task():
    test_labels = labels_of(6, 20, seed=4)
    stream = streams.domain_incremental(labels_of(6, 50), COARSE, 2, seed=0)
    stream = streams.add_split(stream, "test", test_labels)
    assert [len(task.classes) for task in stream.tasks] == [4, 2]
    assert_partition([task.indices["test"] for task in stream.tasks], 20)
    for task in stream.tasks:
        np.testing.assert_array_equal(np.unique(test_labels[task.indices["test"]]), task.classes)


def test_generalized_stream_uses_an_example_at_most_once_until_none_is_left():
    labels = labels_of(8, 100)
    stream = streams.generalized_class_incremental(labels, 1000, 15, 4, False, seed=0)
    assert_partition(train(stream), 100)
    assert 100 / 15 <= len(stream.tasks) < 100
    seen = set()
    for task in stream.tasks:
        index = task.indices["train"]
        assert 1 <= len(index) <= 15 and len(task.classes) <= 4
        np.testing.assert_array_equal(np.unique(labels[index]), task.classes)
        seen |= set(task.classes.tolist())
        assert task.evaluated.tolist() == sorted(seen)
    assert as_text(stream) == as_text(
        streams.generalized_class_incremental(labels, 1000, 15, 4, False, seed=0))
    assert as_text(stream) != as_text(
        streams.generalized_class_incremental(labels, 1000, 15, 4, False, seed=1))


def test_generalized_stream_is_evaluated_on_the_classes_seen_so_far():
    test_labels = labels_of(8, 40, seed=2)
    stream = streams.generalized_class_incremental(labels_of(8, 100), 4, 10, 2, False, seed=0)
    stream = streams.add_split(stream, "test", test_labels)
    for task in stream.tasks:
        expected = np.flatnonzero([label in task.evaluated for label in test_labels])
        np.testing.assert_array_equal(task.indices["test"], expected)
        assert len(task.indices["train"]) <= 10


def test_generalized_stream_draws_how_many_classes_uniformly():
    labels = np.repeat(np.arange(10), 20_000)
    stream = streams.generalized_class_incremental(labels, 900, 200, 5, False, seed=0)
    sizes = [len(task.classes) for task in stream.tasks]
    rate = np.bincount(sizes, minlength=6) / 900
    np.testing.assert_allclose(rate, [0, .2, .2, .2, .2, .2], atol=4 * np.sqrt(.2 * .8 / 900))
    assert {len(index) for index in train(stream)} == {200}
    share = np.bincount(np.concatenate([task.classes for task in stream.tasks])) / sum(sizes)
    np.testing.assert_allclose(share, 0.1, atol=4 * np.sqrt(.1 * .9 / sum(sizes)))


@pytest.mark.parametrize("long_tailed, weights", [(False, [1, 1, 1]), (True, [1, .5, .25])])
def test_shares_of_the_classes(long_tailed, weights):
    labels = np.repeat(np.arange(3), 100_000)
    stream = streams.generalized_class_incremental(
        labels, 20, 3000, 3, long_tailed, seed=0, decay=0.5)
    whole = [index for index in train(stream) if len(np.unique(labels[index])) == 3]
    share = np.bincount(labels[np.concatenate(whole)]) / (3000 * len(whole))
    expected = np.array(weights) / sum(weights)
    error = np.sqrt(expected * (1 - expected) / (3000 * len(whole)))
    assert (np.abs(share - expected) < 4 * error).all()


def test_joint_is_one_task():
    stream = streams.joint(np.array([3, 1, 1]))
    (task,) = stream.tasks
    np.testing.assert_array_equal(task.indices["train"], [0, 1, 2])
    np.testing.assert_array_equal(task.classes, [1, 3])
    np.testing.assert_array_equal(stream.label_of, [-1, 1, -1, 3])


def test_description():
    stream = streams.add_split(streams.joint(np.array([1, 0, 1])), "test", np.array([0, 0]))
    assert json.loads(as_text(stream)) == {
        "label_of": [0, 1],
        "tasks": [{"classes": [0, 1], "evaluated": [0, 1], "examples": {"train": 3, "test": 2}}]}
    assert streams.describe(stream, ["cat|dog", "rain, hail"]) == (
        "| task | classes | train | test |\n"
        "|---:|:---|---:|---:|\n"
        "| 1 | cat\\|dog; rain, hail | 3 | 2 |\n")


def test_coarse_map(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text('class,coarse\n"rain, hail",weather\nother,x\ncat,animal\n', "utf-8-sig")
    assert streams.read_coarse_map(path, ["cat", "rain, hail"]) == {0: "animal", 1: "weather"}


@pytest.mark.parametrize("text, message", [
    ("class,group\ncat,animal\n", "columns class, group; expected class and coarse"),
    ("", r"columns \(none\)"),
    ("class,coarse\ndog,animal\n", "no category for cat"),
    ("class,coarse\ncat\n", "no category for cat"),
    ("class,coarse\ncat,animal\ncat,pet\n", "'cat' in 'animal' and in 'pet'"),
    ("class,coarse\ncat,\xff\n", "cannot read"),
    ("class,coarse\ncat, big,animal\n", "line 2 has more than 2 columns; put names with a comma"),
])
def test_bad_coarse_maps(tmp_path, text, message):
    path = tmp_path / "map.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message) as error:
        streams.read_coarse_map(path, ["cat"])
    assert "\n" not in str(error.value)


def test_a_coarse_map_that_comes_with_the_package_is_found_from_anywhere(tmp_path, monkeypatch):
    path = "configs/av_digits_parity.csv"
    names = ("zero", "one", "two")
    here = streams.read_coarse_map(path, names)
    monkeypatch.chdir(tmp_path)
    assert streams.read_coarse_map(path, names) == here
    (tmp_path / "configs").mkdir()
    (tmp_path / path).write_text("class,coarse\nzero,a\none,b\ntwo,b\n")    # one's own is first
    assert streams.read_coarse_map(path, names) == {0: "a", 1: "b", 2: "b"}


def test_blanks_do_not_make_categories_and_numbers_sort_as_numbers(tmp_path, monkeypatch):
    (tmp_path / "map.csv").write_text('class , coarse\na,10\nb, 10 \nc,9\n"d, e", 9\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    coarse = streams.read_coarse_map("~/map.csv", ["a", "b", "c", "d, e"])
    assert coarse == {0: "10", 1: "10", 2: "9", 3: "9"}
    assert streams.domain_incremental(np.arange(4), coarse, 2, 0).label_of.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("labels", [[0, -1], [0, 10**9]])
def test_labels_that_are_no_class_numbers(labels):
    with pytest.raises(UserError, match="class numbers from 0 to 999999"):
        streams.class_incremental(np.array(labels), 1, 0)


def test_no_coarse_map():
    with pytest.raises(UserError, match="stream.coarse is empty"):
        streams.read_coarse_map("", ["cat"])


def test_missing_coarse_map(tmp_path):
    with pytest.raises(UserError, match="cannot read the coarse map .*nothing.csv"):
        streams.read_coarse_map(tmp_path / "nothing.csv", ["cat"])


@pytest.mark.parametrize("make, message", [
    (lambda x: streams.class_incremental(x, 4, 0), "4 tasks cannot share 3 classes"),
    (lambda x: streams.class_incremental(x, 0, 0), "expected 1 to 3 tasks"),
    (lambda x: streams.domain_incremental(x, {0: "a", 1: "b"}, 1, 0), "classes 2 have no coarse"),
    (lambda x: streams.domain_incremental(x, {0: "a", 1: "a", 2: "b"}, 2, 0), "category 'b'"),
    (lambda x: streams.domain_incremental(x, COARSE | {6: "a", 7: "b"}, 4, 0), "no example in"),
    (lambda x: streams.generalized_class_incremental(x, 0, 1, 1, False, 0), "num_phases is 0"),
    (lambda x: streams.generalized_class_incremental(x, 1, 0, 1, False, 0), "phase_size is 0"),
    (lambda x: streams.generalized_class_incremental(x, 1, 1, 0, False, 0), "max_classes is 0"),
    (lambda x: streams.joint(x[:0]), "found none"),
    (lambda x: streams.add_split(streams.joint(x), "test", np.array([3])), "classes 3 are not in"),
    (lambda x: streams.add_split(streams.class_incremental(x, 3, 0), "val", np.array([1, 2])),
     "classes 0, has no example in split 'val'"),
])
def test_errors(make, message):
    with pytest.raises(UserError, match=message) as error:
        make(np.array([0, 1, 2, 2]))
    assert "\n" not in str(error.value)
