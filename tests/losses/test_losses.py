import jax
import jax.numpy as jnp
import numpy as np

from jaxmm import losses

weighted_mean = jax.jit(losses.weighted_mean)


def test_weighted_mean_by_hand():
    values = np.float32([2, 6])
    np.testing.assert_allclose(weighted_mean(values), 4)
    np.testing.assert_allclose(weighted_mean(values, np.float32([3, 1])), 3)
    np.testing.assert_allclose(weighted_mean(values, np.array([False, True])), 6)


def test_half_precision_is_averaged_in_float32():
    mean = weighted_mean(np.full(3000, 1.5, jnp.bfloat16))
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, 1.5, rtol=1e-6)


def test_rows_of_zeros_stay_and_have_no_gradient():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(losses.normalize(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    gradient = jax.grad(lambda x: losses.normalize(x)[:, 0].sum())(x)
    np.testing.assert_allclose(gradient, [[0.16 / 1.25, -0.096], [0, 0]], atol=1e-6)
    assert losses.normalize(jnp.bfloat16([[3, 4]])).dtype == jnp.float32
