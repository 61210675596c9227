"""Convolutions over clips [B, T, H, W, C].

On CPU, XLA's own three-dimensional convolutions are slow, so they are two-dimensional ones of all frames, each with its
neighbours in time side by side as channels. Measured on 2 cores, milliseconds of the output and its gradients in input
and kernel, kernels of 3 x 3 x 3 (and 3 x 7 x 7, stride 2 in space):

    input                     xla                side by side
    4 x 8 x 28 x 28 x 64      388 / 724 / 826    51 / 37 / 29
    4 x 4 x 14 x 14 x 128     92 / 189 / 247     9 / 10 / 11
    4 x 2 x 7 x 7 x 256       12 / 26 / 136      6 / 8 / 6
    2 x 32 x 112 x 112 x 3                       77 / - / 97

A sum of two-dimensional ones over the taps in time takes 108 / - / 96 for the last, and for 2 x 16 x 56 x 56 x 64 takes
97 / 93 / 163 where side by side is 92 / 86 / 123.
"""
import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from jaxmm.encoders.conv import Pair, conv2d, pair      # pairs are of time and space here
from jaxmm.encoders.draws import he_fan_out


class Conv3D(nn.Module):
    """Convolution [B, T, H, W, C] -> [B, ceil(T / s), ceil(H / r), ceil(W / r), features], stride (s, r).

    The kernel [t, k, k, C, features], of size (t, k), is float32, drawn by He et al. (2015) from the
    fan-out; the result is in the type of the input.
    """
    features: int
    size: Pair = 3
    stride: Pair = 1
    lowering: str = "auto"

    @nn.compact
    def __call__(self, x):
        time, space = pair(self.size)
        shape = (time, space, space, x.shape[-1], self.features)
        kernel = self.param("kernel", he_fan_out, shape, jnp.float32)
        return conv3d(x, kernel.astype(x.dtype), self.stride, self.lowering)


def conv3d(x: chex.Array, kernel: chex.Array, stride: Pair = 1, lowering: str = "auto") -> chex.Array:
    """Convolves x [B, T, H, W, C] with kernel [t, k, k, C, O], t and k odd, padded by t // 2 and k // 2.

    `lowering` is that of `conv2d` for the frames; "xla", and "auto" on accelerators, is one lax.conv.
    """
    chex.assert_rank([x, kernel], 5)
    step, space = pair(stride)
    time, size = kernel.shape[:2]
    if lowering == "xla" or (lowering == "auto" and jax.default_backend() != "cpu"):
        pad = [(n // 2, n // 2) for n in (time, size, size)]
        return lax.conv_general_dilated(x, kernel, (step, space, space), pad,
                                        dimension_numbers=("NTHWC", "THWIO", "NTHWC"))
    frames = -(-x.shape[1] // step)
    padded = jnp.pad(x, [(0, 0), (time // 2, time // 2)] + [(0, 0)] * 3) if time > 1 else x
    taps = [padded[:, i:i + (frames - 1) * step + 1:step].reshape(-1, *x.shape[2:]) for i in range(time)]
    y = conv2d(jnp.concatenate(taps, -1), jnp.concatenate(list(kernel), 2), space, lowering)
    return y.reshape(-1, frames, *y.shape[1:])
