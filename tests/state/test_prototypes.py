import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.state import prototypes
from jaxmm.state.prototypes import Prototypes


def test_similarities_by_hand():
    """Distances 0 and 1 from prototypes of one dimension; a class without a prototype has no share."""
    state = Prototypes(jnp.array([[0.0], [1.0], [0.5]]), jnp.array([True, True, False]))
    q = np.exp(prototypes.log_similarities(state, jnp.zeros((1, 1))))
    np.testing.assert_allclose(q, [[0.7311, 0.2689, 0.0]], atol=5e-5)
    uniform = np.exp(prototypes.log_similarities(prototypes.init(4, 1), jnp.ones((2, 1))))
    np.testing.assert_allclose(uniform, 0.25)


def test_the_gradient_is_finite_where_a_feature_meets_its_prototype():
    """There the distance has none; that of the other prototype, at distance 5, is the unit vector times q."""
    state = Prototypes(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([True, True]))
    grad = jax.grad(lambda h: prototypes.log_similarities(state, h)[0, 0])(jnp.zeros((1, 2)))
    q = np.exp(-5) / (1 + np.exp(-5))
    np.testing.assert_allclose(grad, [[-0.6 * q, -0.8 * q]], rtol=1e-5)
    nothing = jax.grad(lambda h: prototypes.log_similarities(prototypes.init(2, 2), h)[0, 0])(jnp.ones((1, 2)))
    np.testing.assert_array_equal(nothing, 0)


def test_means_of_classes_follow_the_examples_that_count():
    """0.2 of the old and 0.8 of the new; new classes at once; classes that do not occur stay."""
    state = prototypes.init(3, 2)
    first = jnp.array([[1.0, 0.0], [3.0, 2.0], [99.0, 99.0], [5.0, 5.0]])
    state = prototypes.update(state, first, jnp.array([0, 0, 0, 2]), jnp.array([1, 1, 0, 1]), 0.2)
    np.testing.assert_array_equal(state.known, [True, False, True])
    np.testing.assert_allclose(state.mean, [[2.0, 1.0], [0.0, 0.0], [5.0, 5.0]])
    state = prototypes.update(state, jnp.array([[7.0, 1.0], [4.0, 4.0]]), jnp.array([0, 1]), jnp.ones(2, bool), 0.2)
    np.testing.assert_array_equal(state.known, True)
    np.testing.assert_allclose(state.mean, [[6.0, 1.0], [4.0, 4.0], [5.0, 5.0]], rtol=1e-6)
