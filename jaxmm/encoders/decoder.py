"""Decoders: maps of encoders' stages -> maps that are large enough for a class at every pixel.

The parameters of a decoder are the parameter group "decoder" of a model. The one here is that of ESANet (Seichter et
al., "Efficient RGB-D semantic segmentation for indoor scene analysis", arXiv 2011.06961).
"""
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import chex
from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from jaxmm.encoders.conv import Conv
from jaxmm.encoders.draws import fan_in_uniform, init_net
from jaxmm.encoders.norm import batch_norm
from jaxmm.encoders.resnet import NonBottleneck1D
from jaxmm.errors import UserError

SCALES = (32, 16, 8, 4)     # pixels of an image to one of a map, from the last stage to the first behind the stem
BINS = (1, 5)               # of the context, along each axis
BILINEAR = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16     # twice the size, as a convolution
# Where every row stands twice, a kernel's three rows at row 2 i meet the rows i - 1, i, i, and at 2 i + 1 the rows
# i, i, i + 1: by parity and by which of the two rows, the kernel's rows that meet it.
PHASES = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


class Decoder(NamedTuple):
    """A decoder as pure functions.

    `init(key, shapes) -> params, stats`, from the shapes by modality of an encoder's input and of the output of each
    stage, and `apply(params, stats, taps, *, train, mask=None) -> maps, stats`, where `taps` are the outputs
    [B, h, w, C] of each stage by modality, `mask` bool [B] says which rows batch norm counts, and the maps are
    [B, h, w, s] by name: "fused" at 1/4 of the image's size, and "side_8", "side_16" and "side_32" at shares that
    their names say.
    """
    init: Callable
    apply: Callable


