"""The one convolution of this package, and how it is computed.

Every convolution here is PyTorch's: NHWC, square odd kernel k, symmetric padding (k - 1) // 2, no
bias. (The "SAME" padding of flax differs for stride 2 on even sizes.)
"""
import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

LOWERINGS = ("auto", "xla", "matmul")
MATMUL_POSITIONS = 256              # largest H * W of the output for which "auto" takes "matmul"

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


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
        kernel = self.param("kernel", he_normal, shape, jnp.float32)
        return conv2d(x, kernel.astype(x.dtype), self.stride, self.lowering)


def conv2d(x: chex.Array, kernel: chex.Array, stride: int = 1, lowering: str = "auto"):
    """Convolves x [B, H, W, C] with kernel [k, k, C, O], k odd, by the lowering named."""
    chex.assert_rank([x, kernel], 4)
    pad = kernel.shape[0] // 2
    size = [-(-n // stride) for n in x.shape[1:3]]
    if lowering == "auto":
        small = size[0] * size[1] <= MATMUL_POSITIONS
        lowering = "matmul" if jax.default_backend() == "cpu" and small else "xla"
    if lowering == "xla":
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return patches(x, kernel.shape[0], stride) @ kernel.reshape(-1, kernel.shape[-1])


def patches(x: chex.Array, k: int, stride: int) -> chex.Array:
    """What a k x k convolution sees at every position: [B, H', W', k * k * C]."""
    pad = k // 2
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    slices = [x[:, i:i + height:stride, j:j + width:stride] for i in range(k) for j in range(k)]
    return jnp.concatenate(slices, axis=-1)
