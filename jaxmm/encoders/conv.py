"""The one convolution of this package, and how it is computed.

Every convolution here is PyTorch's: NHWC, odd kernel h x w, symmetric padding h // 2 and w // 2. (The
"SAME" padding of flax differs for stride 2 on even sizes.)

Four lowerings give the same numbers, to rounding. "xla" is lax.conv; "matmul" is all patches side by side times the
kernel; "mixed" is lax.conv with gradients of its own; "winograd" is in `jaxmm.encoders.winograd`. "auto" is "xla" on
GPU and TPU. On CPU it is what was fastest on 2 cores with jax 0.10.2 and the `compiler_options` of
`jaxmm.train.programs`. Times are milliseconds of the output and its gradients in input and kernel, of a batch of 64:

- "winograd" for kernels of 3 x 3 with stride 1, in float32, where there is much to multiply. With fewer channels its
  sums take longer than the products that it saves, and with few tiles what it makes of the kernel does:

    input, 3x3, 1                 xla               winograd
    32 x 32 x 64                  27 / 28 / 45      19 / 19 / 39
    16 x 16 x 128                 25 / 25 / 28      15 / 15 / 23
    8 x 8 x 256                   24 / 24 / 25      13 / 13 / 19
    4 x 4 x 512                   23 / 27 / 24      13 / 13 / 16
    2 x 2 x 512                   530 / 530 / 6     5 / 5 / 5
    28 x 28 x 32                  5 / 5 / 11        10 / 10 / 11
    8 x 8 x 256, batch 2          1.0 / 1.7 / 1.3   1.1 / 1.5 / 1.2

- "matmul" for few positions, where lax.conv collapses, for small patches, which cost little, and for k = 1:

    input, kernel, stride         xla               matmul
    4 x 4 x 256, 3x3, 2           14 / 227 / 10     7 / 10 / 6
    32 x 32 x 64, 1x1, 2          7 / 7 / 48        7 / 6 / 6
    28 x 28 x 1, 3x3, 1           1.6 / - / 0.2     0.7 / - / 0.4

- "xla" for other first layers: 7x7, stride 2, on 16 pictures of 224 x 224 x 3 takes 43 / - / 50 against 84 / - / 59.
- "mixed" otherwise. XLA's gradient in the kernel is as fast, but only with these options and outside loops (without
  them 1380 ms for 32 x 32 x 64, 3x3, 1), so it is made of patches, of a part of the batch at a time that stays in the
  cache: 40 ms there, 166 of all patches at once. Its gradient in the input of a stride 2 is one of several
  convolutions: 20 ms in place of 37 (32 x 32 x 64 to 128 channels), 52 of 106 (56 x 56 x 64, batch 48).

In a loop (`lax.scan`) a convolution and its gradients take 2 to 2.5 times as long as alone.
"""
import functools
import math
from collections.abc import Callable

import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from jaxmm.encoders import winograd
from jaxmm.encoders.draws import fan_in_bias, he_fan_out
from jaxmm.encoders.parts import parts_in_cache, sum_over_parts

LOWERINGS = ("auto", "xla", "matmul")   # that a user may name; only "auto" chooses the others
WIDE = 64                           # channels, in and out: with as many,
MIN_PRODUCTS = 2**22                # and more tiles * C * O in a part of the batch, "auto" takes "winograd" on CPU
MIN_POSITIONS = 32                  # of the output; with fewer, of the rest it takes "matmul"
MIN_TAPS = 64                       # h * w * C; the same
MIN_CHANNELS = 8                    # of the input; with fewer, what still remains is "xla"

Pair = int | tuple[int, int]        # (rows, columns); a number stands for both


