import numpy as np

from jaxmm.state import history


def test_losses_add_up_by_id():
    h = history.update(history.init(4), np.array([2, 0, 2]), np.array([1.0, 0.5, 2.0]))
    np.testing.assert_allclose(h, [0.5, history.UNSEEN, 3, history.UNSEEN])
    h = history.update(h, np.array([3, 1]), np.array([np.nan, 1.0]), np.array([False, True]))
    np.testing.assert_allclose(h, [0.5, 1, 3, history.UNSEEN])


def test_what_was_never_seen_is_not_the_easiest():
    """Of 2, 3 and 7 the first is 0, the second 1/5: a fourth that has no loss changes nothing."""
    h = np.array([2.0, 3.0, 7.0, history.UNSEEN], np.float32)
    np.testing.assert_allclose(history.relative(h, np.array([0, 1, 2, 3])), [0, 1 / 5, 1, 0])


def test_before_the_first_step_all_are_alike():
    np.testing.assert_array_equal(history.relative(history.init(3), np.array([0, 2])), 0)
