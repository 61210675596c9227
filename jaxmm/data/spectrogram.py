"""Log-mel spectrograms, and a cache on disk for them."""
import hashlib
import os
import pathlib
import tempfile
import zipfile
import zlib

import chex
import librosa
import numpy as np

from jaxmm.caches import cache_folder

FORMAT = 1          # of a cache file; raise it when `log_mel` computes something else


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
    power = librosa.feature.melspectrogram(y=audio, sr=sample_rate, n_fft=n_fft,
                                           hop_length=hop_length, n_mels=n_mels, center=False)
    return np.log(power + 1e-6, dtype=np.float32)


def cached_log_mel(audio: np.ndarray, **options: int) -> np.ndarray:
    """`log_mel(audio, **options)`, from the cache folder if it was computed before.

    A file is named by a hash of all that decides its content: the samples, the options, and the
    versions of librosa and of this format. A damaged file is computed again; a folder that cannot
    be written to means no cache.
    """
    settings = (FORMAT, librosa.__version__, audio.shape, sorted(options.items()))
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
