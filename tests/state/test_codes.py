import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.state import codes


def test_a_step_moves_the_rows_of_a_batch_alone_each_by_its_own_count():
    """Adam in NumPy; the second step has one row for the second time and one for the first."""
    state = codes.init(jax.random.key(0), 4, 3)
    assert np.abs(state.codes).max() <= np.sqrt(6 / 7) and len(np.unique(state.codes)) == 12
    rng, expected = np.random.default_rng(0), np.asarray(state.codes, np.float64).copy()
    m, v, t = np.zeros((4, 3)), np.zeros((4, 3)), np.zeros(4)
    for ids, first in (([2, 0], [True, True]), ([2, 3, 2], [True, True, False])):
        before, grads = jax.device_get(state), rng.normal(size=(len(ids), 3))
        state = codes.update(state, np.array(ids), jnp.asarray(grads, jnp.float32), np.array(first), 0.1)
        for i, g in [(i, g) for i, g, f in zip(ids, grads, first) if f]:
            t[i], m[i], v[i] = t[i] + 1, 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
            expected[i] -= 0.1 * (m[i] / (1 - 0.9**t[i])) / (np.sqrt(v[i] / (1 - 0.999**t[i])) + 1e-8)
        others = np.setdiff1d(np.arange(4), ids)
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(jax.device_get(state))):
            np.testing.assert_array_equal(new[others], old[others])
        np.testing.assert_allclose(state.codes, expected, rtol=1e-5)
    np.testing.assert_array_equal(state.opt_state.count, [1, 0, 2, 1])


def test_sums_of_classes_have_the_examples_seen():
    state = codes.init(jax.random.key(0), 5, 2)._replace(codes=jnp.arange(10.0).reshape(5, 2))
    state = codes.see(codes.see(state, np.array([4, 0]), np.array([2, 0])), np.array([1, 4]), np.array([0, 2]))
    np.testing.assert_array_equal(state.labels, [0, 0, codes.UNSEEN, codes.UNSEEN, 2])
    sums, counts = codes.class_sums(state, 3)
    np.testing.assert_array_equal(sums, [[2, 4], [0, 0], [8, 9]])
    np.testing.assert_array_equal(counts, [2, 0, 1])
