"""Spoken and written digits that need each other: the data set that comes with the package.

Every image of scikit-learn's `load_digits` (1797, 8 x 8) occurs once, with a clip of the same digit
spoken by one of 72 synthetic voices (`av_digits.npz`, made by `launch/make_av_digits.py`) at a
random place of a window of 0.65 s. The splits share neither images nor voices:

    split   examples   images   voices
    train       1200     1200       48
    val          297      297       12
    test         300      300       12

Both modalities are noisy, once and for all, so that neither suffices: TODO
"""
import pathlib
from typing import NamedTuple

import chex
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from jaxmm.batch import make_batch
from jaxmm.config import DataConfig
from jaxmm.data.dataset import Dataset
from jaxmm.data.spectrogram import cached_log_mel

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGES = {"train": 1200, "val": 297, "test": 300}       # of each split
VOICES = {"train": 48, "val": 12, "test": 12}
AUDIO_SNR_DB = -6.0         # speech to white noise, mean powers over the window
VISUAL_NOISE = 0.4          # standard deviation, where black is 0 and white is 1
PEAK = 1023                 # of the stored int16 samples of every clip
WINDOW = 5216               # samples: 32 frames
SPECTROGRAM = {"sample_rate": 8000, "n_fft": 256, "hop_length": 160, "n_mels": 32}


class Clips(NamedTuple):
    """Speech of D clips, one for each digit of each voice."""
    samples: list[np.ndarray]       # D of float32 [at most WINDOW], in [-1, 1]
    digit: np.ndarray               # [D]
    voice: np.ndarray               # [D], number of the voice


class Pairs(NamedTuple):
    """The examples of one split."""
    image: np.ndarray               # [N], row of `load_digits`
    clip: np.ndarray                # [N], row of `Clips`


def load(config: DataConfig) -> Dataset:
    """The data set; `config.seed` draws splits, pairs, places and noise.

    Modalities: "audio" is a log-mel spectrogram, float32 [N, 32, 32] (mels, frames), "visual" an
    image, uint8 [N, 8, 8].
    """
    images, digit = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16
    clips = read_clips()
    rng = np.random.default_rng(config.seed)
    splits = {}
    for split, pairs in draw_pairs(digit, clips, rng).items():
        speech = place([clips.samples[c] for c in pairs.clip], rng)
        audio = add_noise(speech, AUDIO_SNR_DB, rng)
        visual = images[pairs.image]
        visual = np.clip(visual + VISUAL_NOISE * rng.standard_normal(visual.shape), 0, 1)
        inputs = {"audio": cached_log_mel(audio, **SPECTROGRAM),
                  "visual": np.round(255 * visual).astype(np.uint8)}
        splits[split] = make_batch(inputs, digit[pairs.image])
    return Dataset("av_digits", splits, CLASS_NAMES)


def read_clips() -> Clips:
    """The clips that come with the package, 8 kHz."""
    with np.load(pathlib.Path(__file__).with_name("av_digits.npz"), allow_pickle=False) as file:
        samples = file["samples"] / np.float32(PEAK)
        return Clips(np.split(samples, file["offsets"][1:-1]), file["digit"], file["voice"])


def draw_pairs(digit: np.ndarray, clips: Clips, rng: np.random.Generator) -> dict[str, Pairs]:
    """Divides images (classes in proportion) and voices among the splits, and pairs them by class.

    Args:
      digit: [N], of every image. Each image gets one clip, drawn from the voices of its split.
    """
    images, voices = np.arange(len(digit)), rng.permutation(clips.voice.max() + 1)
    pairs = {}
    for split, size in IMAGES.items():
        chosen = images
        if size < len(images):
            chosen, images = train_test_split(images, train_size=size, stratify=digit[images],
                                              random_state=int(rng.integers(2**31)))
        speakers, voices = np.split(voices, [VOICES[split]])
        spoken = np.isin(clips.voice, speakers)
        clip = [rng.choice(np.flatnonzero(spoken & (clips.digit == d))) for d in digit[chosen]]
        pairs[split] = Pairs(chosen, np.array(clip))
    return pairs


def place(clips: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Every clip at a random place of a silent window of its own, float32 [N, WINDOW]."""
    audio = np.zeros((len(clips), WINDOW), np.float32)
    for row, clip in zip(audio, clips):
        start = rng.integers(WINDOW - len(clip) + 1)
        row[start:start + len(clip)] = clip
    return audio


def add_noise(speech: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Adds white Gaussian noise at a signal-to-noise ratio, the same for every row.

    Args:
      speech: float32 [N, T], no row silent.
      snr_db: 10 log10 of the energy of a row's speech over the energy of its noise, in dB.
    """
    chex.assert_rank(speech, 2)
    noise = rng.standard_normal(speech.shape, np.float32)
    energy = [np.square(x).sum(axis=1, keepdims=True) for x in (speech, noise)]
    return speech + noise * np.sqrt(energy[0] / energy[1] * 10 ** (-snr_db / 10))
