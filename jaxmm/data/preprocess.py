"""Turns rows as they are read into the inputs of encoders: spectrograms and images, on the device.

All random draws happen here, from a key of the example; reading rows is deterministic. Functions take
one example; `key=None` means evaluation, without random draws.
"""
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.config import FlowConfig, FramesConfig, PictureConfig, PreprocessConfig, SpectrogramConfig
from jaxmm.data.spectrogram import spectrogram
from jaxmm.errors import UserError
from jaxmm.keys import named_key

GREY = (0.299, 0.587, 0.114)    # shares of red, green and blue in what is seen as brightness (ITU-R BT.601)


def preprocess(key: chex.PRNGKey | None, moment: chex.Array, x: chex.Array,
               config: PreprocessConfig, place: chex.Array | None = None) -> chex.Array:
    """One example preprocessed as `config` says, float32; without a kind it stays as it is.

    Args:
      key: of this modality of the example, or None.
      moment: scalar in [0, 1]: where in time to crop, the same for all modalities, so that sound
        and frames stay together.
      x: sound int16 [T], images uint8 [..., H, W, C], or anything else, such as a spectrogram
        that was stored.
      config: of the modality.
      place: scalar in [0, 1]: which square of images evaluation sees, see `crop_images`.
    """
    if isinstance(config, SpectrogramConfig) and x.ndim == 1:
        return spectrogram(crop_sound(x, moment, config), config)
    if isinstance(config, FramesConfig):
        return crop_images(key, crop_frames(x, moment, config), config, place)
    if isinstance(config, PictureConfig):
        x = x.astype(jnp.float32) / 255
        return x if key is None or not config.jitter else jitter_hsv(named_key(key, "jitter"), x)
    return x


