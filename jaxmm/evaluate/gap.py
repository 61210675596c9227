"""The modality gap: how far apart the features of the modalities lie.

References:
  Liang et al., "Mind the gap", NeurIPS 2022.
  MLA, arXiv 2311.10707, which compares its gap with that of `concat`.
"""
import itertools
from collections.abc import Mapping

import chex
import numpy as np


def modality_gap(features: Mapping[str, chex.Array]) -> dict[tuple[str, str], float]:
    """Distance, from 0 to 2, between the means of the normalised features of two modalities.

    Args:
      features: [N, s] by modality; N may differ. Pairs of different widths s are left out, since
        their features lie in different spaces.
    """
    means = {m: normalize(h).mean(0) for m, h in features.items()}
    return {(a, b): float(np.linalg.norm(means[a] - means[b]))
            for a, b in itertools.combinations(means, 2) if means[a].shape == means[b].shape}


def principal_plane(features: Mapping[str, chex.Array]) -> dict[str, np.ndarray]:
    """The normalised features [N, 2] on the first two principal axes of all of them together.

    Args:
      features: [N, s] by modality, all of one width s of 2 at least; N may differ.
    """
    x = {m: normalize(h) for m, h in features.items()}
    stacked = np.concatenate(list(x.values()))
    centre = stacked.mean(0)
    _, axes = np.linalg.eigh(np.cov(stacked, rowvar=False, bias=True))
    plane = axes[:, :-3:-1]                             # eigenvalues come in ascending order
    largest = np.abs(plane).argmax(0)
    plane = plane * np.sign(plane[largest, [0, 1]])     # the sign of an axis is arbitrary: fix it
    return {m: (h - centre) @ plane for m, h in x.items()}


def normalize(features: chex.Array) -> np.ndarray:
    """Rows [N, s] scaled to length 1, in float64; rows of zeros stay."""
    chex.assert_rank(features, 2)
    x = np.asarray(features, np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)
