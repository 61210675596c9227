"""The networks: examples [B, ...] -> features [B, s], all called as `net(x, train=, mask=)`.

Those with `num_stages` are chains: `net(x, part=i)` is stage number i alone, and `net(x, part=-1)`
is everything after the last stage.
"""
import functools

from flax import linen as nn
from jax import lax
import jax.numpy as jnp

from jaxmm.encoders.conv import Conv
from jaxmm.encoders.draws import he_normal, lecun_normal
from jaxmm.encoders.norm import BatchNorm


class MLP(nn.Module):
    """Dense + ReLU layers of the given widths over the flattened example; each is a stage."""
    widths: tuple[int, ...]

    @property
    def num_stages(self) -> int:
        return len(self.widths)

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None, part: int | None = None):
        x = x.reshape(x.shape[0], -1)
        for i in stages_of(self, part):
            x = nn.relu(nn.Dense(self.widths[i], dtype=x.dtype, kernel_init=he_normal,
                                 name=f"Dense_{i}")(x))
        return x


class Flatten(nn.Module):
    """The flattened example as it is, without parameters: for features that are computed already."""

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        return x.reshape(x.shape[0], -1)


class CNN(nn.Module):
    """Stages of 3x3 convolution, batch norm, max-pool and ReLU; mean over positions; Dense, ReLU.

    The width doubles from stage to stage. An axis of length 1 is not pooled any further.
    """
    width: int
    depth: int
    features: int
    lowering: str = "auto"
    axis_name: str | None = None
    remat: bool = False     # compute the inside of stages again in the backward pass

    @property
    def num_stages(self) -> int:
        return self.depth

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None, part: int | None = None):
        def apply_stage(self, x, stage):
            x = Conv(self.width * 2**stage, lowering=self.lowering, name=f"Conv_{stage}")(x)
            x = BatchNorm(self.axis_name, name=f"BatchNorm_{stage}")(x, train=train, mask=mask)
            return nn.relu(max_pool(x, 2))  # as pooling the ReLU, on a quarter of the positions

        if self.remat:
            apply_stage = nn.remat(apply_stage, static_argnums=2)
        for stage in stages_of(self, part):
            x = apply_stage(self, x, stage)
        if not is_end(part):
            return x
        x = mean_pool(x)
        return nn.relu(nn.Dense(self.features, dtype=x.dtype, kernel_init=he_normal)(x))


def stages_of(net: nn.Module, part: int | None) -> range:
    """The numbers of the stages in a part of a chain: all (None), one, or none (-1)."""
    return range(net.num_stages) if part is None else range(part, part + (part >= 0))


def is_end(part: int | None) -> bool:
    """Whether a part of a chain includes what comes after the last stage."""
    return part is None or part < 0


def finish(net: nn.Module, *maps):
    """The means [B, C] of maps [B, ..., C] side by side; then a Dense layer, if `net.features` asks for one.

    Called within a module, of which the layer is a part.
    """
    x = jnp.concatenate([mean_pool(x) for x in maps], -1)
    if net.features not in (0, x.shape[-1]):
        x = nn.Dense(net.features, dtype=x.dtype, kernel_init=lecun_normal, name="Dense_0")(x)
    return x


def max_pool(x, size: int):
    """Max-pool of [B, H, W, C] with stride 2 over windows of `size`, as in PyTorch.

    Size 3 pads by one on each side; size 2 drops an odd last row or column, and leaves an axis of
    length 1. It is computed as maxima of slices, one axis after the other: the gradient of a windowed
    reduction is 3.5 times slower on CPU.
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
    """Mean of [B, ..., C] over positions, taken in float32, in the type of x."""
    return x.mean(tuple(range(1, x.ndim - 1)), dtype=jnp.float32).astype(x.dtype)
