"""Spectrograms: on the device, within a step, and on the host, with a cache on disk."""
import hashlib
import os
import pathlib
import tempfile
import zipfile
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.caches import cache_folder
from jaxmm.config import SpectrogramConfig

FLOOR = 1e-7                # added to a magnitude before its logarithm
MEL_FLOOR = 2.0**-23        # the least power of a mel band, as in Kaldi
LOWEST_MEL = 20.0           # Hz
SLANEY_STEP = np.log(6.4) / 27      # of the logarithm of Hz, above 1000 Hz
FORMAT = 2          # of a cache file; increase it when the result of `log_mel` changes


def spectrogram(x: chex.Array, config: SpectrogramConfig) -> chex.Array:
    """Spectrogram of samples float32 [T]: [bins, columns], or [columns, mels] with mel bands.

    It equals librosa's `stft` and `melspectrogram` (htk=True, norm=None, fmin=20) with the same options:
    log(|X| + 1e-7), or the logarithm of the power in mel bands, clipped below at 2^-23. With `kaldi` it
    equals the `fbank` of Kaldi, without dither.
    """
    chex.assert_rank(x, 1)
    filled = x
    if config.preemphasis and not config.kaldi:
        x = x.at[1:].add(-config.preemphasis * x[:-1])
    if config.center:
        x = jnp.pad(x, config.n_fft // 2)
    length = config.window or config.n_fft
    reach = length if config.kaldi else config.n_fft        # samples that a column is made of
    columns = 1 + (len(x) - reach) // config.hop
    starts = config.hop * np.arange(columns)
    frames = x[starts[:, None] + np.arange(reach)]
    if config.kaldi:
        frames -= frames.mean(1, keepdims=True)
        before = jnp.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        frames = (frames - config.preemphasis * before) * np.hanning(length).astype(np.float32)
    else:
        frames *= hann(length, config.n_fft)
    magnitude = jnp.abs(jnp.fft.rfft(frames, config.n_fft))
    if config.mels:
        bands = mel_bands(config.rate, config.n_fft, config.mels, kaldi=config.kaldi)
        result = jnp.matmul(magnitude**2, bands, precision=jax.lax.Precision.HIGHEST)
        result = jnp.log(jnp.maximum(result, MEL_FLOOR)) if config.log else result
    else:
        result = jnp.log(magnitude + FLOOR) if config.log else magnitude
    if config.fill == "columns":
        result = jnp.where((starts + reach <= end_of(filled))[:, None], result, 0)
    if config.columns:
        result = jnp.pad(result[:config.columns], ((0, max(config.columns - columns, 0)), (0, 0)))
    return result if config.mels else result.T


def end_of(x: chex.Array) -> chex.Array:
    """The number of samples [T] up to the last one that is not 0."""
    return jnp.max(jnp.where(x != 0, np.arange(1, len(x) + 1), 0))


def mel_bands(rate: int, n_fft: int, mels: int, *, slaney: bool = False, kaldi: bool = False) -> np.ndarray:
    """Triangular filters on a mel scale, float32 [bins, mels].

    By default of height 1, from 20 Hz on, on the HTK scale; with `kaldi` their sides are straight on
    this scale, not in Hz. With `slaney` as in librosa: of equal area, from 0 Hz on, on Slaney's scale.
    """
    to_mel, to_hz = (slaney_mel, slaney_hz) if slaney else (htk_mel, htk_hz)
    edges = np.linspace(to_mel(0.0 if slaney else LOWEST_MEL), to_mel(rate / 2), mels + 2)
    bins = np.fft.rfftfreq(n_fft, 1 / rate)
    edges, bins = (edges, to_mel(bins)) if kaldi else (to_hz(edges), bins)
    distance = np.subtract.outer(edges, bins)
    width = np.diff(edges)[:, None]
    rising, falling = -distance[:-2] / width[:-1], distance[2:] / width[1:]
    bands = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    if slaney:
        bands *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return bands.T


def htk_mel(hz):
    """Hz on the mel scale of HTK."""
    return 2595 * np.log10(1 + hz / 700)


def htk_hz(mel):
    """The inverse of `htk_mel`."""
    return 700 * (10 ** (mel / 2595) - 1)


def slaney_mel(hz):
    """Hz on the mel scale of Slaney's Auditory Toolbox: linear up to 1000 Hz, then logarithmic."""
    return np.where(hz < 1000, hz / (200 / 3), 15 + np.log(np.maximum(hz, 1000) / 1000) / SLANEY_STEP)


def slaney_hz(mel):
    """The inverse of `slaney_mel`."""
    return np.where(mel < 15, 200 / 3 * mel, 1000 * np.exp(SLANEY_STEP * (mel - 15)))


def hann(window: int, n_fft: int) -> np.ndarray:
    """A periodic Hann window with zeros on both sides, float32 [n_fft]."""
    before = (n_fft - window) // 2
    w = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return np.pad(w, (before, n_fft - window - before)).astype(np.float32)


def log_mel(audio: np.ndarray, *, sample_rate: int, n_fft: int, hop_length: int,
            n_mels: int) -> np.ndarray:
    """Natural logarithm of the mel power spectrogram of every row, plus 1e-6.

    Args:
      audio: float32 [N, T] samples in [-1, 1].
      sample_rate: of audio, in Hz.
      n_fft: Hann window and Fourier transform, in samples.
      hop_length: from one frame to the next, in samples. No frame reaches past the ends.
      n_mels: bands from 0 Hz to sample_rate / 2, on Slaney's mel scale, of equal area.

    Returns:
      float32 [N, n_mels, 1 + (T - n_fft) // hop_length].
    """
    chex.assert_rank(audio, 2)
    chex.assert_type(audio, np.float32)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(audio, n_fft, axis=1)[:, ::hop_length]
    magnitude = np.abs(np.fft.rfft(window * frames).astype(np.complex64))
    bands = mel_bands(sample_rate, n_fft, n_mels, slaney=True)
    power = np.einsum("ntf,fm->nmt", magnitude**2, bands, optimize=True)
    return np.log(power + 1e-6, dtype=np.float32)


def cached_log_mel(audio: np.ndarray, **options: int) -> np.ndarray:
    """`log_mel(audio, **options)`, from the cache folder if it was computed before.

    A file is named by a hash of all that determines its content: the samples, the options, and the
    version of this format. Damaged files are computed again. If the folder cannot be written to there
    is no cache.
    """
    settings = (FORMAT, audio.shape, sorted(options.items()))
    key = hashlib.sha256(repr(settings).encode())
    key.update(np.ascontiguousarray(audio))
    path = cache_folder() / f"log_mel_{key.hexdigest()[:32]}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:     # the zip format has checksums
            return file["log_mel"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        pass                                                # absent or damaged
    result = log_mel(audio, **options)
    try:
        write_arrays(path, log_mel=result)
    except OSError:
        pass
    return result


def write_arrays(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Saves arrays so that `path` is, at any moment, either absent, the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
