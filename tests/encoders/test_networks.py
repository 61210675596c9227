import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.encoders.networks import max_pool, mean_pool

RNG = np.random.default_rng(0)


def test_max_pool_of_two_by_hand_drops_odd_ends_and_spares_single_positions():
    x = np.float32([[1, 5, 2], [4, 3, 9], [7, 8, 6]])[None, :, :, None]
    np.testing.assert_array_equal(max_pool(x, 2), [[[[5]]]])
    np.testing.assert_array_equal(max_pool(x[:, :1], 2), [[[[5]]]])
    np.testing.assert_array_equal(max_pool(x[:, :1, :1], 2), [[[[1]]]])


def test_max_pool_is_that_of_flax_in_value_and_gradient():
    for shape in (1, 5, 6, 2), (1, 2, 1, 2):
        x = RNG.permutation(np.prod(shape)).reshape(shape).astype(np.float32)   # no ties

        def flax_pool(x):
            return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])

        np.testing.assert_array_equal(max_pool(x, 3), flax_pool(x))
        weight = RNG.normal(size=flax_pool(x).shape).astype(np.float32)
        ours, flax = (jax.jit(jax.grad(lambda x, f=f: (f(x) * weight).sum()))(x)
                      for f in (lambda x: max_pool(x, 3), flax_pool))
        np.testing.assert_allclose(ours, flax, rtol=1e-6)


def test_mean_pool_adds_in_float32():
    x = jnp.bfloat16(np.ones((1, 40, 40, 1)))     # a bfloat16 sum stops growing at 256
    assert mean_pool(x).item() == 1.0 and mean_pool(x).dtype == jnp.bfloat16
