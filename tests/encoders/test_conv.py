import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.encoders.conv import conv2d

LOWERINGS = ("xla", "matmul", "mixed")      # the three that "auto" chooses from


def reference(x, kernel, stride):
    """The definition, one position at a time, padded with (k - 1) // 2 zeros on every side."""
    k, pad = kernel.shape[0], (kernel.shape[0] - 1) // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = range(0, x.shape[1] - k + 1, stride)
    columns = range(0, x.shape[2] - k + 1, stride)
    windows = [[x[:, i:i + k, j:j + k] for j in columns] for i in rows]
    return np.einsum("ijbklc,klco->bijo", np.array(windows), kernel)


@pytest.mark.parametrize("k, stride", list(itertools.product((1, 3, 7), (1, 2))))
def test_lowerings_agree_with_the_definition_and_each_other_in_gradients(k, stride):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(k, k, 3, 4)).astype(np.float32) / k
    for shape in (2, 7, 5, 3), (2, 6, 8, 3), (1, 1, 2, 3):
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


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_vmap_over_kernels_is_a_loop_over_them(lowering):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    kernels = rng.normal(size=(3, 3, 3, 3, 2)).astype(np.float32)
    mapped = jax.vmap(lambda kernel: conv2d(x, kernel, 1, lowering))(kernels)
    for kernel, y in zip(kernels, mapped):
        np.testing.assert_allclose(y, reference(x, kernel, 1), rtol=1e-5, atol=1e-5)


def test_bfloat16_in_bfloat16_out_close_to_float32():
    rng = np.random.default_rng(2)
    x, kernel = rng.normal(size=(2, 4, 4, 8)), rng.normal(size=(3, 3, 8, 8)) / 8
    for lowering in LOWERINGS:
        y = conv2d(jnp.bfloat16(x), jnp.bfloat16(kernel), 1, lowering)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_allclose(y.astype(np.float32), reference(x, kernel, 1), atol=0.06)
