import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.encoders.conv3d import conv3d


def draw(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("size, stride, channels", [
    ((3, 3), (2, 2), 2), ((3, 3), (1, 1), 16), ((5, 7), (1, 2), 3), ((7, 1), (4, 1), 2), ((1, 1), (2, 2), 2),
    ((1, 3), (1, 2), 2)])
def test_frames_side_by_side_give_the_convolution_in_three_dimensions(size, stride, channels):
    x, kernel = draw((2, 8, 6, 7, channels), 0), draw((size[0], size[1], size[1], channels, 3), 1)

    @functools.partial(jax.jit, static_argnums=2)
    def run(x, kernel, lowering):
        def loss(x, kernel):
            y = conv3d(x, kernel, stride, lowering)
            return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum(), y
        return jax.grad(loss, (0, 1), has_aux=True)(x, kernel)

    for found, expected in zip(*map(jax.tree.leaves, (run(x, kernel, "matmul"), run(x, kernel, "xla")))):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_step_in_time_by_hand():
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 5, 1, 1, 1)
    kernel = np.array([1, 10, 100], np.float32).reshape(3, 1, 1, 1, 1)
    assert conv3d(x, kernel, (2, 1)).ravel().tolist() == [210, 432, 54]