def map_entries(fn: Callable, *args: chex.ArrayTree) -> chex.ArrayTree:
    """fn of every entry of arrays along their first axis: of examples of a batch, of frames of an example.

    On CPU they are computed one after the other, so that each fits the cache: twice as fast as at once.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda entry: fn(*entry), args)
    return jax.vmap(fn)(*args)


def crop_sound(x: chex.Array, moment: chex.Array, config: SpectrogramConfig) -> chex.Array:
    """`crop_seconds` of sound int16 [T] as float32 in [-1, 1]."""
    chex.assert_rank(x, 1)
    size = round(config.rate * config.crop_seconds) or len(x)
    return _cut(x, moment, size).astype(jnp.float32) / 32768


def elsewhere(key: chex.PRNGKey, moment: chex.Array, gap: float) -> chex.Array:
    """A scalar drawn uniformly from what of [0, 1] is `gap` or more, at most 1/2, from `moment`."""
    below, above = jnp.maximum(moment - gap, 0), jnp.maximum(1 - gap - moment, 0)
    place = jax.random.uniform(key) * (below + above)
    return jnp.where(place < below, place, jnp.minimum(moment + gap + place - below, 1))


def gap_of(modality: str, x: chex.Array, seconds: float, config: PreprocessConfig) -> float:
    """How far moments lie apart whose cuts of sound int16 [B, T] begin `seconds` apart.

    Raises:
      UserError: it is no sound that is cut, or some moment has no other one so far from it.
    """
    where = f"data.preprocess.{modality}"
    if not isinstance(config, SpectrogramConfig) or x.ndim != 2:
        raise UserError(f"{where}: a second sound of each example is asked for, and {modality} is not read as sound "
                        "that is cut in training; choose a method, or options of it, that need none")
    spare = x.shape[1] / config.rate - (config.crop_seconds or x.shape[1] / config.rate)
    if spare < 2 * seconds:
        raise UserError(f"{where}: a second sound of each example is cut {seconds:g} s or more from the first; found "
                        f"{where}.seconds={config.seconds:g} and crop_seconds={config.crop_seconds:g}, expected "
                        f"crop_seconds above 0 and seconds at least {2 * seconds:g} more")
    return seconds / spare


def crop_frames(x: chex.Array, moment: chex.Array, config: FramesConfig) -> chex.Array:
    """`crop_frames` consecutive ones of the frames [T, H, W, C]."""
    return _cut(x, moment, config.crop_frames) if config.crop_frames else x


def _cut(x, moment, size: int):
    """`size` consecutive entries of x, the first ones at moment 0 and the last ones at 1."""
    start = jnp.round(moment * (len(x) - size)).astype(jnp.int32)
    return jax.lax.dynamic_slice_in_dim(x, start, size)


def crop_images(key: chex.PRNGKey | None, x: chex.Array, config: FramesConfig,
                place: chex.Array | None = None) -> chex.Array:
    """Images uint8 [..., H, W, C] cropped, resized and flipped all alike, to [..., size, size, C].

    In training as torchvision's RandomResizedCrop: an area of between `min_area` and 1, proportions
    between 3/4 and 4/3; then, where asked for, its ColorJitter. Values are in [0, 1]. In evaluation a
    `place` in [0, 1] along the longer side names a square of the shorter one; None is as `center` says.
    """
    height, width = x.shape[-3:-1]
    if key is None and place is not None:
        side = min(height, width)
        box, flip = (place * (height - side), place * (width - side), side, side), False
    elif key is None:
        margin = (height - config.size) // 2, (width - config.size) // 2
        box = (*margin, config.size, config.size) if config.center else (0, 0, height, width)
        flip = False
    else:
        box_key, flip_key = jax.random.split(key)
        box = random_box(box_key, height, width, config)
        flip = config.flip & jax.random.bernoulli(flip_key)

    def resized(image):
        return resize(image, box, config.size, flip)

    x = (map_entries(resized, x) if x.ndim > 3 else resized(x)) / 255
    if isinstance(config, FlowConfig):      # what moved left moves right in the mirror
        half = x.shape[-1] // 2
        x = x.at[..., :half].set(jnp.where(flip, 256 / 255 - x[..., :half], x[..., :half]))
    return x if key is None or not config.jitter else jitter(named_key(key, "jitter"), x, config.jitter)


def jitter(key: chex.PRNGKey, x: chex.Array, strength: float) -> chex.Array:
    """Images [..., H, W, 3] in [0, 1] with other brightness, contrast and saturation, all frames alike.

    In random order, each times a factor drawn from [max(0, 1 - strength), 1 + strength], as torchvision's
    ColorJitter does.
    """
    order_key, factor_key = jax.random.split(key)
    factors = jax.random.uniform(factor_key, (3,), minval=max(0.0, 1 - strength), maxval=1 + strength)
    for kind in jax.random.permutation(order_key, 3):
        x = adjust(x, kind, factors[kind])
    return x


def adjust(x: chex.Array, kind: chex.Array | int, factor: chex.Array | float) -> chex.Array:
    """Images [..., H, W, 3] in [0, 1], `factor` times as far from what has no colour, clipped to [0, 1].

    That is, by `kind`: 0 black (brightness), 1 the mean grey of the image (contrast), 2 the grey of each
    pixel (saturation).
    """
    grey = (x * jnp.array(GREY)).sum(-1, keepdims=True)
    mean = grey.mean((-3, -2), keepdims=True)
    plain = jnp.where(kind == 0, 0, jnp.where(kind == 1, mean, grey))
    return jnp.clip(plain + factor * (x - plain), 0, 1)


def random_box(key: chex.PRNGKey, height: int, width: int, config: FramesConfig):
    """Top, left, height and width, in pixels, of a box in an image of this height and width."""
    size_key, shape_key, place_key = jax.random.split(key, 3)
    if config.min_area:
        area = height * width * jax.random.uniform(size_key, minval=config.min_area)
        shape = jnp.exp(jax.random.uniform(shape_key, minval=np.log(3 / 4), maxval=np.log(4 / 3)))
        tall = jnp.minimum(jnp.sqrt(area / shape), height)
        wide = jnp.minimum(jnp.sqrt(area * shape), width)
    else:
        tall = wide = config.size
    top, left = jax.random.uniform(place_key, (2,)) * jnp.array([height - tall, width - wide])
    return top, left, tall, wide


def jitter_hsv(key: chex.PRNGKey, x: chex.Array) -> chex.Array:
    """Images [..., 3] in [0, 1]: hue and saturation times numbers in [0.9, 1.1], value plus at most 25/255.

    All three are clipped to [0, 1].

    References:
      ESANet, Seichter et al., ICRA 2021, its code.
    """
    keys = jax.random.split(key, 3)
    factors = [jax.random.uniform(k, minval=0.9, maxval=1.1) for k in keys[:2]]
    more = jax.random.uniform(keys[2], minval=-25, maxval=25) / 255
    hue, saturation, value = jnp.moveaxis(to_hsv(x), -1, 0)
    changed = jnp.stack([hue * factors[0], saturation * factors[1], value + more], axis=-1)
    return from_hsv(jnp.clip(changed, 0, 1))


def to_hsv(x: chex.Array) -> chex.Array:
    """Hue, saturation and value [..., 3] in [0, 1] of red, green and blue [..., 3] in [0, 1]."""
    red, green, blue = jnp.moveaxis(x, -1, 0)
    value = x.max(-1)
    span = value - x.min(-1)
    safe = jnp.where(span > 0, span, 1)
    sixths = jnp.where(red == value, (green - blue) / safe, jnp.where(
        green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe))
    hue = jnp.where(span > 0, sixths / 6 % 1, 0)
    return jnp.stack([hue, span / jnp.where(value > 0, value, 1), value], axis=-1)


def from_hsv(x: chex.Array) -> chex.Array:
    """The inverse of `to_hsv`."""
    hue, saturation, value = jnp.moveaxis(x, -1, 0)
    place = (jnp.array([5, 3, 1]) + 6 * hue[..., None]) % 6        # of red, green and blue
    share = jnp.clip(jnp.minimum(place, 4 - place), 0, 1)
    return value[..., None] * (1 - saturation[..., None] * share)


def zoom_box(key: chex.PRNGKey, height: int, width: int, zoom: float):
    """(box, flip): what is left of a picture that is enlarged by a factor in [1, zoom] and cut to its size.

    The box is top, left, height and width in pixels, at a random place; flip is True half of the time.
    """
    size_key, place_key, flip_key = jax.random.split(key, 3)
    scale = jax.random.uniform(size_key, minval=1, maxval=zoom)
    tall, wide = height / scale, width / scale
    top, left = jax.random.uniform(place_key, (2,)) * jnp.array([height - tall, width - wide])
    return (top, left, tall, wide), jax.random.bernoulli(flip_key)


def zoomed(x: chex.Array, box, flip: chex.Array) -> chex.Array:
    """The box of a picture in x's own size: images [H, W, C] bilinear, maps [H, W] by the nearest pixel."""
    if x.ndim == 2:
        return resize(x[..., None], box, x.shape, flip, nearest=True)[..., 0]
    return resize(x, box, x.shape[:2], flip)


