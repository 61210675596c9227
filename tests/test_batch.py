import numpy as np
import pytest

from jaxmm import batch as batch_lib


def small():
    return batch_lib.make_batch({"a": np.zeros((3, 2)), "b": np.ones((3, 4, 4))}, [0, 1, 2],
                                present={"b": [True, False, True]})


def test_take_keeps_rows_together():
    part = batch_lib.take(small(), np.array([2, 1]))
    np.testing.assert_array_equal(part["label"], [2, 1])
    np.testing.assert_array_equal(part["id"], [2, 1])
    np.testing.assert_array_equal(part["present"]["b"], [True, False])
    np.testing.assert_array_equal(part["present"]["a"], [True, True])


def test_for_modality_reads_paired_and_unpaired_batches():
    x, label, present = batch_lib.for_modality(small(), "b")
    assert x.shape == (3, 4, 4) and label.tolist() == [0, 1, 2]
    assert present.tolist() == [True, False, True]
    unpaired = small() | {"label": {"a": np.array([5]), "b": np.array([6, 7])}}
    assert batch_lib.for_modality(unpaired, "b")[1].tolist() == [6, 7]


def test_check_batch():
    batch_lib.check_batch(small(), ["b", "a"], num_classes=3)
    for wrong in (small() | {"label": np.zeros(2, np.int32)},
                  small() | {"label": np.zeros(3, np.float32)},
                  small() | {"present": {"a": np.ones(3), "b": np.ones(3)}}):
        with pytest.raises(AssertionError):
            batch_lib.check_batch(wrong, ["a", "b"])
    with pytest.raises(AssertionError):
        batch_lib.check_batch(small(), ["a"])
    with pytest.raises(ValueError, match="labels"):
        batch_lib.check_batch(small(), ["a", "b"], num_classes=2)
