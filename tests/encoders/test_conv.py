import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.encoders import winograd
from jaxmm.encoders.conv import Conv, conv2d, fan_in_uniform

LOWERINGS = ("xla", "matmul", "mixed")      # the three that "auto" chooses from


def reference(x, kernel, stride):
    """The definition, one position at a time, padded with (k - 1) // 2 zeros on every side."""
    h, w = kernel.shape[:2]
    s, r = (stride, stride) if isinstance(stride, int) else stride
    x = np.pad(x, ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    rows = range(0, x.shape[1] - h + 1, s)
    columns = range(0, x.shape[2] - w + 1, r)
    windows = [[x[:, i:i + h, j:j + w] for j in columns] for i in rows]
    return np.einsum("ijbklc,klco->bijo", np.array(windows), kernel)


@pytest.mark.parametrize("size, stride", [*itertools.product(((1, 1), (3, 3), (7, 7)), (1, 2)),
                                          ((3, 1), 1), ((1, 3), 1), ((3, 1), (2, 1)), ((1, 3), (1, 2))])
def test_lowerings_agree_with_the_definition_and_each_other_in_gradients(size, stride):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(*size, 3, 4)).astype(np.float32) / max(size)
    for shape in (2, 7, 5, 3), (2, 6, 8, 3), (1, 1, 2, 3), (2, 4, 10, 3):
        x = rng.normal(size=shape).astype(np.float32)
        expected = reference(x, kernel, stride)
        weight = rng.normal(size=expected.shape).astype(np.float32)
        gradients = []
        for lowering in LOWERINGS:
            def weighted(x, kernel, lowering=lowering):
                y = conv2d(x, kernel, stride, lowering)
                return (y * weight).sum(), y
            (_, y), grads = jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))(x, kernel)
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
            gradients.append(grads)
        # The gradient in the kernel by linearity: its product with the kernel is the weighted sum.
        np.testing.assert_allclose((gradients[0][1] * kernel).sum(), (expected * weight).sum(),
                                   rtol=1e-4)
        for other in gradients[1:]:
            for a, b in zip(gradients[0], other):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lowering", [*LOWERINGS, "winograd"])
def test_vmap_over_kernels_is_a_loop_over_them(lowering):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    kernels = rng.normal(size=(3, 3, 3, 3, 2)).astype(np.float32)
    mapped = jax.vmap(lambda kernel: conv2d(x, kernel, 1, lowering))(kernels)
    for kernel, y in zip(kernels, mapped):
        np.testing.assert_allclose(y, reference(x, kernel, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("in_cache, parts", [(0, 6), (2 * 80 * 27 * 4, 3), (2**20, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_kernel_gradients_are_sums_over_parts_of_the_batch(in_cache, parts, stride, monkeypatch):
    """Of 6 examples of 80 positions with 27 numbers in a patch; vmapped over kernels too."""
    monkeypatch.setattr(winograd, "IN_CACHE", in_cache)
    assert winograd.parts_in_cache(6, 80 * 27 * 4) == parts
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 8 * stride, 10 * stride, 3)).astype(np.float32)
    kernels = rng.normal(size=(2, 3, 3, 3, 4)).astype(np.float32)
    weight = rng.normal(size=(6, 8, 10, 4)).astype(np.float32)

    def gradient(kernel, lowering):
        return jax.grad(lambda kernel: (conv2d(x, kernel, stride, lowering) * weight).sum())(kernel)

    expected = gradient(kernels[0], "xla")
    for found in jax.vmap(lambda kernel: gradient(kernel, "mixed"))(kernels):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_on_a_cpu_large_products_of_3_x_3_are_by_winograd():
    def lowering(shape, kernel, stride=1, dtype=jnp.float32):
        operations = str(jax.make_jaxpr(lambda x, kernel: conv2d(x, kernel, stride))(
            jnp.zeros(shape, dtype), jnp.zeros(kernel, dtype)))
        return "winograd" if "16,64,64" in operations else "xla" if "conv_general" in operations else "matmul"

    assert lowering((32, 16, 16, 64), (3, 3, 64, 64)) == "winograd"     # 2048 tiles
    assert lowering((31, 16, 16, 64), (3, 3, 64, 64)) == "xla"
    assert lowering((32, 16, 16, 64), (3, 3, 64, 64), 2) == "xla"
    assert lowering((32, 16, 16, 64), (3, 3, 64, 64), dtype=jnp.bfloat16) == "xla"
    assert lowering((64, 16, 16, 63), (3, 3, 63, 64)) == "xla"
    assert lowering((2048, 2, 1, 64), (3, 3, 64, 64)) == lowering((32, 4, 4, 64), (3, 3, 64, 64)) == "matmul"


def test_bfloat16_in_bfloat16_out_close_to_float32():
    rng = np.random.default_rng(2)
    x, kernel = rng.normal(size=(2, 4, 4, 8)), rng.normal(size=(3, 3, 8, 8)) / 8
    for lowering in LOWERINGS:
        y = conv2d(jnp.bfloat16(x), jnp.bfloat16(kernel), 1, lowering)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_allclose(y.astype(np.float32), reference(x, kernel, 1), atol=0.06)
        for size in 4, 10:
            ones = jnp.ones((2, size, size, 8), jnp.bfloat16)
            gradient = jax.grad(lambda kernel: conv2d(ones, kernel, 1, lowering).sum())(jnp.bfloat16(kernel))
            assert gradient.dtype == jnp.bfloat16
            np.testing.assert_allclose(gradient[1, 1].astype(np.float32), 2 * size**2, rtol=0.01)


def test_a_layer_is_drawn_as_pytorch_draws_it_where_it_is_asked_to():
    """Kernel and bias are uniform within one over the root of the fan-in; without a bias there is none."""
    x = np.ones((1, 4, 5, 50), np.float32)
    params = Conv(200, (3, 1), use_bias=True, kernel_init=fan_in_uniform).init(jax.random.key(0), x)["params"]
    bound = 150 ** -0.5
    for name, shape in ("kernel", (3, 1, 50, 200)), ("bias", (200,)):
        assert params[name].shape == shape and 0.98 * bound < np.abs(params[name]).max() < bound * (1 + 1e-6)
        assert abs(params[name].std() - bound / 3 ** 0.5) < 0.05 * bound
    plain = Conv(200, (3, 1)).init(jax.random.key(0), x)["params"]
    assert set(plain) == {"kernel"} and abs(plain["kernel"].std() - (2 / 600) ** 0.5) < 0.01 * bound


def test_a_bias_is_added_in_the_type_of_the_input():
    x = jnp.ones((1, 4, 5, 3), jnp.bfloat16)
    layer = Conv(2, use_bias=True)
    params = {"kernel": jnp.zeros((3, 3, 3, 2)), "bias": jnp.array([1.0, -2.0])}
    y = layer.apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, np.broadcast_to([1.0, -2.0], (1, 4, 5, 2)))
