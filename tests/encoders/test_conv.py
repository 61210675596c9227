import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.encoders import conv, parts as parts_lib
from jaxmm.encoders.conv import Conv, conv2d
from jaxmm.encoders.draws import fan_in_uniform, init_net

LOWERINGS = ("xla", "matmul", "mixed")      # those for all kernels and strides; beside "winograd"


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
    monkeypatch.setattr(parts_lib, "IN_CACHE", in_cache)
    assert parts_lib.parts_in_cache(6, 80 * 27 * 4) == parts
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 8 * stride, 10 * stride, 3)).astype(np.float32)
    kernels = rng.normal(size=(2, 3, 3, 3, 4)).astype(np.float32)
    weight = rng.normal(size=(6, 8, 10, 4)).astype(np.float32)

    def gradient(kernel, lowering):
        return jax.grad(lambda kernel: (conv2d(x, kernel, stride, lowering) * weight).sum())(kernel)

    expected = gradient(kernels[0], "xla")
    for found in jax.vmap(lambda kernel: gradient(kernel, "mixed"))(kernels):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape, kernel, options, expected", [
    ((32, 16, 16, 64), (3, 3, 64, 64), {}, "winograd"),
    ((16, 16, 16, 64), (3, 3, 64, 64), {}, "mixed"),        # 16 * 64 tiles * 64^2 products are too few
    ((64, 4, 4, 512), (3, 3, 512, 512), {}, "winograd"),
    ((67, 4, 4, 512), (3, 3, 512, 512), {}, "matmul"),      # so they are where a batch has no large parts
    ((32, 16, 16, 64), (3, 3, 64, 64), {"stride": (2, 2)}, "mixed"),
    ((32, 16, 16, 64), (3, 3, 64, 64), {"dtype": jnp.bfloat16}, "mixed"),
    ((99, 16, 16, 63), (3, 3, 63, 64), {}, "mixed"), ((99, 16, 16, 64), (3, 3, 64, 63), {}, "mixed"),
    ((99, 16, 16, 64), (3, 1, 64, 64), {}, "mixed"), ((99, 16, 16, 64), (5, 5, 64, 64), {}, "mixed"),
    ((9999, 2, 1, 64), (3, 3, 64, 64), {}, "matmul"), ((32, 4, 4, 64), (3, 3, 64, 64), {}, "matmul"),
    ((32, 16, 16, 64), (1, 1, 64, 64), {}, "matmul"), ((32, 16, 16, 3), (7, 7, 3, 64), {}, "xla")])
def test_which_lowering_a_cpu_takes(shape, kernel, options, expected):
    x, kernel = jnp.zeros(shape, options.get("dtype", jnp.float32)), jnp.zeros(kernel)
    assert conv._choose(x, kernel, options.get("stride", (1, 1))) == expected


def test_programs_for_any_number_of_rows_are_exported_whatever_the_shape():
    shape = jax.export.symbolic_shape("rows, 16, 16, 64")
    kernel = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32) / 24
    program = jax.export.export(jax.jit(lambda x: conv2d(x, kernel)))(jax.ShapeDtypeStruct(shape, np.float32))
    x = np.random.default_rng(1).normal(size=(2, 16, 16, 64)).astype(np.float32)
    np.testing.assert_allclose(program.call(x), conv2d(x, kernel, 1, "winograd"), rtol=1e-4, atol=1e-5)


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
    params = init_net(Conv(200, (3, 1), use_bias=True, kernel_init=fan_in_uniform), jax.random.key(0), x)["params"]
    bound = 150 ** -0.5
    for name, shape in ("kernel", (3, 1, 50, 200)), ("bias", (200,)):
        assert params[name].shape == shape and 0.98 * bound < np.abs(params[name]).max() < bound * (1 + 1e-6)
        assert abs(params[name].std() - bound / 3 ** 0.5) < 0.05 * bound
    plain = init_net(Conv(200, (3, 1)), jax.random.key(0), x)["params"]
    assert set(plain) == {"kernel"} and abs(plain["kernel"].std() - (2 / 600) ** 0.5) < 0.01 * bound


def test_a_bias_is_added_in_the_type_of_the_input():
    x = jnp.ones((1, 4, 5, 3), jnp.bfloat16)
    layer = Conv(2, use_bias=True)
    params = {"kernel": jnp.zeros((3, 3, 3, 2)), "bias": jnp.array([1.0, -2.0])}
    y = layer.apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, np.broadcast_to([1.0, -2.0], (1, 4, 5, 2)))