class Conv(nn.Module):
    """Convolution [B, H, W, C] -> [B, ceil(H / s), ceil(W / r), features], stride (s, r).

    The kernel [h, w, C, features], of size (h, w), is float32, drawn by He et al. (2015) from the fan-out
    unless `kernel_init` says otherwise; the bias is drawn as PyTorch draws it. The result is in the type of
    the input.
    """
    features: int
    size: Pair = 3
    stride: Pair = 1
    lowering: str = "auto"
    use_bias: bool = False
    kernel_init: Callable = he_fan_out

    @nn.compact
    def __call__(self, x):
        shape = (*pair(self.size), x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = conv2d(x, kernel.astype(x.dtype), self.stride, self.lowering)
        if self.use_bias:
            y += self.param("bias", fan_in_bias(math.prod(shape[:-1])), (self.features,)).astype(y.dtype)
        return y


def pair(size: Pair) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def conv2d(x: chex.Array, kernel: chex.Array, stride: Pair = 1, lowering: str = "auto"):
    """Convolves x [B, H, W, C] with kernel [h, w, C, O], h and w odd, by the lowering named."""
    chex.assert_rank([x, kernel], 4)
    stride = pair(stride)
    if lowering == "auto":
        lowering = _choose(x, kernel, stride)
    return {"xla": _xla, "matmul": _matmul, "mixed": _mixed, "winograd": _winograd}[lowering](x, kernel, stride)


def _choose(x, kernel, stride) -> str:
    """The fastest lowering by the tables of this module."""
    if jax.default_backend() != "cpu":
        return "xla"
    if _suits_winograd(x, kernel, stride):
        return "winograd"
    positions = -(-x.shape[1] // stride[0]) * -(-x.shape[2] // stride[1])
    if positions < MIN_POSITIONS or math.prod(kernel.shape[:3]) < MIN_TAPS or kernel.shape[:2] == (1, 1):
        return "matmul"
    return "mixed" if x.shape[-1] >= MIN_CHANNELS else "xla"


def _xla(x, kernel, stride):
    pad = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(x, kernel, stride, pad, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _suits_winograd(x, kernel, stride) -> bool:
    if kernel.shape[:2] != (3, 3) or stride != (1, 1) or x.dtype != jnp.float32:
        return False
    # An exported program takes any number of rows, which has no equal parts.
    if not isinstance(x.shape[0], int) or min(x.shape[1:3]) < 2 or min(kernel.shape[2:]) < WIDE:
        return False
    rows = len(x) // winograd.count_parts(x, kernel)
    return rows * winograd.tiles(x) * math.prod(kernel.shape[2:]) > MIN_PRODUCTS


def _winograd(x, kernel, stride):
    chex.assert_equal(stride, (1, 1))
    return winograd.convolve(x, kernel)


def _matmul(x, kernel, stride):
    return _product(_patches(x, kernel.shape[:2], stride), kernel.reshape(-1, kernel.shape[-1]))


def _patches(x, size, stride):
    """The patch that an h x w convolution sees at every position: [B, H', W', h * w * C]."""
    (h, w), (height, width) = size, x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    x = jnp.stack([x[:, :, j:j + width:stride[1]] for j in range(w)], axis=3)
    x = jnp.stack([x[:, i:i + height:stride[0]] for i in range(h)], axis=3)
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
def _mixed(x, kernel, stride):
    return _xla(x, kernel, stride)


def _mixed_forward(x, kernel, stride):
    return _xla(x, kernel, stride), (x, kernel)


def _mixed_backward(stride, residuals, g):
    x, kernel = residuals
    return _input_gradient(x, kernel, g, stride), _kernel_gradient(x, g, kernel.shape[:2], stride)


_mixed.defvjp(_mixed_forward, _mixed_backward)


def _input_gradient(x, kernel, g, stride):
    """Gradient in x [B, H, W, C]: that of a stride (s, r) as s * r convolutions of stride 1.

    The rows s * i + a of x, for every a < s, were seen by the taps u for which s divides a + h // 2 - u, in row
    i + (a + h // 2 - u) // s of g. XLA's own way, of one convolution of g with zeros in between, takes twice as long.
    """
    if stride == (1, 1) or any(size < s for s, size in zip(stride, kernel.shape)):
        return jax.vjp(lambda x: _xla(x, kernel, stride), x)[1](g)[0]

    def taps(a, size, s):
        """(first tap, least and largest row of g beside i) of rows a."""
        rows = {u: (a + size // 2 - u) // s for u in range(size) if (a + size // 2 - u) % s == 0}
        return min(rows), min(rows.values()), max(rows.values())

    def part(a, b):
        (u, *rows), (v, *columns) = (taps(*each) for each in zip((a, b), kernel.shape, stride))
        seen = kernel[u::stride[0], v::stride[1]][::-1, ::-1].swapaxes(2, 3)
        return lax.conv_general_dilated(g, seen, (1, 1), [(-low, high) for low, high in (rows, columns)],
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))

    parts = jnp.stack([jnp.stack([part(a, b) for b in range(stride[1])], 3) for a in range(stride[0])], 2)
    height, width = g.shape[1] * stride[0], g.shape[2] * stride[1]
    return parts.reshape(len(x), height, width, x.shape[-1])[:, :x.shape[1], :x.shape[2]]


def _kernel_gradient(x, g, size, stride):
    """Gradient [h, w, C, O] in the kernel, summed over parts of the batch whose patches stay in the cache.

    The barrier keeps XLA from moving the patches into the product; the gradient is the left factor since
    it is the narrow one.
    """
    taps = math.prod(size) * x.shape[-1]
    parts = parts_in_cache(len(x), math.prod(g.shape[1:3]) * taps * x.dtype.itemsize)

    def products(x, g):
        patches, rows = lax.optimization_barrier((_rows(_patches(x, size, stride)), _rows(g)))
        return jnp.matmul(rows.T, patches, preferred_element_type=jnp.float32)

    total = sum_over_parts(products, (g.shape[-1], taps), parts, x, g)
    return total.T.reshape(*size, x.shape[-1], g.shape[-1]).astype(x.dtype)
