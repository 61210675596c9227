import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.state import seen


def test_tasks_of_two_classes_of_which_one_comes_back():
    """Classes 2 and 5, then 5 and 7; an example of 5 in the second task is of an old class."""
    state = seen.next_task(seen.update(seen.init(8), jnp.array([5, 2, 5])))
    np.testing.assert_array_equal(seen.old(state), np.isin(np.arange(8), [2, 5]))
    state = seen.update(state, jnp.array([5, 7, 7]))
    np.testing.assert_array_equal(state.first, [-1, -1, 0, -1, -1, 0, -1, 1])
    np.testing.assert_array_equal(seen.old(state), np.isin(np.arange(8), [2, 5]))
    assert not seen.old(seen.update(seen.init(8), jnp.array([1]))).any()


def test_classes_of_all_devices_are_seen_on_each():
    labels = np.arange(8, dtype=np.int32)[::-1].reshape(8, 1)
    update = jax.pmap(functools.partial(seen.update, axis_name="devices"), axis_name="devices",
                      in_axes=(None, 0))
    np.testing.assert_array_equal(update(seen.init(9), labels).first, [[0] * 8 + [-1]] * 8)


def test_restricted_classes_have_no_probability_and_no_gradient():
    """Of er-ace: z = (3, 1, 0, 0), class 1, allowed 1 and 2: 0.3133, with 3, too: 0.5514, and all: 2.2110."""
    def loss(z, *allowed):
        return -jax.nn.log_softmax(seen.restrict(z, np.isin(np.arange(4), allowed)))[1]

    z = jnp.array([3.0, 1, 0, 0])
    np.testing.assert_allclose([loss(z, 1, 2), loss(z, 1, 2, 3), loss(z, 0, 1, 2, 3)], [0.3133, 0.5514, 2.2110],
                               atol=5e-5)
    gradient = jax.grad(loss)(z, 1, 2)
    assert gradient[0] == gradient[3] == 0 and gradient[2] > 0


@pytest.mark.parametrize("label, expected", [(2, 0.6931), (0, 0.1269)])
def test_the_side_of_a_label(label, expected):
    """Of av-cil: z = (2, 0, 1, 1), old classes 0 and 1, new ones 2 and 3; class 4 is on neither side."""
    state = seen.update(seen.next_task(seen.update(seen.init(5), jnp.array([0, 1]))), jnp.array([2, 3, 1]))
    side = seen.own_side(state, jnp.array([label]))
    np.testing.assert_array_equal(side[0], np.isin(np.arange(5), [2, 3] if label == 2 else [0, 1]))
    z = seen.restrict(jnp.array([[2.0, 0, 1, 1, 9]]), side)
    np.testing.assert_allclose(-jax.nn.log_softmax(z)[0, label], expected, atol=5e-5)
