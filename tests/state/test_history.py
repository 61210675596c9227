import numpy as np

from jaxmm.state import history


def test_losses_add_up_by_id():
    h = history.update(history.init(4), np.array([2, 0, 2]), np.array([1.0, 0.5, 2.0]))
    np.testing.assert_allclose(h, [0.5, 0, 3, 0])
    h = history.update(h, np.array([3, 1]), np.array([np.nan, 1.0]), np.array([False, True]))
    np.testing.assert_allclose(h, [0.5, 1, 3, 0])
    np.testing.assert_allclose(history.relative(h, np.array([2, 1, 3])), [1, 1 / 3, 0])


def test_before_the_first_step_all_are_alike():
    np.testing.assert_array_equal(history.relative(history.init(3), np.array([0, 2])), 0)
