"""How much encoders that exchange information use what they get from the others.

References:
  Wu et al., "Characterizing and overcoming the greedy nature of learning in multi-modal deep neural
  networks", ICML 2022, section 3.
"""
from collections.abc import Mapping
from typing import Any

import numpy as np


def utilization(whole: Mapping[str, float], alone: Mapping[str, float]) -> dict[str, float]:
    """Conditional utilization rate u = (A - A') / A of the other modalities, by modality.

    It is negative where the others mislead, and NaN where A is 0.

    Args:
      whole: accuracy A of each modality's head.
      alone: the accuracy A' of the same head when the exchange gives its encoder only the mean of
        each other modality.
    """
    return {m: (whole[m] - alone[m]) / whole[m] if whole[m] else np.nan for m in whole}


def imbalance(rates: Mapping[str, float]) -> float:
    """The largest rate minus the smallest; for two modalities, their difference."""
    return max(rates.values()) - min(rates.values())


def with_means(stats: Mapping[str, Any], squeezes: Mapping[str, np.ndarray],
               present: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The statistics of an exchange, with running means replaced by the means over a whole split.

    These means then stand in for absent modalities.

    Args:
      stats: by stage and modality.
      squeezes: what enters the exchange, [N, C] by "STAGE/MODALITY".
      present: bool [N] by modality; the mean of one that no example has stays as it is.
    """
    def mean(stage, m, old):
        rows = squeezes[f"{stage}/{m}"][present[m]]
        return rows.mean(axis=0, dtype=np.float64).astype(np.float32) if len(rows) else old

    return {stage: {m: old | {"mean": mean(stage, m, old["mean"])} for m, old in by_modality.items()}
            for stage, by_modality in stats.items()}
