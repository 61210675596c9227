"""AV-MNIST: handwritten digits, each with a recording of the spoken digit.

The images are those of the TFDS data set `mnist`, in its splits; the recordings those of
`spoken_digit`, of which numbers 0 to 4 of every speaker and digit are test. Each image gets a
recording of its digit and split, drawn once. Both are loaded into --source; if they are not there yet
they are downloaded, which needs network and the packages that TFDS asks for.
"""
import contextlib
import functools
import io
import pathlib

import numpy as np
from PIL import Image

from jaxmm import extras
from jaxmm.data.prepared import Sound
from jaxmm.errors import UserError
from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import Example, Layout, Modality

tfds = extras.Later("tensorflow_datasets", "avmnist")

CLASS_NAMES = tuple(str(digit) for digit in range(10))
RATE = 8000             # Hz, of spoken_digit
TEST_RECORDINGS = 5     # of each speaker and digit


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    rng = np.random.default_rng(0)
    spoken = _load("spoken_digit", "train", str(source))
    clips: dict[tuple[str, int], list[int]] = {}
    for row in range(len(spoken)):
        clip = spoken[row]
        number = int(_name(clip["audio/filename"]).rpartition("_")[2])
        split = "test" if number < TEST_RECORDINGS else "train"
        clips.setdefault((split, int(clip["label"])), []).append(row)
    entries = []
    for split in ("train", "test"):
        images = _load("mnist", split, str(source))
        for row in range(len(images)):
            digit = int(images[row]["label"])
            clip = int(rng.choice(clips[split, digit]))
            entries.append(Example(f"{split}_{row:05d}", split, CLASS_NAMES[digit], {
                "audio": Source(recording, (clip, str(source))),
                "visual": Source(image, (row, split, str(source)))}))
    return Layout({"audio": Modality("audio"), "visual": Modality("frames")}, CLASS_NAMES, entries)


def image(row: int, split: str, folder: str, options: Options) -> tuple[list[bytes], list[str]]:
    """One written digit."""
    pixels = np.asarray(_load("mnist", split, folder)[row]["image"])
    return [decode.jpeg(Image.fromarray(pixels.reshape(pixels.shape[:2])), options)], []


def recording(row: int, folder: str, options: Options) -> tuple[Sound, list[str]]:
    """One spoken digit."""
    samples = np.asarray(_load("spoken_digit", "train", folder)[row]["audio"], np.float32) / 32768
    return decode.mono(samples[:, None], RATE, options)


@functools.lru_cache(4)
def _load(name: str, split: str, folder: str):
    """The TFDS data set, downloaded if needed.

    Raises:
      UserError: it cannot be loaded.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):     # what it prints before it fails
            return tfds.data_source(name, split=split, data_dir=folder)
    # No network, no space, no TensorFlow: each fails in its own way.
    except Exception as error:  # pylint: disable=broad-exception-caught
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(f"avmnist: TFDS cannot load {name} into {folder} ({said[0]}); it needs "
                        "network once, tensorflow, and pydub for spoken_digit") from error


def _name(filename) -> str:
    """0_jackson_3 of 0_jackson_3.wav."""
    text = filename.decode() if isinstance(filename, bytes) else str(filename)
    return pathlib.PurePosixPath(text).stem
