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
