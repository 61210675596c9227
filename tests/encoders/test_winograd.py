import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxmm.encoders import winograd


def direct(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                    precision="highest")


def example(shape, channels, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape).astype(dtype), rng.normal(size=(3, 3, shape[-1], channels)).astype(dtype) / 3,
            rng.normal(size=(*shape[:-1], channels)).astype(dtype))


def test_a_tile_by_hand():
    """One channel, 2 x 2 ones with zeros around, every weight its place in the kernel: sums of four neighbours."""
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    y = winograd.convolve(jnp.ones((1, 2, 2, 1)), kernel)
    np.testing.assert_allclose(y[0, :, :, 0], [[4 + 5 + 7 + 8, 3 + 4 + 6 + 7], [1 + 2 + 4 + 5, 0 + 1 + 3 + 4]], rtol=1e-6)


@pytest.mark.parametrize("in_cache, parts", [(2**24, 1), (2 * 16 * 12 * 7 * 4, 3), (0, 6)])
@pytest.mark.parametrize("shape", [(6, 6, 8, 3), (6, 5, 7, 3), (6, 1, 2, 3)])
def test_output_and_gradients_are_those_of_the_definition(shape, in_cache, parts, monkeypatch):
    """Of maps with even and odd sides, for any number of parts of the batch; by jax.vjp of lax.conv."""
    monkeypatch.setattr(winograd, "IN_CACHE", in_cache)
    x, kernel, g = example(shape, 4)
    assert shape != (6, 6, 8, 3) or winograd._parts_of(x, 7) == parts

    def all_of(convolve):
        y, gradient = jax.vjp(convolve, x, kernel)
        return y, *gradient(g)

    for found, expected in zip(jax.jit(all_of, static_argnums=0)(winograd.convolve), all_of(direct)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_gradients():
    """A penalty on the gradient in the input, as some methods have, has a gradient in the kernel."""
    x, kernel, g = example((2, 4, 5, 2), 3)

    def penalty(kernel, convolve):
        return (jax.grad(lambda x: (jnp.tanh(convolve(x, kernel)) * g).sum())(x) ** 2).sum()

    found, expected = (jax.grad(penalty)(kernel, convolve) for convolve in (winograd.convolve, direct))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_rounding_is_near_that_of_the_definition():
    """Of 64 channels: the largest error, against float64, is less than four times that of the definition in float32."""
    x, kernel, _ = example((2, 8, 8, 64), 64)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(padded[:, i:i + 8, j:j + 8] @ kernel[i, j].astype(np.float64) for i in range(3) for j in range(3))
    plain = sum(padded[:, i:i + 8, j:j + 8].astype(np.float32) @ kernel[i, j] for i in range(3) for j in range(3))
    assert np.abs(winograd.convolve(x, kernel) - exact).max() < 4 * np.abs(plain - exact).max()


def test_parts_are_equal():
    assert winograd.parts_in_cache(5, winograd.IN_CACHE // 2) == 5
    assert winograd.parts_in_cache(12, winograd.IN_CACHE // 5) == 3