def esanet_decoder(main: str, width: int = 0, blocks: int = 3, axis_name: str | None = None) -> Decoder:
    """The decoder of ESANet on the last four stages of one modality, whose strides are 4, 8, 16 and 32.

    Args:
      main: that modality.
      width: channels of the first of three modules, which halve in each of the others; 0: as many as the last
        stage has.
      blocks: of each module.
      axis_name: device axis over which the statistics of batch norm are taken.
    """

    def net(last):
        first = width or last
        return PyramidDecoder((first, first // 2, first // 4), blocks, axis_name)

    def init(key, shapes: Mapping[str, Sequence[tuple[int, ...]]]):
        (height, length), *found = [shape[1:3] for shape in shapes[main]]
        if len(found) != 5 or height % SCALES[0] or length % SCALES[0] or list(found[1:]) != [
                (height // scale, length // scale) for scale in reversed(SCALES)]:
            made = ", ".join(f"{h} x {w}" for h, w in found) or "none"
            raise UserError(
                f"the decoder takes maps of 1/4, 1/8, 1/16 and 1/32 of an image, behind a stem and four stages; the "
                f"encoder of {main} makes {made} of {height} x {length} pixels: choose sides that are multiples of "
                f"{SCALES[0]}, and --config.encoders.{main}.name=esanet34, or a ResNet with stem=standard")
        maps = [jnp.zeros((1, *shape[1:])) for shape in shapes[main][1:]]
        variables = init_net(net(maps[-1].shape[-1]), key, maps, train=False)
        return variables["params"], variables["batch_stats"]

    def apply(params, stats, taps, *, train, mask=None):
        outputs, updated = net(taps[main][-1].shape[-1]).apply(
            {"params": params, "batch_stats": stats}, taps[main], train=train, mask=mask, mutable=["batch_stats"])
        return outputs, updated["batch_stats"]

    return Decoder(init, apply)


class PyramidDecoder(nn.Module):
    """Maps of a stem and four stages -> "fused" and "side_N", see `Decoder`.

    The last stage goes through `Context` and three modules of the widths named. Each ends at twice the size, where
    the map of an earlier stage is added, through a 1x1 convolution, norm and ReLU if its width differs.
    """
    widths: tuple[int, ...]
    blocks: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, maps, *, train: bool, mask=None):
        conv = functools.partial(Conv, kernel_init=fan_in_uniform)
        norm = batch_norm(self.axis_name, train, mask)
        x = Context(self.widths[0], conv, norm, name="context")(maps[-1])
        outputs = {}
        for i, (width, skip) in enumerate(zip(self.widths, maps[-2:0:-1])):
            if skip.shape[-1] != width:
                skip = ConvNormReLU(width, 1, conv, norm, name=f"skip_{i}")(skip)
            side = Module(width, self.blocks, conv, norm, name=f"module_{i}")(x)
            outputs[f"side_{SCALES[i]}"] = side
            x = Upsample(name=f"upsample_{i}")(side) + skip
        return outputs | {"fused": x}


class ConvNormReLU(nn.Module):
    features: int
    size: int
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        return nn.relu(self.norm()(self.conv(self.features, self.size)(x)))


class Module(nn.Module):
    """A 3x3 convolution, norm, ReLU, and blocks of one-dimensional convolutions."""
    features: int
    blocks: int
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        x = ConvNormReLU(self.features, 3, self.conv, self.norm)(x)
        for i in range(self.blocks):
            x = NonBottleneck1D(self.features, 1, self.conv, self.norm, name=f"block_{i}")(x)
        return x


class Context(nn.Module):
    """A map beside its means over 1 x 1 and 5 x 5 bins, in as many channels together, and a 1x1 convolution of all.

    Pyramid pooling (Zhao et al., 2017); bins are those of `adaptive_mean`, and repeated over their places.
    """
    features: int
    conv: type
    norm: type

    @nn.compact
    def __call__(self, x):
        parts = [x]
        for i, bins in enumerate(BINS):
            y = ConvNormReLU(x.shape[-1] // len(BINS), 1, self.conv, self.norm, name=f"bins_{i}")(adaptive_mean(x, bins))
            parts.append(nearest(y, x.shape[1:3]))
        return ConvNormReLU(self.features, 1, self.conv, self.norm, name="out")(jnp.concatenate(parts, -1))


class Upsample(nn.Module):
    """Twice the size by a kernel for each channel, which is bilinear at the start; see `upsample`."""

    @nn.compact
    def __call__(self, x):
        params = {"kernel": self.param("kernel", lambda key: upsample_init(x.shape[-1])["kernel"]),
                  "bias": self.param("bias", nn.initializers.zeros, x.shape[-1:])}
        return upsample(params, x)


def upsample_init(channels: int) -> dict[str, chex.Array]:
    """The kernel [3, 3, C] that interpolates bilinearly, and a bias [C] of 0."""
    return {"kernel": jnp.tile(BILINEAR[..., None], channels), "bias": jnp.zeros(channels)}


def upsample(params: Mapping[str, chex.Array], x: chex.Array) -> chex.Array:
    """[B, H, W, C] -> [B, 2 H, 2 W, C]: every value four times, and a 3x3 convolution of each channel, padded by 0.

    It is computed on the small map, as four convolutions 2x2 whose results are put into each other.
    """
    chex.assert_rank(x, 4)
    batch, height, width, channels = x.shape
    kernel = jnp.einsum("atk,bsl,klc->abtsc", PHASES, PHASES, params["kernel"], precision="highest").astype(x.dtype)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def phase(a, b):
        return sum(kernel[a, b, t, s] * padded[:, a + t:a + t + height, b + s:b + s + width]
                   for t in (0, 1) for s in (0, 1))

    rows = [jnp.stack([phase(a, 0), phase(a, 1)], axis=3) for a in (0, 1)]
    y = jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, channels)
    return y + params["bias"].astype(x.dtype)


def adaptive_mean(x: chex.Array, bins: int) -> chex.Array:
    """Means [B, n, n, C] of [B, H, W, C] over n x n bins: bin i is from floor(i H / n) to ceil((i + 1) H / n).

    So they overlap where n does not divide H, as those of PyTorch.
    """
    return _resample(x, [_bins(side, bins) for side in x.shape[1:3]])


def _bins(side: int, bins: int) -> np.ndarray:
    first, last = (np.arange(bins) * side // bins, -(-np.arange(1, bins + 1) * side // bins))
    place = np.arange(side)
    inside = (first[:, None] <= place) & (place < last[:, None])
    return inside / inside.sum(1, keepdims=True)


def nearest(x: chex.Array, size: tuple[int, int]) -> chex.Array:
    """[B, h, w, C] -> [B, H, W, C], where row i is row floor(i h / H)."""
    return _resample(x, [np.eye(old)[np.arange(new) * old // new] for old, new in zip(x.shape[1:3], size)])


def _resample(x, matrices: Sequence[np.ndarray]):
    """[B, h, w, C] by matrices [H, h] and [W, w], in float32; [B, H, W, C] in the type of x."""
    rows, columns = (jnp.asarray(matrix, jnp.float32) for matrix in matrices)
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x.astype(jnp.float32), precision="highest").astype(x.dtype)
