"""The one convolution of this package, and how it is computed.

Every convolution here is PyTorch's: NHWC, square odd kernel k, symmetric padding (k - 1) // 2, no
bias. (The "SAME" padding of flax differs for stride 2 on even sizes.)

Three lowerings give the same numbers. "xla" is lax.conv; "matmul" is all patches side by side
times the kernel; "mixed" is lax.conv whose kernel gradient is a matrix product. "auto" is "xla" on
GPU and TPU. On CPU, where XLA is slow at kernel gradients and collapses on few positions, it is
"matmul" for few positions, few input channels or k = 1, and "mixed" otherwise. Measured with
jax 0.10.2 on 2 cores, milliseconds of the output and its gradients in input and kernel, batch 64:

    input, kernel, stride         xla               matmul            mixed
    32 x 32 x 64, 3x3, 1          89 / 86 / 1380    163 / 206 / 166   88 / 87 / 131
    16 x 16 x 128, 3x3, 1         45 / 44 / 164     93 / 147 / 103    53 / 59 / 75
    8 x 8 x 256, 3x3, 1           48 / 46 / 76      67 / 80 / 67      51 / 55 / 43
    4 x 4 x 512, 3x3, 1           51 / 53 / 66      42 / 60 / 59      55 / 59 / 39
    2 x 2 x 512, 3x3, 1           809 / 825 / -     11 / 12 / 11      814 / 824 / 11
    32 x 32 x 64, 3x3, 2          40 / 59 / 105     64 / 83 / 74      38 / 64 / 76
    4 x 4 x 256, 3x3, 2           14 / 227 / 10     7 / 10 / 6        15 / 231 / 7
    32 x 32 x 64, 1x1, 2          7 / 7 / 48        7 / 6 / 6         7 / 7 / 6
    32 x 32 x 1, 3x3, 1           6 / - / 17        5 / - / 5         5 / - / 46
"""
import functools

import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

LOWERINGS = ("auto", "xla", "matmul")   # that a user may name; only "auto" chooses "mixed"
MIN_POSITIONS = 32                  # of the output; with fewer, "auto" takes "matmul" on CPU
MIN_CHANNELS = 16                   # of the input; the same

he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """Convolution [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features].

    The kernel [k, k, C, features] is float32, drawn by He et al. (2015) from the fan-out; the
    result is in the type of the input.
    """
    features: int
    size: int = 3
    stride: int = 1
    lowering: str = "auto"

    @nn.compact
    def __call__(self, x):
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", he_fan_out, shape, jnp.float32)
        return conv2d(x, kernel.astype(x.dtype), self.stride, self.lowering)


def conv2d(x: chex.Array, kernel: chex.Array, stride: int = 1, lowering: str = "auto"):
    """Convolves x [B, H, W, C] with kernel [k, k, C, O], k odd, by the lowering named."""
    chex.assert_rank([x, kernel], 4)
    if lowering == "auto":
        lowering = _choose(x, kernel, stride)
    return {"xla": _xla, "matmul": _matmul, "mixed": _mixed}[lowering](x, kernel, stride)


def _choose(x, kernel, stride: int) -> str:
    """The fastest lowering by the table of this module."""
    if jax.default_backend() != "cpu":
        return "xla"
    positions = -(-x.shape[1] // stride) * -(-x.shape[2] // stride)
    small = positions < MIN_POSITIONS or x.shape[-1] < MIN_CHANNELS or kernel.shape[0] == 1
    return "matmul" if small else "mixed"


def _xla(x, kernel, stride: int):
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2,
                                    dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _matmul(x, kernel, stride: int):
    return _product(_patches(x, kernel.shape[0], stride), kernel.reshape(-1, kernel.shape[-1]))


def _patches(x, k: int, stride: int):
    """The patch that a k x k convolution sees at every position: [B, H', W', k * k * C]."""
    pad = k // 2
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    x = jnp.stack([x[:, :, j:j + width:stride] for j in range(k)], axis=3)
    x = jnp.stack([x[:, i:i + height:stride] for i in range(k)], axis=3)
    return x.reshape(*x.shape[:3], -1)


@jax.custom_vjp
def _product(patches, kernel):
    """patches [B, H, W, N] times kernel [N, O].

    Its gradients are written out because JAX's own ones transpose the output's gradient in memory.
    """
    return patches @ kernel


def _product_forward(patches, kernel):
    return patches @ kernel, (patches, kernel)


def _product_backward(residuals, g):
    patches, kernel = residuals
    return g @ kernel.T, _rows(patches).T @ _rows(g)


_product.defvjp(_product_forward, _product_backward)


def _rows(x):
    """[..., C] -> [N, C]."""
    return x.reshape(-1, x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed(x, kernel, stride: int):
    return _xla(x, kernel, stride)


def _mixed_forward(x, kernel, stride: int):
    return _xla(x, kernel, stride), (x, kernel)


def _mixed_backward(stride: int, residuals, g):
    x, kernel = residuals
    (x_gradient,) = jax.vjp(lambda x: _xla(x, kernel, stride), x)[1](g)
    if stride == 1:
        return x_gradient, _kernel_gradient(x, g, kernel.shape[0])
    return x_gradient, jax.vjp(lambda kernel: _matmul(x, kernel, stride), kernel)[1](g)[0]


_mixed.defvjp(_mixed_forward, _mixed_backward)


def _kernel_gradient(x, g, k: int):
    """Gradient [k, k, C, O] in the kernel of a convolution of stride 1, as one wide matmul.

    With x shifted along the width and g [B, H, W, O] along the height, one product holds all
    pairs of shifts, from k + k copies where `_patches` makes k * k.
    """
    pad = k // 2
    height, width = x.shape[1:3]
    x_padded = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (0, 0)))
    g_padded = jnp.pad(g, ((0, 0), (pad, pad), (0, 0), (0, 0)))
    xs = jnp.stack([x_padded[:, :, j:j + width] for j in range(k)], axis=3)
    gs = jnp.stack([g_padded[:, i:i + height] for i in reversed(range(k))], axis=3)
    product = xs.reshape(-1, k * x.shape[-1]).T @ gs.reshape(-1, k * g.shape[-1])
    return product.reshape(k, x.shape[-1], k, g.shape[-1]).transpose(2, 0, 1, 3)
