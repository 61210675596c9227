"""Ridge regression from sums, by hand and over devices."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.state import ridge

X = np.array([[1.0, 0], [1, 0], [0, 1], [1, 0]], np.float32)
Y = np.array([0, 0, 1, 0], np.int32)


def total(order, sizes, by_class, counts=None):
    """The sums of the rows in this order, in batches of these sizes."""
    state = ridge.init(2, 3, by_class=by_class)
    for part in np.split(order, np.cumsum(sizes)[:-1]):
        part_counts = jnp.ones(len(part), bool) if counts is None else counts[part]
        state = ridge.add(state, jnp.array(X[part]), jnp.array(Y[part]), part_counts)
    return state


@pytest.mark.parametrize("balanced, diagonal", [(False, [0.75, 0.5]), (True, [0.6, 0.6])])
def test_three_of_one_class_and_one_of_another(balanced, diagonal):
    """x = (1, 0) thrice of class 0, (0, 1) of class 1, gamma 1; of class 2 nothing was seen."""
    expected = np.concatenate([np.diag(diagonal), np.zeros((2, 1))], axis=1)
    for order, sizes in (([0, 1, 2, 3], [4]), ([2, 0, 3, 1], [1, 3]), ([3, 2, 1, 0], [2, 2])):
        found = ridge.solve(total(order, sizes, balanced), 1.0, balanced=balanced)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    if balanced:        # whose sums weigh classes alike only if they are asked to
        plain = ridge.solve(total([0, 1, 2, 3], [4], True), 1.0, balanced=False)
        np.testing.assert_allclose(plain[:, :2], np.diag([0.75, 0.5]), rtol=1e-6)


@pytest.mark.parametrize("by_class", [False, True])
def test_rows_that_do_not_count_and_rows_of_all_devices(by_class):
    counts = np.array([True, True, False, True])
    add = jax.pmap(functools.partial(ridge.add, axis_name="devices"), axis_name="devices", in_axes=(None, 0, 0, 0))
    found = add(ridge.init(2, 3, by_class=by_class), X[:, None], Y[:, None], counts[:, None])
    expected = total([0, 1, 3], [3], by_class)
    for x, y in zip(found, expected):
        np.testing.assert_allclose(x, np.broadcast_to(y, x.shape))
    np.testing.assert_array_equal(expected.counts, [3, 0, 0])
