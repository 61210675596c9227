"""Reading users' files: sound, pictures, video, text, arrays.

Every reader takes a path and `Options` and returns (value, notes): the value as the kind of the
modality has it (`jaxmm.data.prepared.KINDS`), and what was changed on the way, in a few words each.

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
from collections.abc import Callable
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile
import soxr
from PIL import Image

from jaxmm.data.prepared import Sound

IMAGES = {".jpg", ".jpeg", ".png"}
JPEG_QUALITY = 90           # of frames that are not stored as they were found
# Containers of video alone: others, such as play lists, would open files of their own choice.
CONTAINERS = "mov,matroska,avi,flv,mpeg,mpegts,asf,ogg"
LONGEST_GAP = 60            # s between two frames of a video


class Missing(Exception):
    """There is nothing of this modality; the message says why."""


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


def sound(path: str, options: Options) -> tuple[Sound, list[str]]:
    """The sound of a sound file (wav, flac, ogg, mp3) or of a video, mixed down to mono."""
    if not os.path.exists(path):
        raise Missing("no such file")
    if pathlib.Path(path).suffix.lower() in {".wav", ".flac", ".ogg", ".mp3"}:
        _check_riff(path)
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            exact = file.subtype == "PCM_16"
            samples = file.read(dtype="int16" if exact else "float32", always_2d=True)
            samples = samples.astype(np.float32) / (32768 if exact else 1)
    else:
        samples, rate = _sound_of_video(path)
    return mono(samples, rate, options)


def mono(samples: np.ndarray, rate: int, options: Options) -> tuple[Sound, list[str]]:
    """Sound from samples float32 [T, channels], full scale 1, at `rate` Hz."""
    if not len(samples):
        raise ValueError("no samples")
    channels = samples.shape[1]
    notes = ["mixed down to mono"] if channels > 1 else []
    samples = sum(samples.T) / np.float32(channels)     # many times as fast as mean(axis=1)
    if not np.isfinite(samples).all():
        raise ValueError("samples that are not finite")
    if options.audio_rate and rate != options.audio_rate:
        samples = soxr.resample(samples, rate, options.audio_rate)
        rate = options.audio_rate
    samples = np.clip(np.rint(samples * 32768), -32768, 32767)
    return Sound(samples.astype(np.int16), int(rate)), notes


def folder(path: str, options: Options) -> tuple[list[bytes], list[str]]:
    """All images of a folder, in the order of the numbers in their names."""
    try:
        names = [name for name in os.listdir(path) if pathlib.Path(name).suffix.lower() in IMAGES]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing("no such folder") from error
    if not names:
        raise Missing("no images in the folder")
    return images(tuple(os.path.join(path, name) for name in sorted(names, key=_natural)), options)


def images(paths: tuple[str, ...], options: Options) -> tuple[list[bytes], list[str]]:
    """The images at `paths`, JPEG files byte by byte and others turned into JPEG."""
    frames, notes = [], []
    for path in paths:
        if not os.path.exists(path):
            raise Missing("no such file")
        data = pathlib.Path(path).read_bytes()
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "GIF", "BMP", "WEBP")) as image:
            smaller = 0 < options.short_side < min(image.size)
            if image.format == "JPEG" and not smaller:
                image.draft(None, (1, 1))       # all of the file is read, little is computed
                image.load()
                frames.append(data)
            else:
                notes += [] if image.format == "JPEG" else ["turned into JPEG"]
                frames.append(jpeg(image, options))
    return frames, notes[:1]


def flow(folders: tuple[str, str], options: Options) -> tuple[list[bytes], list[str]]:
    """The horizontal flow of the first folder, then the vertical flow of the second."""
    parts, notes = zip(*(folder(path, options) for path in folders))
    if len(parts[0]) != len(parts[1]):
        raise ValueError(f"{len(parts[0])} images of horizontal and {len(parts[1])} of vertical "
                         "flow")
    return parts[0] + parts[1], notes[0]


def png(path: str, options: Options) -> tuple[list[bytes], list[str]]:
    """A PNG file byte by byte, for maps: values that must not change."""
    del options
    if not os.path.exists(path):
        raise Missing("no such file")
    data = pathlib.Path(path).read_bytes()
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.load()
    return [data], []


def video(path: str, fps: float, options: Options) -> tuple[list[bytes], list[str]]:
    """Frames of a video as JPEG, `options.fps` or else `fps` of them a second (0: all)."""
    fps = options.fps or fps
    frames: list[bytes] = []
    with _open(path) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        start = None
        for number, frame in enumerate(container.decode(video=0)):
            seconds = number if frame.time is None else frame.time
            start = seconds if start is None else start
            # Frame k is the first one at or after k / fps seconds.
            count = int((seconds - start) * fps + 1e-6) + 1 - len(frames) if fps else 1
            if count > fps * LONGEST_GAP + 1:
                raise ValueError(f"no frames for more than {LONGEST_GAP} s")
            if count > 0:
                frames += count * [jpeg(frame.to_image(), options)]
    if not frames:
        raise ValueError("no frames")
    return frames, []


def text_file(path: str, options: Options) -> tuple[str, list[str]]:
    """The text of a file."""
    del options
    if not os.path.exists(path):
        raise Missing("no such file")
    return decode_text(pathlib.Path(path).read_bytes())


def given(value, options: Options) -> tuple[Any, list[str]]:
    """What the list of the data set says itself, such as a transcript."""
    del options
    return value, []


def array(path: str, options: Options) -> tuple[np.ndarray, list[str]]:
    """The numbers in a .npy file."""
    del options
    if not os.path.exists(path):
        raise Missing("no such file")
    return _floats(np.load(path, allow_pickle=False))


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


def jpeg(image: Image.Image, options: Options) -> bytes:
    """The image as JPEG, shrunk if `options` say so."""
    image = image.convert("L" if image.mode in ("1", "L", "I;16", "LA") else "RGB")
    shorter = min(image.size)
    if 0 < options.short_side < shorter:
        size = [max(round(n * options.short_side / shorter), 1) for n in image.size]
        image = image.resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _open(path: str):
    """The container of a video."""
    if not os.path.exists(path):
        raise Missing("no such file")
    return av.open(path, options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"})


def _sound_of_video(path: str) -> tuple[np.ndarray, int]:
    """Samples float32 [T, channels] in [-1, 1] of a video, and their rate in Hz."""
    with _open(path) as container:
        if not container.streams.audio:
            if container.streams.video:
                raise Missing("video without sound")
            raise ValueError("neither sound nor video")
        rate = container.streams.audio[0].codec_context.sample_rate
        resampler = av.AudioResampler(format="fltp")
        frames = itertools.chain(container.decode(audio=0), [None])     # None: what is left
        parts = [part.to_ndarray() for frame in frames for part in resampler.resample(frame)]
    if not parts:
        raise ValueError("no samples")
    return np.concatenate(parts, axis=1).T, rate


def _check_riff(path: str) -> None:
    """Raises ValueError if a wav file ends before the samples that its header announces."""
    left = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":
            return                                      # the decoder knows better
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"data":
                # Programs that write to a pipe leave the size open.
                if file.tell() + size > left and size < 0xFFFFFF00:
                    raise ValueError(f"cut short: {left - file.tell()} of {size} bytes of sound")
                return
            file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError("no sound in the file")


def _floats(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """float32 numbers, 0 where they are not finite."""
    if values.dtype.kind not in "buif":
        raise ValueError(f"{values.dtype} values, expected numbers")
    finite = np.isfinite(values)
    values = np.where(finite, values, 0).astype(np.float32)
    return values, [] if finite.all() else ["values that are not finite set to 0"]


@functools.lru_cache(8)
def _array(path: str, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return archive[name]
