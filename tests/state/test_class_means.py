"""The nearest class mean by hand."""
import jax.numpy as jnp
import numpy as np

from jaxmm.state import class_means


def test_the_nearest_normalised_mean():
    """Class 0: (1, 0) and (0.6, 0.8), class 1: (0, 1), at any length; the last row does not count."""
    features = jnp.array([[2.0, 0], [0.6, 0.8], [0, 3], [-1, 0]])
    state = class_means.fit(features, jnp.array([0, 0, 1, 2]), jnp.array([True, True, True, False]), 3)
    np.testing.assert_array_equal(state.known, [True, True, False])
    found = class_means.outputs(state, jnp.array([[6.0, 8.0]]))
    np.testing.assert_allclose(found, [[-0.2111, -0.4, -4]], atol=5e-5)
    nothing = class_means.init(3, 2)
    np.testing.assert_array_equal(class_means.outputs(nothing, features), -4)
