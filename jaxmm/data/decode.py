"""One stored example -> arrays of fixed shape; reading is deterministic.

Random augmentation comes later, on the device: see `jaxmm.data.preprocess`.
"""
import io
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image

from jaxmm import extras
from jaxmm.config import FlowConfig, FramesConfig, MapConfig, PictureConfig, SpectrogramConfig
from jaxmm.data.prepared import Sound
from jaxmm.errors import UserError, check_at_least, check_choice

simplejpeg = extras.Later("simplejpeg", "reading images")
soxr = extras.Later("soxr", "resampling sound")

SAMPLING = ("uniform", "segments", "consecutive")
RESAMPLING = {"stretch": Image.Resampling.BILINEAR, "crop": Image.Resampling.BILINEAR,
              "crop_bicubic": Image.Resampling.BICUBIC}     # by how images are brought to their size
JPEG_START = b"\xff\xd8\xff"
ORIENTATION = {                     # of EXIF: how to transpose an image so that it is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}


def sound_shape(config: SpectrogramConfig) -> tuple[int]:
    """Samples [T] of a row of sound."""
    return (round(config.rate * config.seconds),)


def sound(stored: Sound, config: SpectrogramConfig) -> np.ndarray:
    """The samples, int16 [T], at the rate asked for, cut at the end or filled up to T.

    With `fill` "columns" the last sample of the sound is 1 where it was 0, so that its end is known.
    """
    samples, (size,) = stored.samples, sound_shape(config)
    if not len(samples):
        return np.zeros(size, np.int16)
    if stored.rate != config.rate:
        samples = soxr.resample(samples, stored.rate, config.rate)      # int16 as it came
    if config.fill == "tile":
        return np.resize(samples, size)
    samples = samples[:size]
    filled = np.pad(samples, (0, size - len(samples)))
    if config.fill == "columns" and not samples[-1]:
        filled[len(samples) - 1] = 1
    return filled


def frames_shape(config: FramesConfig) -> tuple[int, ...]:
    """Shape of a row of images: [H, W, 3], [T, H, W, 3] or, of flow, [H, W, 2 T]."""
    if isinstance(config, FlowConfig):
        return config.height, config.width, 2 * max(config.frames, 1)
    one = (config.height, config.width, 3)
    return (config.frames, *one) if config.frames else one


def frames(stored: Sequence[bytes], config: FramesConfig) -> np.ndarray:
    """The images chosen by `choose`, uint8 of `frames_shape`; zeros where there are none."""
    if not stored:
        return np.zeros(frames_shape(config), np.uint8)
    images = np.empty(frames_shape(config), np.uint8)
    read_images(stored, choose(len(stored), config), config, images.reshape(-1, *images.shape[-3:]))
    return images


def flow(stored: Sequence[bytes], config: FlowConfig) -> np.ndarray:
    """T images of horizontal flow and the T vertical ones to them, uint8 [H, W, 2 T].

    Values of 128 are no motion; zeros where there is no flow.
    """
    if not stored:
        return np.zeros(frames_shape(config), np.uint8)
    half = len(stored) // 2
    chosen = choose(half, config)
    images = np.empty((2 * len(chosen), config.height, config.width), np.uint8)
    read_images(stored, (*chosen, *(chosen + half)), config, images)
    return np.stack(images, axis=-1)


def picture(stored: Sequence[bytes], config: PictureConfig) -> np.ndarray:
    """The first image, uint8 [height, width, 3]; zeros where there is none."""
    return frames(stored[:1], FramesConfig(frames=0, height=config.height, width=config.width))


def pixel_map(stored: Sequence[bytes], config: MapConfig) -> np.ndarray:
    """The numbers of a map, uint16 [height, width], of the nearest pixels; zeros where there is none."""
    size = config.height, config.width
    if not stored:
        return np.zeros(size, np.uint16)
    with Image.open(io.BytesIO(stored[0]), formats=("PNG",)) as found:
        x = np.asarray(found).astype(np.uint16)
    rows, columns = ((np.arange(n) + 0.5) * m // n for n, m in zip(size, x.shape))
    return x[rows.astype(int)[:, None], columns.astype(int)]


def class_map(stored: Sequence[bytes], config: MapConfig) -> np.ndarray:
    """Class numbers int16 [height, width] of a map that holds them from 1, and 0 for void, which is -1 here."""
    return pixel_map(stored, config).astype(np.int16) - np.int16(1)


def choose(count: int, config: FramesConfig) -> np.ndarray:
    """Which of `count` frames to read: `config.frames` positions, in the order of time.

    If there are fewer, some are repeated; for "consecutive" the last one.
    """
    check_choice("sampling", config.sampling, SAMPLING)
    if not config.frames:
        return np.array([count // 2])
    i = np.arange(config.frames)
    if config.sampling == "uniform":
        return i * count // config.frames
    if config.sampling == "segments":
        return (2 * i + 1) * count // (2 * config.frames)
    return np.minimum(i + max(count - config.frames, 0) // 2, count - 1)


def read_images(stored: Sequence[bytes], chosen: Sequence[int], config: FramesConfig, images: np.ndarray) -> None:
    """`read_image` of each chosen file into its place of `images` [N, ...]."""
    for i, out in zip(chosen, images):
        read_image(stored[i], config, out)


def read_image(data: bytes, config: FramesConfig, out: np.ndarray) -> None:
    """Writes what `image` makes of a file into `out`, uint8 [H, W, 3] or, of one in grey, [H, W]."""
    if not read_jpeg(data, out):
        out[...] = image(data, config, "RGB" if out.ndim == 3 else "L")


def read_jpeg(data: bytes, out: np.ndarray) -> bool:
    """Whether `data` is a JPEG file with the size and colours of `out`, upright as it is, and written into it.

    Pixels are those of `image`, which takes any file, in two thirds of its time.
    """
    colours, wanted = ("YCbCr", "RGB") if out.ndim == 3 else ("Gray", "GRAY")
    # EXIF and XMP data, which may turn an image, lie anywhere among its segments.
    if not data.startswith(JPEG_START) or b"Exif\0" in data or b"Orientation" in data:
        return False
    try:
        if simplejpeg.decode_jpeg_header(data)[:3] != (*out.shape[:2], colours):
            return False
        simplejpeg.decode_jpeg(data, wanted, buffer=out)
    except ValueError:      # damaged: `image` says how
        return False
    return True


def image(data: bytes, config: FramesConfig, mode: str) -> np.ndarray:
    """A JPEG or PNG file as uint8 [H, W, 3] ("RGB") or [H, W] ("L"), upright by its EXIF data."""
    size = config.width, config.height
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as found:
        if config.fit != "crop_bicubic":
            # JPEG: at a half, fourth, eighth of the size, if enough.
            found.draft(mode, size[::-1] if orientation(found) >= 5 else size)
        found = eight_bits(upright(found))
        found = found if found.mode == mode else found.convert(mode)
        if found.size != size:
            box = None if config.fit == "stretch" else middle(*found.size, *size)
            found = found.resize(size, RESAMPLING[config.fit], box=box)
        return np.asarray(found)


def orientation(found: Image.Image) -> int:
    """The orientation in the EXIF data of an image, 1 to 8; 1 where there is none."""
    try:
        value = found.getexif().get(ExifTags.Base.Orientation, 1)
    # Such data may be anything.
    except Exception:  # pylint: disable=broad-exception-caught
        return 1
    return value if value in ORIENTATION else 1


def upright(found: Image.Image) -> Image.Image:
    """The image, transposed as its EXIF data says."""
    turn = ORIENTATION.get(orientation(found))
    return found if turn is None else found.transpose(turn)


def eight_bits(found: Image.Image) -> Image.Image:
    """A grey image of 16 bits as one of 8, full scale to full scale; any other as it is.

    Raises:
      ValueError: its values have no full scale.
    """
    if found.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, which have no full scale; save it with 8 or 16")
    if not found.mode.startswith("I;16"):
        return found
    return Image.fromarray(((np.asarray(found).astype(np.uint32) + 128) // 257).astype(np.uint8))


def middle(width: int, height: int, to_width: int, to_height: int) -> tuple[float, ...]:
    """The largest box (left, top, right, bottom) in the middle with the proportions to_w : to_h.

    It is of whole pixels where it has as many as asked for, which are cut out as they are then.
    """
    scale = min(width / to_width, height / to_height)
    left, top = (width - scale * to_width) / 2, (height - scale * to_height) / 2
    if scale == 1:
        left, top = round(left), round(top)
    return left, top, left + scale * to_width, top + scale * to_height


def check_frames(where: str, config: FramesConfig) -> None:
    """Raises UserError for inconsistent options of images."""
    check_choice(f"{where}.sampling", config.sampling, SAMPLING)
    check_choice(f"{where}.fit", config.fit, RESAMPLING)
    for name, least in (("frames", 0), ("crop_frames", 0), ("height", 1), ("width", 1), ("size", 1),
                        ("min_area", 0), ("jitter", 0)):
        check_at_least(f"{where}.{name}", getattr(config, name), least)
    if config.jitter and isinstance(config, FlowConfig):
        raise UserError(f"{where}.jitter={config.jitter:g}: optical flow has no colours; leave it out")
    if config.crop_frames > config.frames:
        raise UserError(f"{where}.crop_frames={config.crop_frames} is more than "
                        f"{where}.frames={config.frames}")
    cut_out = config.center or not config.min_area
    if cut_out and config.size > min(config.height, config.width):
        raise UserError(f"{where}.size={config.size} is more than the {config.height} x "
                        f"{config.width} pixels of {where}.height and width that it is cut from; "
                        "read them larger")


def check_sound(where: str, config: SpectrogramConfig) -> None:
    """Raises UserError for options of sound that are out of range."""
    check_choice(f"{where}.fill", config.fill, ("tile", "zeros", "columns"))
    for name in ("rate", "n_fft", "hop"):
        check_at_least(f"{where}.{name}", getattr(config, name), 1)
    if config.center and (config.kaldi or config.fill == "columns"):
        asked = "kaldi=True" if config.kaldi else "fill='columns'"
        raise UserError(f"{where}.{asked}: no column reaches past an end; set {where}.center=False")
    if config.kaldi and not config.mels:
        raise UserError(f"{where}.kaldi=True is for mel bands; set {where}.mels, such as 128")
    for name, value, most in (("crop_seconds", config.crop_seconds, config.seconds),
                              ("window", config.window, config.n_fft),
                              ("n_fft", config.n_fft, config.rate * config.seconds)):
        if not 0 <= value <= most:
            raise UserError(f"{where}.{name}={value}; expected a number in [0, {most:g}]")
