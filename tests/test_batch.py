import numpy as np
import pytest

from jaxmm import batch as batch_lib
from jaxmm.errors import UserError


def small():
    return batch_lib.make_batch({"a": np.zeros((3, 2)), "b": np.ones((3, 4, 4))}, [0, 1, 2],
                                present={"b": [True, False, True]})


def test_take_keeps_rows_together():
    part = batch_lib.take(small(), np.array([2, 1]))
    np.testing.assert_array_equal(part["label"], [2, 1])
    np.testing.assert_array_equal(part["id"], [2, 1])
    np.testing.assert_array_equal(part["present"]["b"], [True, False])
    np.testing.assert_array_equal(part["present"]["a"], [True, True])


def test_check_batch():
    batch_lib.check_batch(small(), ["b", "a"])
    for wrong in (small() | {"label": np.zeros(2, np.int32)},
                  small() | {"label": np.zeros(3, np.float32)},
                  small() | {"present": {"a": np.ones(3), "b": np.ones(3)}}):
        with pytest.raises(AssertionError):
            batch_lib.check_batch(wrong, ["a", "b"])
    with pytest.raises(AssertionError):
        batch_lib.check_batch(small(), ["a"])


@pytest.mark.parametrize("label", [
    [0, 2, 1], (0, 2, 1), np.uint64([0, 2, 1]), np.int8([0, 2, 1]), np.array([0, 2, 1], ">i8"),
    np.array([0, 0, 2, 2, 1])[::2]])
def test_class_numbers_of_any_type_of_integers(label):
    batch = batch_lib.make_batch({"a": np.zeros((3, 1))}, label)
    assert batch["label"].dtype == np.int32 and batch["label"].tolist() == [0, 2, 1]


@pytest.mark.parametrize("label, expected", [
    (np.array([0.5, -1, 3], ">f8"), np.float32([[0.5], [-1], [3]])),
    (np.float16([[0.5, 1], [0, 0], [2, 2]]), np.float32([[0.5, 1], [0, 0], [2, 2]])),
    (np.full(3, 0.1), np.full((3, 1), 0.1, np.float32)),
    (1e6 + np.arange(3.0), np.float32([[1e6], [1e6 + 1], [1e6 + 2]])),
    (np.eye(3, dtype=bool), np.eye(3, dtype=bool))])
def test_labels_keep_their_kind(label, expected):
    found = batch_lib.make_batch({"a": np.zeros((3, 1))}, label)["label"]
    assert found.dtype == expected.dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("label, message", [
    ([0, 2**32, 1], "value 4294967296 in row 1"), (np.uint64([0, 1, 2**64 - 1]), "in row 2"),
    ([0, 1, np.nan], "value nan in row 2"), ([[0.5, 1], [-np.inf, 0], [1, 1]], "value -inf in row 1"),
    ([1, 1e39, 0.5], "value 1e\\+39 in row 1; expected finite numbers that float32 holds"),
    ([[0.0, 1e9], [1, 1e9 + 1], [2, 1e9 + 2]], "float32 does not tell the numbers of column 1 apart"),
    ([1e-60, 2e-60, 0], "column 0 apart"), ([[0], [1], [2]], "\\[:, 0\\]"),
    (np.eye(3, dtype=int), "argmax.*one-hot.*astype\\(bool\\)"),
    ([True, False, True], "label is bool of shape \\(3,\\).*astype\\(int\\) makes two classes"),
    (np.zeros((3, 0)), "float64 of shape \\(3, 0\\)"), (np.zeros((3, 0), bool), "bool of shape \\(3, 0\\)"),
    (np.zeros((3, 1, 1)), "shape \\(3, 1, 1\\)"), (np.zeros(3, complex), "label is complex128"),
    (np.ma.masked_array([1, 0, 2], [0, 1, 0]), "masked array.*leave out rows without a label"),
    (["a", "b", "c"], "label is <U1"), ([2**70, 0, 0], "label is object"),
    ([0, 1], "a has 3 rows, batch/label has 2"), (5, "of shape \\(\\)"), ([], "no rows"),
])
def test_labels_that_would_become_others(label, message):
    with pytest.raises(UserError, match=message):
        batch_lib.make_batch({"a": np.zeros((3, 1))}, label)


@pytest.mark.parametrize("x, message", [
    (np.zeros((3, 1), complex), "complex128.*real and imaginary"), (np.zeros((3, 1), "M8[s]"), "seconds"),
    (np.zeros((3, 1), "m8[ns]"), "seconds"), (np.full((3, 1), "a"), "<U1.*embeddings"),
    (np.full((3, 1), b"a"), "S1"),
    (np.zeros((3, 1), [("x", "f4")]), "expected real numbers"), (np.full((3, 1), None), "object"),
    ([[1, 2], [3], [4]], "several shapes"), (np.ma.masked_array(np.zeros((3, 1))), "masked array"),
    (np.float32(1), "a has no rows"), (np.zeros((4, 1)), "a has 4 rows"),
])
def test_inputs_that_are_no_rows_of_numbers(x, message):
    with pytest.raises(UserError, match=message) as caught:
        batch_lib.make_batch({"a": x}, [0, 1, 2])
    assert "\n" not in str(caught.value)


def test_lists_and_other_byte_orders_become_arrays_of_this_machine():
    batch = batch_lib.make_batch({"a": [[1, 2], [3, 4]], "b": np.array([[1.5], [2]], ">f4")}, [0, 1])
    assert batch["inputs"]["a"].tolist() == [[1, 2], [3, 4]]
    assert batch["inputs"]["b"].dtype.isnative and batch["inputs"]["b"].tolist() == [[1.5], [2]]
    kept = np.zeros((2, 1), np.uint8)
    assert batch_lib.make_batch({"a": kept}, [0, 1])["inputs"]["a"] is kept


def test_masks():
    for mask in ([1, 0, 1], np.float64([1, 0, 1]), [True, False, True]):
        batch = batch_lib.make_batch({"a": np.zeros((3, 1))}, [0, 1, 2], present={"a": mask})
        assert batch["present"]["a"].dtype == bool and batch["present"]["a"].tolist() == [True, False, True]
    for mask, message in (([1, 0, 2], "value 2 in row 2"), ([1, 0.5, 1], "value 0.5 in row 1"),
                          (["yes", "no", "no"], "<U3"), ([[1], [1], [0]], "shape \\(3, 1\\)"),
                          ([1, 0], "present/a has 2 rows"), ([1, np.nan, 0], "value nan in row 1")):
        with pytest.raises(UserError, match=message):
            batch_lib.make_batch({"a": np.zeros((3, 1))}, [0, 1, 2], present={"a": mask})
    with pytest.raises(UserError, match="present/b names no modality"):
        batch_lib.make_batch({"a": np.zeros((3, 1))}, [0, 1, 2], present={"b": [1, 1, 1]})
