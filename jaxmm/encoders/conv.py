"""The one convolution of this package, and how it is computed.

Every convolution here is PyTorch's: NHWC, square odd kernel k, symmetric padding (k - 1) // 2, no
bias. (The "SAME" padding of flax differs for stride 2 on even sizes.)

Three lowerings give the same numbers. "xla" is lax.conv; "matmul" is all patches side by side
times the kernel; "mixed", for stride 1, is lax.conv whose kernel gradient is a matrix product.
"auto" is "xla" on GPU and TPU. On CPU, where XLA is slow at kernel gradients and collapses on few
positions, it is "mixed", but "matmul" for stride 2, k = 1, few positions or few input channels.
Patches are gathered for a few examples at a time, so that they are multiplied while in the cache.
Milliseconds for output, input and kernel gradient with jax 0.10.2 on two cores of an AMD EPYC
(about 150 GFLOP/s), batch 64:

    input, kernel, stride         xla                matmul          mixed
    32 x 32 x 64, 3x3, 1          76 / 73 / 1279     67 / 82 / 73    67 / 70 / 56
    16 x 16 x 128, 3x3, 1         60 / 42 / 198      45 / 49 / 59    39 / 42 / 45
    8 x 8 x 256, 3x3, 1           45 / 40 / 76       40 / 38 / 50    44 / 41 / 43
    4 x 4 x 512, 3x3, 1           65 / 43 / 55       39 / 34 / 42    49 / 45 / 37
    2 x 2 x 512, 3x3, 1           822 / 812 / -      11 / 11 / 13    787 / 809 / 14
    32 x 32 x 64, 3x3, 2          48 / 49 / 118      31 / 43 / 41
    4 x 4 x 256, 3x3, 2           14 / 205 / 8       6 / 7 / 5
    32 x 32 x 64, 1x1, 2          7 / 7 / 46         4 / 4 / 7
    32 x 32 x 1, 3x3, 1           5 / - / 11         3 / - / 3       5 / - / 9
"""
import functools

import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

LOWERINGS = ("auto", "xla", "matmul")   # to ask for; "mixed" is a choice of "auto"
MIN_POSITIONS = 32                  # and
MIN_CHANNELS = 16                   # of the input, for which "auto" takes lax.conv on CPU
PART = 8 * 2**20                    # bytes to gather at a time for products

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
    if lowering == "mixed":
        return _mixed(x, kernel)
    return {"xla": _xla, "matmul": _matmul}[lowering](x, kernel, stride)


def _choose(x, kernel, stride: int) -> str:
    """The fastest lowering by the table of this module."""
    if jax.default_backend() != "cpu":
        return "xla"
    small = x.shape[1] * x.shape[2] < MIN_POSITIONS or x.shape[-1] < MIN_CHANNELS
    return "matmul" if stride > 1 or kernel.shape[0] == 1 or small else "mixed"


def _xla(x, kernel, stride: int):
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2,
                                    dimension_numbers=("NHWC", "HWIO", "NHWC"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(x, kernel, stride: int):
    def part(x):
        return _patches(x, kernel.shape[0], stride) @ _rows(kernel)

    return _join(lax.map(part, _split(x, _patch_bytes(x, kernel, stride))))


def _matmul_forward(x, kernel, stride: int):
    return _matmul(x, kernel, stride), (x, kernel)


def _matmul_backward(stride: int, residuals, g):
    x, kernel = residuals
    k, size = kernel.shape[0], _patch_bytes(x, kernel, stride)

    def x_gradient(xg):
        x, g = xg
        return jax.vjp(lambda x: _patches(x, k, stride), x)[1](g @ _rows(kernel).T)[0]

    def kernel_gradient(x, g):
        return _transposed_product(_patches(x, k, stride), g).reshape(kernel.shape)

    return (_join(lax.map(x_gradient, (_split(x, size), _split(g, size)))),
            _sum_over_parts(kernel_gradient, x, g, size))


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _patches(x, k: int, stride: int):
    """What a k x k convolution sees at every position: [B, H', W', k * k * C]."""
    pad = k // 2
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    x = jnp.stack([x[:, :, j:j + width:stride] for j in range(k)], axis=3)
    x = jnp.stack([x[:, i:i + height:stride] for i in range(k)], axis=3)
    return x.reshape(*x.shape[:3], -1)


def _patch_bytes(x, kernel, stride: int) -> int:
    """Size of the patches of one example."""
    height, width = x.shape[1:3]
    return -(-height // stride) * -(-width // stride) * kernel[..., 0].size * x.dtype.itemsize


def _split(x, size: int):
    """[B, ...] -> [P, B / P, ...]: parts of which each takes PART bytes, if an example takes `size`.

    What is gathered for one part stays in the processor's cache until it is multiplied.
    """
    batch = len(x)
    count = next(n for n in range(1, batch + 1) if batch % n == 0 and
                 (n == batch or batch // n * size <= PART))
    return x.reshape(count, batch // count, *x.shape[1:])


def _join(x):
    """The inverse of `_split`."""
    return x.reshape(-1, *x.shape[2:])


def _sum_over_parts(fn, x, g, size: int):
    """The sum of fn(x, g), which is float32, over the parts of both; in the type of x."""
    parts = _split(x, size), _split(g, size)
    zeros = jnp.zeros_like(jax.eval_shape(fn, parts[0][0], parts[1][0]))
    return lax.scan(lambda total, part: (total + fn(*part), None), zeros, parts)[0].astype(x.dtype)


def _rows(x):
    """[..., C] -> [N, C]."""
    return x.reshape(-1, x.shape[-1])


def _transposed_product(x, y):
    """x [..., C]^T y [..., O] -> float32 [C, O].

    Written like this because the gradient that JAX makes of a product transposes y in memory.
    """
    return jnp.matmul(_rows(x).T, _rows(y), preferred_element_type=jnp.float32)


@jax.custom_vjp
def _mixed(x, kernel):
    return _xla(x, kernel, 1)


def _mixed_forward(x, kernel):
    return _xla(x, kernel, 1), (x, kernel)


def _mixed_backward(residuals, g):
    x, kernel = residuals
    k = kernel.shape[0]
    size = k * (x[0].nbytes + g[0].nbytes)      # of what _kernel_gradient gathers for an example
    (x_gradient,) = jax.vjp(lambda x: _xla(x, kernel, 1), x)[1](g)
    return x_gradient, _sum_over_parts(lambda x, g: _kernel_gradient(x, g, k), x, g, size)


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
    product = _transposed_product(xs.reshape(*x.shape[:3], -1), gs.reshape(*g.shape[:3], -1))
    return product.reshape(k, x.shape[-1], k, g.shape[-1]).transpose(2, 0, 1, 3)
