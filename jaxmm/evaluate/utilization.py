"""How much encoders that exchange what they see use what the others tell them.

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
      alone: the same A' where the exchange tells its encoder the means of the others.
    """
    return {m: (whole[m] - alone[m]) / whole[m] if whole[m] else np.nan for m in whole}


def imbalance(rates: Mapping[str, float]) -> float:
    """The largest rate less the smallest: for two modalities the difference between them."""
    return max(rates.values()) - min(rates.values())


def with_means(stats: Mapping[str, Any], squeezes: Mapping[str, np.ndarray],
               present: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The statistics of an exchange whose running means are those of a whole split.

    An absent modality then enters the exchange as the mean of the examples that have it.

    Args:
      stats: by stage and modality.
      squeezes: what enters the exchange, [N, C] by "STAGE/MODALITY".
      present: bool [N] by modality; one that no example has stays as it is.
    """
    def mean(stage, m, old):
        rows = squeezes[f"{stage}/{m}"][present[m]]
        return rows.mean(axis=0, dtype=np.float64).astype(np.float32) if len(rows) else old

    return {stage: {m: old | {"mean": mean(stage, m, old["mean"])} for m, old in by_modality.items()}
            for stage, by_modality in stats.items()}