def resize(x: chex.Array, box, size: int | tuple[int, int], flip: chex.Array | bool = False,
           nearest: bool = False) -> chex.Array:
    """The box of images [..., H, W, C] at `size`: of each side, or (height, width); mirrored if `flip`.

    Bilinear, float32, or the nearest pixels as they are. Pixel centres are at halves, border pixels extend beyond the image, and there is no smoothing before
    shrinking. Lines are gathered, transposed and gathered again: on CPU this takes half the time of
    gathering along both axes, and a tenth of that of matrix products.
    """
    top, left, tall, wide = box
    height, width = (size, size) if isinstance(size, int) else size

    def along_rows(x, start, length, size, mirror):
        """x [..., n, :, C] at `size` places of the axis of length n."""
        n = x.shape[-3]
        centres = (jnp.arange(size) + 0.5) / size
        centres = jnp.where(mirror, 1 - centres, centres)
        if nearest:
            return jnp.take(x, (start + length * centres).astype(jnp.int32), axis=-3, mode="clip")
        place = jnp.clip(start + length * centres - 0.5, 0, n - 1)
        before = jnp.minimum(place.astype(jnp.int32), max(n - 2, 0))
        after = jnp.minimum(before + 1, n - 1)
        share = (place - before)[:, None, None]
        x = [jnp.take(x, i, axis=-3, mode="clip").astype(jnp.float32) for i in (before, after)]
        return x[0] + share * (x[1] - x[0])

    x = along_rows(x, top, tall, height, False).swapaxes(-3, -2)
    return along_rows(x, left, wide, width, flip).swapaxes(-3, -2)
