import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxmm.encoders import parts as parts_lib, winograd


def direct(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                    precision="highest")


def example(shape, channels, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape).astype(dtype), rng.normal(size=(3, 3, shape[-1], channels)).astype(dtype) / 3,
            rng.normal(size=(*shape[:-1], channels)).astype(dtype))


def test_a_tile_by_hand():
    """One channel, 2 x 2 ones with zeros around, every weight its place in the kernel: sums of four neighbours."""
    y = winograd.convolve(jnp.ones((1, 2, 2, 1)), jnp.arange(9.0).reshape(3, 3, 1, 1))
    expected = [[4 + 5 + 7 + 8, 3 + 4 + 6 + 7], [1 + 2 + 4 + 5, 0 + 1 + 3 + 4]]
    np.testing.assert_allclose(y[0, :, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("in_cache, parts", [(2**24, 1), (2 * 16 * 12 * 7 * 4, 3), (0, 6)])
@pytest.mark.parametrize("shape", [(6, 6, 8, 3), (6, 5, 7, 3), (6, 1, 2, 3)])
def test_output_and_gradients_are_those_of_the_definition(shape, in_cache, parts, monkeypatch):
    """Of maps with even and odd sides, for any number of parts of the batch; by jax.vjp of lax.conv."""
    monkeypatch.setattr(parts_lib, "IN_CACHE", in_cache)
    x, kernel, g = example(shape, 4)
    assert shape != (6, 6, 8, 3) or winograd.count_parts(x, kernel) == parts

    def all_of(convolve):
        y, gradient = jax.vjp(convolve, x, kernel)
        return y, *gradient(g)

    for found, expected in zip(jax.jit(all_of, static_argnums=0)(winograd.convolve), all_of(direct)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("in_cache", [2**24, 0])
def test_gradients_of_gradients(in_cache, monkeypatch):
    """A penalty on the gradient in the input, as some methods have, has a gradient in the kernel."""
    monkeypatch.setattr(parts_lib, "IN_CACHE", in_cache)
    x, kernel, g = example((2, 4, 5, 2), 3)

    def penalty(kernel, convolve):
        return (jax.grad(lambda x: (jnp.tanh(convolve(x, kernel)) * g).sum())(x) ** 2).sum()

    found, expected = (jax.grad(penalty)(kernel, convolve) for convolve in (winograd.convolve, direct))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_vmap_over_kernels_and_their_gradients_is_a_loop_over_them():
    x, _, g = example((4, 4, 6, 3), 2)
    kernels = np.random.default_rng(5).normal(size=(3, 3, 3, 3, 2)).astype(np.float32)

    def all_of(kernel, convolve=winograd.convolve):
        y, gradient = jax.vjp(convolve, x, kernel)
        return y, *gradient(g)

    for i, kernel in enumerate(kernels):
        for found, expected in zip(jax.vmap(all_of)(kernels), all_of(kernel, direct)):
            np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_float32_where_float64_is_allowed():
    x, kernel, g = example((2, 4, 4, 3), 2)
    with jax.enable_x64(True):
        gradients = jax.vjp(winograd.convolve, x, kernel)[1](jnp.asarray(g))
    assert [gradient.dtype for gradient in gradients] == [np.float32] * 2


def test_rounding_is_near_that_of_the_definition():
    """Of 64 channels: the largest error against float64 is less than four times that of the definition."""
    x, kernel, _ = example((2, 8, 8, 64), 64)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(padded[:, i:i + 8, j:j + 8] @ kernel[i, j].astype(np.float64) for i in range(3) for j in range(3))
    plain = sum(padded[:, i:i + 8, j:j + 8].astype(np.float32) @ kernel[i, j] for i in range(3) for j in range(3))
    assert np.abs(winograd.convolve(x, kernel) - exact).max() < 4 * np.abs(plain - exact).max()
