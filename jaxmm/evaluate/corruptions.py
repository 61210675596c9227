"""Splits with modalities removed or made noisy, to test how robust a model is."""
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from jaxmm.batch import Batch, batch_size
from jaxmm.data.rows import Rows, select
from jaxmm.keys import named_rng


def corrupt(split: Batch, drop: Collection[str], noise: Mapping[str, float],
            deviations: Mapping[str, np.ndarray], seed: int, used: Collection[str] = ()) -> Batch:
    """The split with some modalities missing and others noisy; all else stays bit for bit.

    Args:
      split: a whole split.
      drop: modalities to remove from every example.
      noise: by modality, the standard deviation of Gaussian noise to add, in standard deviations of
        the training data. The inputs become float32, or float64 where float32 loses digits, and may
        leave their range.
      deviations: standard deviation of the training data by modality, 0 where it is constant.
      seed: of the noise, which is drawn separately for each modality.
      used: modalities of the run; all by default.

    Returns:
      A split without the examples that have none of the used modalities left.
    """
    inputs, present = dict(split["inputs"]), dict(split["present"])
    for m, sigma in noise.items():
        clean = inputs[m]
        dtype = np.result_type(clean.dtype, np.float32)
        std = np.asarray(sigma * deviations[m].astype(dtype), dtype)
        if isinstance(clean, Rows):
            inputs[m] = clean.change(functools.partial(
                read_noisy, read=clean.read, std=std, seed=[seed, *m.encode()]), np.float32)
            continue
        rng = named_rng(seed, m)
        clean = clean.astype(dtype)
        inputs[m] = clean + std * rng.standard_normal(clean.shape, np.float32)
    for m in drop:
        present[m] = np.zeros(batch_size(split), bool)
    split = split | {"inputs": inputs, "present": present}
    left = np.any([present[m] for m in used or present], axis=0)
    return split if left.all() else select(split, left)


def read_noisy(record: Any, position: int, read: Callable, std: np.ndarray, seed: list[int]) -> np.ndarray:
    """A row that is read on demand, with noise drawn from the seed and the row's position."""
    clean = read(record, position).astype(np.float32)
    rng = np.random.default_rng([*seed, position])
    return clean + std * rng.standard_normal(clean.shape, np.float32)
