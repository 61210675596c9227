"""Reading users' files: sound, pictures, video, text, arrays.

Every reader takes a path and `Options` and returns (value, notes): the value in the form of the
modality's kind (`jaxmm.data.prepared.KINDS`), and a few words on each change made to it.

Raises:
  Missing: there is no such file, or there is nothing of this modality in it.
  Any other exception: the file is broken; decoders of other packages raise all sorts.
"""
import functools
import io
import itertools
import os
import pathlib
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxmm import extras
from jaxmm.data.decode import eight_bits, orientation, upright
from jaxmm.data.prepared import Sound
from jaxmm.prepare import containers

soundfile = extras.Later("soundfile", "reading sound")
soxr = extras.Later("soxr", "resampling sound")

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
JPEG_QUALITY = 90           # of frames that are not stored as they were found
CLIPPED_SHARE = 0.1         # of samples beyond full scale; with more, the scale is wrong
QUIET = 33                  # steps of int16, a thousandth of full scale
IN_PLACE = {                # first bytes of files that are only placeholders
    b"version https://git-lfs": "a git-lfs pointer in place of the file; run git lfs pull there",
    b"<!doctype html": "an HTML page in place of the file; download it again",
    b"<html": "an HTML page in place of the file; download it again"}


class Missing(Exception):
    """There is nothing of this modality; the message says why."""

    def __init__(self, why: str, path: str = ""):
        super().__init__(why)
        self.path = path        # that was looked for


class Options(NamedTuple):
    """What the user may choose about the content."""
    audio_rate: int = 0     # Hz; 0: as in the file
    fps: float = 0.0        # of frames taken from video; 0: as the data set's papers have it
    short_side: int = 0     # pixels of a frame's shorter side, if it is longer; 0: as in the file
    variant: str = ""       # of the data set: another split, another selection of classes


