import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.data.dataset import deviations
from jaxmm.data.rows import Rows
from jaxmm.evaluate.corruptions import corrupt

COUNT = 4000
DEVIATIONS = {"sound": np.float32([2, 10]), "image": np.float32(50)}


@pytest.fixture(name="split", scope="module")
def make_split():
    rng = np.random.default_rng(0)
    inputs = {"sound": rng.normal(size=(COUNT, 2)).astype(np.float32),
              "image": rng.integers(0, 256, (COUNT, 3, 3), np.uint8)}
    return make_batch(inputs, np.arange(COUNT) % 5)


def test_dropped_modality_is_missing_and_all_else_is_the_same(split):
    dropped = corrupt(split, ["sound"], {}, DEVIATIONS, 0)
    assert not dropped["present"]["sound"].any()
    assert dropped["present"]["image"].all()
    assert dropped["label"] is split["label"] and dropped["id"] is split["id"]
    assert all(dropped["inputs"][m] is x for m, x in split["inputs"].items())
    assert split["present"]["sound"].all()


def test_noise_has_the_standard_deviation_of_the_data_times_sigma(split):
    noisy = corrupt(split, [], {"sound": 0.5, "image": 2}, DEVIATIONS, 0)
    difference = {m: noisy["inputs"][m] - split["inputs"][m].astype(np.float32)
                  for m in split["inputs"]}
    assert noisy["inputs"]["sound"].dtype == noisy["inputs"]["image"].dtype == np.float32
    # Standard errors of a deviation from n numbers: 1 / sqrt(2 n), here 1.1% and 0.4%.
    assert difference["sound"].std(axis=0) == pytest.approx([1, 5], rel=0.04)
    assert difference["image"].std() == pytest.approx(100, rel=0.015)
    assert difference["image"].mean() == pytest.approx(0, abs=2)
    correlation = np.corrcoef(difference["sound"][:, 0], difference["image"][:, 0, 0])[0, 1]
    assert abs(correlation) < 0.06
    assert split["inputs"]["image"].dtype == np.uint8
    assert noisy["label"] is split["label"] and noisy["present"] == split["present"]


def test_noise_is_a_function_of_seed_and_modality(split):
    both = corrupt(split, [], {"image": 1, "sound": 1}, DEVIATIONS, 0)["inputs"]
    one = corrupt(split, [], {"sound": 1}, DEVIATIONS, 0)["inputs"]
    other = corrupt(split, [], {"sound": 1}, DEVIATIONS, 1)["inputs"]
    np.testing.assert_array_equal(one["sound"], both["sound"])
    assert one["image"] is split["inputs"]["image"]
    assert not (one["sound"] == other["sound"]).any()


def test_examples_with_nothing_left_are_taken_out():
    present = {"a": np.array([True, True, False]), "b": np.array([False, True, True])}
    split = make_batch({"a": np.zeros((3, 1)), "b": np.ones((3, 1))}, [0, 1, 2], present=present)
    kept = corrupt(split, ["a"], {}, {}, 0)
    assert kept["label"].tolist() == [1, 2] and kept["id"].tolist() == [1, 2]
    assert kept["present"]["b"].all() and not kept["present"]["a"].any()
    assert corrupt(split, ["a", "b"], {}, {}, 0)["label"].shape == (0,)


def test_examples_without_a_modality_of_the_run_are_taken_out():
    split = make_batch({"a": np.zeros((2, 1)), "b": np.ones((2, 1))}, [0, 1], present={"a": [True, False]})
    assert corrupt(split, [], {}, {}, 0, used=["a"])["label"].tolist() == [0]
    assert corrupt(split, [], {}, {}, 0)["label"].tolist() == [0, 1]


def test_what_is_constant_gets_no_noise():
    """Its deviation is 0, not the 1 that normalisation divides by."""
    x = np.stack([np.full(9, 3.0), np.arange(9.0)], axis=1)
    split = make_batch({"m": x}, np.zeros(9))
    noisy = corrupt(split, [], {"m": 2.0}, deviations(split), 0)["inputs"]["m"]
    np.testing.assert_array_equal(noisy[:, 0], 3)
    assert (noisy[:, 1] != x[:, 1]).all()


def read_row(record, position):
    del position
    return np.full(1000, record, np.int16)


def test_rows_that_are_read_on_demand_get_noise_of_their_own():
    rows = Rows(range(6), read_row, (1000,), np.int16, checksum=1)
    split = make_batch({"sound": rows}, np.zeros(6))
    noisy = corrupt(split, [], {"sound": 2.0}, {"sound": np.float32(3)}, seed=1)
    noise = noisy["inputs"]["sound"][np.arange(6)] - rows[np.arange(6)]
    assert noise.dtype == np.float32 and abs(noise.std() - 6) < 0.2
    assert abs(np.corrcoef(noise)[np.triu_indices(6, 1)]).max() < 0.15
    np.testing.assert_array_equal(noisy["inputs"]["sound"][np.array([4])][0] - 4, noise[4])


@pytest.mark.parametrize("x", [np.float64([[1.7e9], [1.7e9 + 0.5]]), np.int32([[2**30], [2**30 + 1]])])
def test_numbers_that_float32_does_not_hold_keep_their_digits(x):
    split = make_batch({"m": x}, [0, 1])
    for sigma in (0.0, 1.0):
        noisy = corrupt(split, [], {"m": sigma}, {"m": np.float64(1e-3)}, 0)
        np.testing.assert_allclose(noisy["inputs"]["m"] - x, 0, atol=0.01 * sigma)
