"""Spoken and written digits that need each other: the data set that comes with the package.

Every image of UCI's handwritten digits (1797, 8 x 8, those of scikit-learn's `load_digits`) occurs
once, with a clip of the same digit spoken by one of 79 synthetic voices at a random place of a window
of 0.65 s; `av_digits.npz` holds both, made by `launch/make_av_digits.py`. The splits share neither
images nor voices:

    split   examples   images   voices
    train       1200     1200       48
    val          297      297       16
    test         300      300       15

Noise is added once to each modality, so that neither suffices and, being independent, each can
correct the other: white noise to the audio at a signal-to-noise ratio of -2 dB, Gaussian noise of
standard deviation 0.4 (white is 1) to the images. The levels were chosen on validation data so
that a small network on one modality alone is right in about 78%. Test accuracy in % of such
networks (three stages of 3 x 3 convolution, batch norm and 2 x 2 max-pool, 16 channels at first,
25 epochs of SGD) and share of examples that both get wrong:

    data seed   network seed   audio   visual   both wrong
    0           0              81.0    81.0     3.3
    0           1              85.0    74.7     4.7
    0           2              83.7    76.7     4.0
    1           1              83.7    77.3     4.0
    2           2              74.7    74.3     4.7

The data set `avt_digits` has a third modality, the digit's word in one of 31 languages with letters changed, see
`jaxmm.data.digit_words`; all splits have words of all languages. Of the letters 22% are drawn anew, so that a
small network on text alone (three dense layers of 128, 25 epochs of SGD) is right in 78.3% of validation and
78.7% of test data, the means over the five rows above.
"""
import pathlib
from typing import NamedTuple

import chex
import numpy as np

from jaxmm.batch import make_batch
from jaxmm.config import DataConfig
from jaxmm.data import digit_words
from jaxmm.data.dataset import Dataset
from jaxmm.data.spectrogram import cached_log_mel, mel_bands

WITH_TEXT = "avt_digits"    # name of the data set of three modalities
CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGES = {"train": 1200, "val": 297, "test": 300}       # of each split
VOICES = {"train": 48, "val": 16, "test": 15}
SAMPLE_RATE = 8000          # Hz
PEAK = 1023                 # of every clip as stored in int16
WINDOW = 5216               # samples of an example: 32 frames
RATES = (8000, 4000, 2000, 1000)        # Hz, what sound can be resampled to
BANDS = 32                  # of a mel spectrogram, or fewer where no more have a frequency each
AUDIO_SNR_DB = -2.0         # energy of speech over energy of white noise, in the window
VISUAL_NOISE = 0.4          # standard deviation, where black is 0 and white is 1


class Digits(NamedTuple):
    """Handwritten digits."""
    images: np.ndarray              # uint8 [N, 8, 8], of 17 levels: 0 is black, 16 white
    digit: np.ndarray               # [N]


class Clips(NamedTuple):
    """Speech of D clips, one for each digit of each voice."""
    samples: list[np.ndarray]       # D of float32 [at most WINDOW], in [-1, 1]
    digit: np.ndarray               # [D]
    voice: np.ndarray               # [D], number of the voice
    accents: np.ndarray             # [V], of every voice


class Pairs(NamedTuple):
    """The examples of one split."""
    image: np.ndarray               # [N], row of `Digits`
    clip: np.ndarray                # [N], row of `Clips`


def load(config: DataConfig) -> Dataset:
    """The data set; `config.seed` draws splits, pairs, places and noise.

    Modalities: "audio" is a log-mel spectrogram, float32 [N, 32, 32] (mels, frames), "visual" an image, uint8
    [N, 8, 8]. If `config.name` is "avt_digits" there is "text" too, letters as uint8 [N, 9, 26], see
    `digit_words`; the others are the same, to the bit. With another `config.audio_rate` the noisy sound, which is
    the same, is low-passed and resampled first; the spectrogram has fewer bands where no more fit.
    """
    digits, clips = read()
    images, digit = digits.images / 16, digits.digit
    rng = np.random.default_rng(config.seed)
    of_words = np.random.default_rng([config.seed, 1])      # its own, as it must not move the draws of the others
    with_text = config.name == WITH_TEXT
    splits = {}
    for split, pairs in draw_pairs(digit, clips, rng).items():
        speech = place([clips.samples[c] for c in pairs.clip], rng)
        audio = add_noise(speech, AUDIO_SNR_DB, rng)
        visual = images[pairs.image]
        visual = np.clip(visual + VISUAL_NOISE * rng.standard_normal(visual.shape), 0, 1)
        inputs = {"audio": cached_log_mel(resample(audio, config.audio_rate), **spectrogram_of(config.audio_rate)),
                  "visual": np.round(255 * visual).astype(np.uint8)}
        if with_text:
            inputs["text"] = digit_words.draw(digit[pairs.image], of_words)
        splits[split] = make_batch(inputs, digit[pairs.image])
    return Dataset(config.name, splits, CLASS_NAMES)


