"""ResNets (He et al., "Deep Residual Learning for Image Recognition", 2016) as in torchvision."""
import functools

from flax import linen as nn

from jaxmm.encoders.conv import Conv
from jaxmm.encoders.networks import finish, is_end, max_pool, stages_of
from jaxmm.encoders.norm import batch_norm

STEMS = ("standard", "small")       # that a user may name
SIZES = {"standard": (7, 2), "small": (3, 1), "video": ((3, 7), (1, 2))}     # of the stem's kernel, and stride


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection, 1x1 where the shape changes."""
    features: int
    stride: int
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        y = nn.relu(self.norm()(self.conv(self.features, 3, self.stride)(x)))
        y = self.norm()(self.conv(self.features, 3)(y))
        return connect(self, x, y)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 with the stride, and 1x1 to four times the channels; the same connection."""
    features: int
    stride: int
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        y = nn.relu(self.norm()(self.conv(self.features, 1)(x)))
        y = nn.relu(self.norm()(self.conv(self.features, 3, self.stride)(y)))
        y = self.norm()(self.conv(4 * self.features, 1)(y))
        return connect(self, x, y)


class NonBottleneck1D(nn.Module):
    """Two pairs of convolutions 3 x 1 and 1 x 3 with biases, a ReLU between; the same connection.

    Of the first pair each has the stride along its own axis. From ERFNet (Romera et al., 2018), as ESANet has it.
    """
    features: int
    stride: int
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        def apply_pair(x, stride):
            x = nn.relu(self.conv(self.features, (3, 1), (stride, 1), use_bias=True)(x))
            return self.norm(epsilon=1e-3)(self.conv(self.features, (1, 3), (1, stride), use_bias=True)(x))

        y = apply_pair(nn.relu(apply_pair(x, self.stride)), 1)
        return connect(self, x, y)


def connect(block: nn.Module, x, y):
    """The end of a block: ReLU of its input plus its output, the former through a 1x1 where shapes differ."""
    if x.shape != y.shape:
        x = block.norm()(block.conv(y.shape[-1], 1, block.stride)(x))
    return nn.relu(x + y)


class ResNet(nn.Module):
    """Images [B, H, W, C] -> features [B, 8 * width], or a Dense layer of `features` more.

    The stem is 7x7 with stride 2 and a max-pool ("standard") or 3x3 ("small", for images of about
    32 pixels). With `conv` Conv3D, which sees clips [B, T, H, W, C], it is 3x7x7 with stride 2 in space
    ("video"), and the stride of stages is in time, too: torchvision's r3d_18. Then come stages of blocks; from the
    second on, each doubles the width and halves the size.
    Bottlenecks put out four times as many channels. As a chain, the stem is stage 0 and its max-pool
    belongs to stage 1.
    """
    block: type[nn.Module]
    blocks: tuple[int, ...]     # of each stage
    width: int
    features: int = 0
    stem: str = "small"
    conv: type[nn.Module] = Conv
    lowering: str = "auto"
    axis_name: str | None = None
    remat: bool = False     # compute the inside of blocks again in the backward pass

    @property
    def num_stages(self) -> int:
        return 1 + len(self.blocks)

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None, part: int | None = None):
        make_block = nn.remat(self.block) if self.remat else self.block
        conv = functools.partial(self.conv, lowering=self.lowering)

        norm = batch_norm(self.axis_name, train, mask)

        for stage in stages_of(self, part):
            if stage == 0:
                size, stride = SIZES[self.stem]
                x = nn.relu(norm(name="BatchNorm_0")(conv(self.width, size, stride,
                                                          name="Conv_0")(x)))
                continue
            if stage == 1 and self.stem == "standard":
                x = max_pool(x, 3)
            before = sum(self.blocks[:stage - 1])
            for i in range(self.blocks[stage - 1]):
                stride = 2 if stage > 1 and i == 0 else 1
                x = make_block(self.width * 2**(stage - 1), stride, conv, norm,
                               name=f"{self.block.__name__}_{before + i}")(x)
        return finish(self, x) if is_end(part) else x
