"""Speaks the digits of the data set `av_digits` and writes them, with images, to one npz file.

    pip install espeakng-loader librosa
    python -m launch.make_av_digits --file=jaxmm/data/av_digits.npz

Only needed to make again the file that the package ships. eSpeak NG synthesises every digit in 79
voices. A voice is a variant of eSpeak (a speaker) used once, in one of eight accents, at a pitch
and a rate of its own. The same version of eSpeak gives the same bytes. Images are scikit-learn's digits.
"""
import ctypes
import os
import sys

from absl import flags
import numpy as np

from jaxmm import extras, files
from jaxmm.commands import app
from jaxmm.errors import UserError

TRIM_DB = 35        # a frame this much below the loudest one is silence
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan",
           "en-gb-x-gbcwmd", "en-us-nyc")
SPEAKERS = """
    m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2
    Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed RicishayMax Storm adam anika
    announcer antonio aunty belinda benjamin boris caleb david edward edward2 grandma grandpa
    gustave ian iven iven2 john kaukovalta klatt klatt2 klatt3 klatt4 klatt5 klatt6 linda marcelo
    max michel miguel mike2 norbert pablo paul pedro quincy rob robert sandro shelby steph travis
    victor zac
""".split()

# Constants of espeak-ng/speak_lib.h.
SYNCHRONOUS, RATE, VOLUME, PITCH, CHARS_UTF8 = 2, 1, 2, 3, 1

FLAGS = flags.FlagValues()
FILE = flags.DEFINE_string("file", "jaxmm/data/av_digits.npz", "File to write.", flag_values=FLAGS)


def open_espeak():
    """eSpeak NG as a function (word, voice, pitch, rate) -> mono float32 samples, and its rate."""
    espeakng_loader = extras.need("espeakng_loader", "speaking the digits", "")
    espeak = ctypes.CDLL(espeakng_loader.get_library_path())
    data_path = os.path.dirname(espeakng_loader.get_data_path())
    rate_hz = espeak.espeak_Initialize(SYNCHRONOUS, 0, data_path.encode(), 0)

    chunks = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples, count, _):
        if samples and count:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    espeak.espeak_SetSynthCallback(collect)

    def speak(word, voice, pitch, rate, collect=collect):   # holds on to the callback
        if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"eSpeak has no voice {voice!r}: install espeakng-loader 0.2.4")
        espeak.espeak_SetParameter(VOLUME, 40, 0)           # loud variants clip at the default 100
        espeak.espeak_SetParameter(PITCH, pitch, 0)
        espeak.espeak_SetParameter(RATE, rate, 0)
        espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))      # of the breath in some voices
        chunks.clear()
        espeak.espeak_Synth(word.encode(), len(word) + 1, 0, 1, 0, CHARS_UTF8, None, None)
        return np.concatenate(chunks).astype(np.float32) / 2 ** 15

    return speak, rate_hz


def to_clip(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Resamples to `SAMPLE_RATE`, trims silence at both ends, scales to `PEAK`; int16 [T]."""
    from jaxmm.data.av_digits import PEAK, SAMPLE_RATE
    librosa = extras.need("librosa", "trimming clips", "")
    samples = librosa.resample(samples, orig_sr=rate_hz, target_sr=SAMPLE_RATE)
    samples, _ = librosa.effects.trim(samples, top_db=TRIM_DB, frame_length=256, hop_length=64)
    return np.round(samples * (PEAK / np.abs(samples).max())).astype(np.int16)


def make_images() -> dict[str, np.ndarray]:
    """The handwritten digits, as `jaxmm.data.av_digits` reads them."""
    from sklearn.datasets import load_digits
    digits = load_digits()
    return {"images": digits.images.astype(np.uint8), "image_digit": digits.target.astype(np.int8)}


def make_clips() -> dict[str, np.ndarray]:
    """Every digit in every voice, as the arrays that `jaxmm.data.av_digits` reads."""
    from jaxmm.data.av_digits import CLASS_NAMES     # here, so that --help is quick
    speak, rate_hz = open_espeak()
    rng = np.random.default_rng(0)
    voices, clips = [], []
    for i, speaker in enumerate(SPEAKERS):
        voices.append(f"{ACCENTS[i % len(ACCENTS)]}+{speaker}")
        pitch, rate = int(rng.integers(30, 71)), int(rng.integers(180, 261))   # of 100; words/min
        clips += [to_clip(speak(word, voices[-1], pitch, rate), rate_hz) for word in CLASS_NAMES]
    return {
        "samples": np.concatenate(clips),
        "offsets": np.cumsum([0] + [len(c) for c in clips], dtype=np.int32),
        "digit": np.tile(np.arange(len(CLASS_NAMES), dtype=np.int8), len(voices)),
        "voice": np.repeat(np.arange(len(voices), dtype=np.int16), len(CLASS_NAMES)),
        "voices": np.array(voices),
    }


def main() -> None:
    file = files.expand(FILE.value)
    if file.suffix != ".npz" or not file.parent.is_dir():
        raise UserError(f"--file={file}: expected a name ending in .npz in a folder that exists")
    np.savez_compressed(file, **make_clips(), **make_images())
    print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    app.run(sys.modules[__name__])