def spectrogram_of(rate: int) -> dict[str, int]:
    """Options of `log_mel` at a rate in Hz: windows of 32 ms every 20 ms, and as many bands of 32 as fit.

    A band fits if a frequency of the Fourier transform lies in it.
    """
    n_fft = rate * 32 // 1000
    bands = next(n for n in range(BANDS, 0, -1) if mel_bands(rate, n_fft, n, slaney=True).any(axis=0).all())
    return {"sample_rate": rate, "n_fft": n_fft, "hop_length": rate // 50, "n_mels": bands}


def resample(audio: np.ndarray, rate: int) -> np.ndarray:
    """Sound float32 [N, T] of 8000 Hz at one of `RATES`, [N, T * rate / 8000], low-passed below half of it."""
    if rate == SAMPLE_RATE:
        return audio
    from scipy import signal    # slow to import, and for other rates alone
    return signal.resample_poly(audio, 1, SAMPLE_RATE // rate, axis=1).astype(np.float32)


def read() -> tuple[Digits, Clips]:
    """The images and clips that come with the package."""
    with np.load(pathlib.Path(__file__).with_name("av_digits.npz"), allow_pickle=False) as file:
        samples = np.split(file["samples"] / np.float32(PEAK), file["offsets"][1:-1])
        accents = np.array([voice.partition("+")[0] for voice in file["voices"]])
        return (Digits(file["images"], file["image_digit"].astype(int)),
                Clips(samples, file["digit"], file["voice"], accents))


def draw_pairs(digit: np.ndarray, clips: Clips, rng: np.random.Generator) -> dict[str, Pairs]:
    """Divides images and voices among the splits, then gives each image a clip of its digit.

    Args:
      digit: [N], of every image.
    """
    images, voices = divide(digit, IMAGES, rng), divide(clips.accents, VOICES, rng)
    pairs = {}
    for split in IMAGES:
        image, spoken = images[split], np.isin(clips.voice, voices[split])
        clip = [rng.choice(np.flatnonzero(spoken & (clips.digit == d))) for d in digit[image]]
        pairs[split] = Pairs(image, np.array(clip))
    return pairs


def divide(strata: np.ndarray, sizes: dict[str, int], rng: np.random.Generator,
           ) -> dict[str, np.ndarray]:
    """Rows of each split, drawn without replacement, with equal shares of every stratum.

    Args:
      strata: [N], the group of each row.
      sizes: number of rows of each split, N in all.
    """
    chex.assert_shape(strata, (sum(sizes.values()),))
    parts, rest = {}, np.arange(len(strata))
    *splits, last = sizes
    for split in splits:
        taken, left = draw_share(strata[rest], sizes[split], np.random.RandomState(rng.integers(2**31)))
        parts[split], rest = rest[taken], rest[left]
    return parts | {last: rest}


def draw_share(strata: np.ndarray, size: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Rows drawn, `size` of them with equal shares of every stratum, and those that are left.

    The same as scikit-learn's `train_test_split(stratify=strata)`, whose import takes as long as that of jax.
    """
    _, stratum, counts = np.unique(strata, return_inverse=True, return_counts=True)
    taken = round_shares(counts, size, rng)
    left = round_shares(counts - taken, len(strata) - size, rng)
    order = np.split(np.argsort(stratum, kind="stable"), np.cumsum(counts)[:-1])
    order = [rows[rng.permutation(len(rows))] for rows in order]
    parts = ([rows[:n] for rows, n in zip(order, taken)],
             [rows[n:n + m] for rows, n, m in zip(order, taken, left)])
    first, second = (rng.permutation(np.concatenate(part)) for part in parts)
    return first, second


def round_shares(counts: np.ndarray, size: int, rng: np.random.RandomState) -> np.ndarray:
    """Whole numbers in proportion to `counts` whose sum is `size`: the largest remainders are rounded up."""
    exact = counts / counts.sum() * size
    shares = np.floor(exact)
    remainders = exact - shares
    for remainder in np.unique(remainders)[::-1]:
        tied = np.flatnonzero(remainders == remainder)
        missing = min(int(size - shares.sum()), len(tied))
        if not missing:
            break
        shares[rng.choice(tied, missing, replace=False)] += 1     # ties are broken at random
    return shares.astype(int)


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
