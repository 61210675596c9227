"""The audio pathway of AVSlowFast (Xiao et al., "Audiovisual SlowFast Networks", arXiv 2001.08740)."""
import functools

from flax import linen as nn
import jax.numpy as jnp

from jaxmm.encoders.conv import Conv
from jaxmm.encoders.conv3d import Conv3D
from jaxmm.encoders.networks import finish, is_end, stages_of
from jaxmm.encoders.norm import batch_norm
from jaxmm.encoders.resnet import Bottleneck, connect


class AxisConv(nn.Module):
    """Convolution of [B, T, F, C] along one axis, 1 (times) or 2 (bands); the stride is along both."""
    features: int
    size: int
    axis: int
    stride: int = 1
    lowering: str = "auto"

    @nn.compact
    def __call__(self, x):
        x = x.swapaxes(1, self.axis)
        x = Conv3D(self.features, (self.size, 1), self.stride, self.lowering)(x[:, :, :, None])[:, :, :, 0]
        return x.swapaxes(1, self.axis)


class SeparableBottleneck(nn.Module):
    """Convolutions 3 x 1 and 1 x 3 beside each other, and 1 x 1 of both to four times the channels."""
    features: int
    stride: int
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        sides = [nn.relu(self.norm()(AxisConv(self.features, 3, axis, self.stride)(x))) for axis in (1, 2)]
        y = self.norm()(self.conv(4 * self.features, 1)(jnp.concatenate(sides, -1)))
        return connect(self, x, y)


class Separable(nn.Module):
    """Spectrograms [B, T, F, C] -> features [B, 32 * width], or a Dense layer of `features` more.

    The stem is the sum of a convolution over nine times and one over nine bands, without a stride. The first
    two stages have separable blocks, the last two bottlenecks. As a chain, the stem is stage 0.
    """
    blocks: tuple[int, ...]
    width: int
    features: int = 0
    lowering: str = "auto"
    axis_name: str | None = None
    remat: bool = False     # compute the inside of blocks again in the backward pass

    @property
    def num_stages(self) -> int:
        return 1 + len(self.blocks)

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None, part: int | None = None):
        conv = functools.partial(Conv, lowering=self.lowering)

        norm = batch_norm(self.axis_name, train, mask)

        for stage in stages_of(self, part):
            if stage == 0:
                x = sum(AxisConv(self.width, 9, axis, lowering=self.lowering, name=f"AxisConv_{axis - 1}")(x)
                        for axis in (1, 2))
                x = nn.relu(norm(name="BatchNorm_0")(x))
                continue
            block = SeparableBottleneck if stage < 3 else Bottleneck
            make = nn.remat(block) if self.remat else block
            for i in range(self.blocks[stage - 1]):
                stride = 2 if stage > 1 and i == 0 else 1
                x = make(self.width * 2**(stage - 1), stride, conv, norm, name=f"block_{stage}_{i}")(x)
        return finish(self, x) if is_end(part) else x
