"""The pathways of SlowFast (Feichtenhofer et al., "SlowFast Networks for Video Recognition", 2019).

They are bottleneck ResNets over clips whose stride is in space alone. Sizes are those of the 8 x 8 models that
are released with PySlowFast and pytorchvideo, without the dropout and the linear layer at their ends.
"""
import functools

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from jaxmm.encoders.conv3d import Conv3D
from jaxmm.encoders.networks import finish, is_end, max_pool, stages_of
from jaxmm.encoders.norm import batch_norm
from jaxmm.encoders.resnet import connect
from jaxmm.errors import UserError

ALPHA = 4       # frames of the fast pathway to one of the slow
BETA = 8        # channels of the slow pathway to one of the fast
SLOW = (1, 1, 1, 3, 3)      # extent in time of the stem, and of the first layer of each block by stage
FAST = (5, 3, 3, 3, 3)


class VideoBottleneck(nn.Module):
    """Convolutions t x 1 x 1, 1 x 3 x 3 with the stride, and 1 x 1 x 1 to four times the channels.

    The scale of its last norm is 0 at the start, so that a block begins as its skip connection.
    """
    features: int
    stride: tuple[int, int]     # in time and space
    time: int
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        y = nn.relu(self.norm()(self.conv(self.features, (self.time, 1))(x)))
        y = nn.relu(self.norm()(self.conv(self.features, (1, 3), self.stride)(y)))
        y = self.norm(scale_init=nn.initializers.zeros)(self.conv(4 * self.features, 1)(y))
        return connect(self, x, y)


class Stage(nn.Module):
    """Stage 0 is a convolution t x 7 x 7, norm, ReLU and a max-pool over space; others are of blocks."""
    number: int
    blocks: int
    width: int              # of stage 1
    time: int
    block: type[nn.Module]
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        if self.number == 0:
            x = nn.relu(self.norm()(self.conv(self.width, (self.time, 7), (1, 2))(x)))
            return max_pool(x.reshape(-1, *x.shape[2:]), 3).reshape(*x.shape[:2], *[
                -(-size // 2) for size in x.shape[2:4]], x.shape[-1])
        for i in range(self.blocks):
            stride = 2 if self.number > 1 and i == 0 else 1
            x = self.block(self.width * 2**(self.number - 1), (1, stride), self.time, self.conv, self.norm,
                           name=f"block_{i}")(x)
        return x


class Lateral(nn.Module):
    """What the fast pathway adds to the slow one: a convolution k x 1 x 1 of every fourth frame, norm, ReLU."""
    size: int
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        return nn.relu(self.norm()(self.conv(2 * x.shape[-1], (self.size, 1), (ALPHA, 1))(x)))


class Slow(nn.Module):
    """The slow pathway alone: clips [B, T, H, W, C] -> features [B, 32 * width], or a Dense layer more.

    As a chain, the stem with its max-pool is stage 0.
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
        make = _stages(self, train, mask)
        for i in stages_of(self, part):
            x = make(i, "slow", self.width, SLOW)(x)
        return finish(self, x) if is_end(part) else x


class SlowFast(nn.Module):
    """Both pathways: clips [B, T, H, W, C] -> features [B, 32 * width + 4 * width], slow before fast.

    The fast pathway sees all T frames, the slow one a quarter of them and, after some of the stages, also what
    the fast one saw. T is a multiple of 4. A pair (slow, fast) of clips is taken as it is, and as a chain all
    stages put out such a pair.
    """
    blocks: tuple[int, ...]
    width: int
    lateral: int            # extent in time of the lateral connections
    after: tuple[int, ...] = (0, 1, 2, 3)       # stages that they stand behind
    features: int = 0
    lowering: str = "auto"
    axis_name: str | None = None
    remat: bool = False

    @property
    def num_stages(self) -> int:
        return 1 + len(self.blocks)

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None, part: int | None = None):
        slow, fast = x if isinstance(x, tuple) else (slow_frames(x), x)
        make = _stages(self, train, mask)
        for i in stages_of(self, part):
            slow, fast = make(i, "slow", self.width, SLOW)(slow), make(i, "fast", self.width // BETA, FAST)(fast)
            if i in self.after:
                lateral = Lateral(self.lateral, _conv(self), batch_norm(self.axis_name, train, mask), name=f"lateral_{i}")
                slow = jnp.concatenate([slow, lateral(fast)], -1)
        return finish(self, slow, fast) if is_end(part) else (slow, fast)


def slow_frames(x):
    """The frames of clips [B, T, ...] that the slow pathway sees: T / 4 at equal steps, first and last included.

    Raises:
      UserError: T is no multiple of 4.
    """
    frames = x.shape[1]
    if frames % ALPHA:
        raise UserError(f"slowfast: found clips of {frames} frames, expected a multiple of {ALPHA}")
    return x[:, np.linspace(0, frames - 1, frames // ALPHA).astype(int)]


def _stages(net, train, mask):
    """make(i, path, width, times): the i-th stage of a pathway."""
    block = nn.remat(VideoBottleneck) if net.remat else VideoBottleneck

    def make(i, path, width, times):
        return Stage(i, net.blocks[i - 1], width, times[i], block, _conv(net),
                     batch_norm(net.axis_name, train, mask), name=f"{path}_{i}")

    return make


def _conv(net):
    return functools.partial(Conv3D, lowering=net.lowering)