class Source(NamedTuple):
    """Where one modality of one example lies."""
    read: Callable[..., tuple[Any, list[str]]]
    args: tuple             # strings, numbers and tuples of these

    def load(self, options: Options) -> tuple[Any, list[str]]:
        return self.read(*self.args, options)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files and folders that it is read from: the first argument of every reader."""
        first = self.args[0] if isinstance(self.args[0], tuple) else self.args[:1]
        return () if self.read is given else tuple(p for p in first if isinstance(p, str))

    def absent(self) -> Missing | None:
        """The error that `load` will raise for missing files, if any."""
        what = "folder" if self.read in (folder, flow) else "file"
        gone = next((path for path in self.paths if not existing(path)), None)
        return gone and Missing(f"no such {what}", gone)


def existing(path: str) -> str | None:
    """`path`, or else the same with its ending in capitals or in small letters."""
    stem, ending = os.path.splitext(path)
    return next(filter(os.path.exists, (path, stem + ending.upper(), stem + ending.lower())), None)


def find(path: str) -> str:
    """The file at `path`, its ending in any case.

    Raises:
      Missing: it is not there.
      ValueError: it is empty, or a placeholder for the file.
    """
    found = _regular(path)
    with open(found, "rb") as file:
        head = file.read(200).lstrip()
    if not head:
        raise ValueError("an empty file")
    check_in_place(head)
    return found


def check_in_place(head: bytes) -> None:
    """Raises ValueError if the first bytes of a file show that it is only a placeholder."""
    for begin, what in IN_PLACE.items():
        if head.lower().startswith(begin):
            raise ValueError(what)


def _regular(path: str) -> str:
    """The path, if it is a regular file. (Reading a pipe would block, and a device never ends.)"""
    found = existing(path)
    if found is None:
        raise Missing("no such file", path)
    if not os.path.isfile(found):
        raise ValueError("no regular file")
    return found


def sound(path: str, options: Options) -> tuple[Sound, list[str]]:
    """The sound of a sound file (wav, flac, ogg, mp3) or of a video, mixed down to mono.

    Sound of a video begins where its pictures or its sound begin, whichever is earlier.
    """
    found, notes = find(path), []
    if pathlib.Path(path).suffix.lower() in {".wav", ".flac", ".ogg", ".mp3"}:
        notes += _check_riff(found)
        with soundfile.SoundFile(found) as file:
            rate = file.samplerate
            exact = file.subtype == "PCM_16"
            samples = file.read(dtype="int16" if exact else "float32", always_2d=True)
            samples = samples.astype(np.float32) / (32768 if exact else 1)
    else:
        decoded = containers.samples(found, notes)
        if decoded is None:
            raise Missing("video without sound", path)
        samples, rate = decoded
    value, said = mono(samples, rate, options)
    return value, _once(notes + said)


def mono(samples: np.ndarray, rate: int, options: Options) -> tuple[Sound, list[str]]:
    """Sound from samples float32 [T, channels], full scale 1, at `rate` Hz."""
    if not len(samples):
        raise ValueError("no samples")
    channels = samples.shape[1]
    notes = ["mixed down to mono"] if channels > 1 else []
    beyond = np.mean(np.abs(samples) > 1 + 2**-16)
    if beyond > CLIPPED_SHARE:
        raise ValueError(f"{beyond:.0%} of the samples are beyond full scale, up to "
                         f"{np.abs(samples).max():g}; expected values from -1 to 1")
    samples = sum(samples.T) / np.float32(channels)     # many times as fast as mean(axis=1)
    if not np.isfinite(samples).all():
        raise ValueError("samples that are not finite")
    if options.audio_rate and rate != options.audio_rate:
        samples = soxr.resample(samples, rate, options.audio_rate)
        rate = options.audio_rate
        if not len(samples):
            raise ValueError("no samples")
    samples = np.rint(samples * 32768)
    if (samples > 32768).any() or (samples < -32768).any():
        notes.append("samples beyond full scale, clipped")
    samples = np.clip(samples, -32768, 32767).astype(np.int16)
    if np.ptp(samples) == 0:
        notes.append("silent")
    elif max(samples.max(), -int(samples.min())) < QUIET:
        notes.append("below a thousandth of full scale, so with few levels")
    elif np.mean((samples == 32767) | (samples == -32768)) > 0.001:
        notes.append("at full scale for more than a thousandth of the time: clipped in the file")
    return Sound(samples, int(rate)), notes


def folder(path: str, options: Options) -> tuple[list[bytes], list[str]]:
    """All images of a folder, in the order of the numbers in their names."""
    try:
        names = [name for name in os.listdir(path) if pathlib.Path(name).suffix.lower() in IMAGES]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing("no such folder", path) from error
    if not names:
        raise Missing("no images in the folder", path)
    return images(tuple(os.path.join(path, name) for name in sorted(names, key=_natural)), options)


def images(paths: tuple[str, ...], options: Options) -> tuple[list[bytes], list[str]]:
    """The images at `paths`, JPEG files byte by byte and others turned into JPEG.

    Readers of the JPEG files must transpose them as their EXIF data says, as `jaxmm.data.decode` does.
    """
    frames, notes = [], []
    for path in paths:
        try:
            frames.append(_image(pathlib.Path(find(path)).read_bytes(), options, notes))
        except Missing:
            raise
        except Exception as error:      # decoders of damaged files raise anything
            raise ValueError(f"{os.path.basename(path)}: {error or type(error).__name__}") from error
    return frames, _once(notes)


def _image(data: bytes, options: Options, notes: list[str]) -> bytes:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "GIF", "BMP", "WEBP")) as image:
        if orientation(image) > 1:
            notes.append("turned upright")
        if b"sRGB" not in image.info.get("icc_profile", b"sRGB"):
            notes.append("colour profile, not applied")
        if image.format not in ("JPEG", "MPO"):         # MPO: a JPEG file with another behind it
            notes.append("turned into JPEG")
            if image.format == "PNG" and data[24] == 16:
                notes.append("16 bits a channel, scaled to 8")
            if getattr(image, "n_frames", 1) > 1:
                notes.append("animated, the first image taken")
        elif not 0 < options.short_side < min(image.size):
            image.draft(None, (1, 1))       # all of the file is read, little is computed
            image.load()
            notes += _blank(image)
            return data
        return jpeg(upright(image), options, notes)


def flow(folders: tuple[str, str], options: Options) -> tuple[list[bytes], list[str]]:
    """The horizontal flow of the first folder, then the vertical flow of the second."""
    parts, notes = zip(*(folder(path, options) for path in folders))
    if len(parts[0]) != len(parts[1]):
        raise ValueError(f"{len(parts[0])} images of horizontal and {len(parts[1])} of vertical "
                         "flow")
    return parts[0] + parts[1], _once(notes[0] + notes[1])


def png(path: str, options: Options) -> tuple[list[bytes], list[str]]:
    """A PNG file byte by byte, for maps, whose values must not change."""
    del options
    data = pathlib.Path(find(path)).read_bytes()
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.load()
    return [data], []


def pixel_map(paths: tuple[str, str], classes: int, options: Options) -> tuple[list[bytes], list[str]]:
    """A PNG file byte by byte: one number for each pixel of a picture.

    Args:
      paths: of the map, and of the picture.
      classes: its numbers are classes from 1 to this, 0 where a pixel has none; 0: they are anything.
      options: not used.

    Raises:
      Missing: no pixel has a class.
    """
    path, picture = map(find, paths)
    stored, notes = png(path, options)
    with Image.open(io.BytesIO(stored[0]), formats=("PNG",)) as image, Image.open(picture) as other:
        x, sizes = np.asarray(image), (image.size, other.size)
    if x.ndim != 2:
        raise ValueError(f"{x.shape[-1]} channels, expected one number for each pixel")
    if sizes[0] != sizes[1]:
        raise ValueError("{} x {} pixels, its picture {} x {}".format(*sizes[0], *sizes[1]))
    least, most = int(x.min()), int(x.max())
    if least < 0 or most > (classes or 2**16 - 1):
        raise ValueError(f"values from {least} to {most}, expected " + (
            f"classes from 1 to {classes}, or 0 for none" if classes else f"numbers from 0 to {2**16 - 1}"))
    if classes and not most:
        raise Missing("no pixel with a class", path)
    return stored, notes


def video(path: str, fps: float, options: Options) -> tuple[list[bytes], list[str]]:
    """Frames of a video as JPEG, `options.fps` or else `fps` of them a second (0: all)."""
    frames, notes = [], []
    for image, count in containers.pictures(find(path), options.fps or fps, notes):
        frames += count * [jpeg(image, options, notes)]
    if not frames:
        raise ValueError("no frames")
    return frames, _once(notes)


def text_file(path: str, options: Options) -> tuple[str, list[str]]:
    """The text of a file."""
    del options
    text, notes = decode_text(pathlib.Path(_regular(path)).read_bytes())
    if text.startswith("version https://git-lfs"):
        raise ValueError(IN_PLACE[b"version https://git-lfs"])
    return text, notes + ([] if text else ["empty"])


def given(value, options: Options) -> tuple[Any, list[str]]:
    """A value from the list of the data set itself, such as a transcript."""
    del options
    return value, [] if value else ["empty"]


def array(path: str, options: Options) -> tuple[np.ndarray, list[str]]:
    """The numbers in a .npy file, or in an .npz file of one array."""
    del options
    found = np.load(find(path), allow_pickle=False)
    if isinstance(found, np.lib.npyio.NpzFile):
        with found:
            if len(found.files) != 1:
                raise ValueError(f"{len(found.files)} arrays, expected one")
            found = found[found.files[0]]
    return _floats(found)


def array_row(path: str, name: str, row: int, options: Options) -> tuple[np.ndarray, list[str]]:
    """One row of an array in a .npz file."""
    del options
    return _floats(_array(path, name)[row])


def decode_text(data: bytes) -> tuple[str, list[str]]:
    """Text in UTF-8, with or without byte order mark, or else in Windows-1252."""
    if b"\0" in data:
        raise ValueError("not a text file")
    try:
        return data.decode("utf-8-sig").strip(), []
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace").strip(), ["not UTF-8, read as Windows-1252"]


def _natural(name: str) -> tuple:
    """Sorts frame9 before frame10; digits are compared as numbers."""
    groups = itertools.groupby(pathlib.Path(name).stem, str.isdecimal)
    parts = ("".join(g) if not digits else f"{int(''.join(g)):020d}"
             for digits, g in ((d, list(g)) for d, g in groups))
    return tuple(parts), name


def jpeg(image: Image.Image, options: Options, notes: list[str] | None = None) -> bytes:
    """The image as JPEG, grey or in colour, shrunk if `options` say so."""
    notes = [] if notes is None else notes
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        if opaque.getchannel("A").getextrema()[0] < 255:
            notes.append("transparent, laid over white")
            white = Image.new("RGBA", image.size, "white")
            opaque = Image.alpha_composite(white, opaque)
        image = opaque.convert("L" if image.mode in ("L", "LA", "La") else "RGB")
    image = eight_bits(image)
    image = image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")
    notes += _blank(image)
    shorter = min(image.size)
    if 0 < options.short_side < shorter:
        size = [max(round(n * options.short_side / shorter), 1) for n in image.size]
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _blank(image: Image.Image) -> list[str]:
    """A note if all pixels have the same colour."""
    bands = image.getextrema()
    bands = bands if isinstance(bands[0], tuple) else (bands,)
    return ["images of one colour"] if all(low == high for low, high in bands) else []


def _once(notes: list[str]) -> list[str]:
    return list(dict.fromkeys(notes))


def _check_riff(path: str) -> list[str]:
    """Notes on a wav file.

    Raises:
      ValueError: it has less sound than its header says, or more.
    """
    length = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return []                                   # the decoder knows better
        chunks = _chunks(file)
        size, start = next(((n, at) for name, n, at in chunks if name == b"data"), (0, 0))
        if not start:
            raise ValueError("no sound in the file")
        if start + size > length:
            if size >= 0x7FFF0000:                      # left open, by programs that write to a pipe
                return []
            raise ValueError(f"cut short: {length - start} of {size} bytes of sound")
        end = start + size + size % 2
        for name, more, at in chunks:
            if not name.replace(b" ", b"").isalnum():
                break
            end = at + more + more % 2
    if length <= end:
        return []
    if length - end > size / 20:
        raise ValueError(f"{size} bytes of sound by its header, but {length - end} more follow")
    return ["bytes behind the sound, not read"]


def _chunks(file) -> Iterator[tuple[bytes, int, int]]:
    """Name, size and place of the chunks of a RIFF file, from where it stands."""
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        start = file.tell()
        yield name, size, start
        file.seek(start + size + size % 2)


def _floats(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """float32 numbers, 0 where they are not finite."""
    if values.dtype.kind not in "buif":
        raise ValueError(f"{values.dtype} values, expected numbers")
    notes, given_values = [], values
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        if np.isfinite(given_values).sum() > finite.sum():
            raise ValueError(f"values beyond the range of float32, up to {np.abs(given_values).max():g}")
        notes.append("values that are not finite set to 0")
        values = np.where(finite, values, np.float32(0))
    elif given_values.dtype.kind in "ui" and (values.astype(given_values.dtype) != given_values).any():
        notes.append("integers beyond 2^24, rounded to float32")
    return values, notes


@functools.lru_cache(8)
def _array(path: str, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return archive[name]
