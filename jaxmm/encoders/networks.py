"""The networks: examples [B, ...] -> features [B, s], all called as `net(x, train=, mask=)`."""
import functools

from flax import linen as nn
from jax import lax
import jax.numpy as jnp

from jaxmm.encoders.conv import Conv
from jaxmm.encoders.norm import BatchNorm

he_normal = nn.initializers.he_normal()


class MLP(nn.Module):
    """Dense + ReLU layers of the given widths over the flattened example."""
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=x.dtype, kernel_init=he_normal)(x))
        return x


class Flatten(nn.Module):
    """The flattened example as it is, without parameters: for features that were made before."""

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        return x.reshape(x.shape[0], -1)


class CNN(nn.Module):
    """Stages of 3x3 convolution, batch norm, max-pool and ReLU; mean over positions; Dense, ReLU.

    The width doubles from stage to stage. An axis of length 1 is pooled no further.
    """
    width: int
    depth: int
    features: int
    lowering: str = "auto"
    axis_name: str | None = None
    remat: bool = False     # compute the inside of stages again in the backward pass

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        def apply_stage(self, x, stage):
            x = Conv(self.width * 2**stage, lowering=self.lowering, name=f"Conv_{stage}")(x)
            x = BatchNorm(self.axis_name, name=f"BatchNorm_{stage}")(x, train=train, mask=mask)
            return nn.relu(max_pool(x, 2))  # as pooling the ReLU, on a quarter of the positions

        if self.remat:
            apply_stage = nn.remat(apply_stage, static_argnums=2)
        for stage in range(self.depth):
            x = apply_stage(self, x, stage)
        x = mean_pool(x)
        return nn.relu(nn.Dense(self.features, dtype=x.dtype, kernel_init=he_normal)(x))


def max_pool(x, size: int):
    """Max-pool of [B, H, W, C] with stride 2 over windows of `size`, as in PyTorch.

    3 pads by one on each side; 2 drops an odd last row or column, and leaves an axis of length 1.
    As maxima of slices, one axis after the other: the gradient of a windowed reduction is 3.5
    times slower on CPU.
    """
    for axis in 1, 2:
        if size == 3:
            pad = [(0, 0)] * 4
            pad[axis] = (1, 1)
            x = jnp.pad(x, pad, constant_values=-jnp.inf)
        length = x.shape[axis]
        if length >= size:
            last = length - size + 1
            slices = [lax.slice_in_dim(x, i, i + last, 2, axis) for i in range(size)]
            x = functools.reduce(jnp.maximum, slices)
    return x


def mean_pool(x):
    """Mean of [B, H, W, C] over positions, taken in float32, in the type of x."""
    return x.mean((1, 2), dtype=jnp.float32).astype(x.dtype)
