import numpy as np
import pytest

from jaxmm.evaluate.utilization import imbalance, utilization, with_means


def test_rates_by_hand():
    rates = utilization({"a": 0.8, "b": 0.5, "c": 0.4}, {"a": 0.2, "b": 0.5, "c": 0.6})
    assert rates == pytest.approx({"a": 0.75, "b": 0.0, "c": -0.5})
    assert imbalance(rates) == pytest.approx(1.25)
    assert np.isnan(utilization({"a": 0.0}, {"a": 0.0})["a"])


def test_means_are_over_the_examples_that_have_the_modality():
    old = np.float32([7, 7])
    stats = {"stage_1": {m: {"mean": old, "passes": np.float32(3)} for m in "ab"}}
    squeezes = {"stage_1/a": np.float32([[1, 2], [3, 4], [100, 100]]), "stage_1/b": np.ones((3, 2))}
    present = {"a": np.array([True, True, False]), "b": np.zeros(3, bool)}
    new = with_means(stats, squeezes, present)["stage_1"]
    np.testing.assert_array_equal(new["a"]["mean"], [2, 3])
    np.testing.assert_array_equal(new["b"]["mean"], old)
    assert new["a"]["passes"] == 3 and stats["stage_1"]["a"]["mean"] is old
