"""Whether the best of several is better than each of the others, over seeds."""
from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxmm.report.records import Cell
from jaxmm.report.units import best, unit

LEVEL = 0.05
LEAST = 3       # shared seeds needed for a test


class Winner(NamedTuple):
    """The best of a column."""
    row: Hashable
    p: dict[Hashable, float]    # of the others that share LEAST seeds with it; NaN where all are equal
    seeds: int                  # the fewest that any other shares with it
    better: bool                # whether it is, at LEVEL, than each of the others


def winner(metric: str, cells: Mapping[Hashable, Cell]) -> Winner | None:
    """The best mean, compared with each other one by a two-sided paired t test; None without any cell.

    It is better than each only if all tests agree, so no correction for their number is needed.
    """
    row = best(metric, {row: cell.mean for row, cell in cells.items()})
    if row is None:
        return None
    p, ahead, shared, own = {}, [], [], dict(cells[row].values)
    for other, cell in cells.items():
        if other != row:
            theirs = dict(cell.values)
            seeds = sorted(own.keys() & theirs)
            shared.append(len(seeds))
            if len(seeds) >= LEAST:
                differences = np.array([own[s] - theirs[s] for s in seeds])
                p[other] = paired_t(differences)
                ahead.append((differences.mean() < 0) == unit(metric).lower)    # in the shared seeds too
    fewest = min(shared, default=0)
    better = fewest >= LEAST and all(ahead) and all(x < LEVEL for x in p.values())
    return Winner(row, p, fewest, better)


def paired_t(differences: np.ndarray) -> float:
    """Two-sided p of mean 0; 0 if all differences [S] are equal, NaN if they are all 0."""
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():    # rounding, of which t would be made
        return 0.0 if differences[0] else np.nan
    return float(stats.ttest_1samp(differences, 0).pvalue)
