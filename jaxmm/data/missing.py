"""Drops modalities from examples, once for the whole run."""
import numpy as np

from jaxmm.batch import Batch
from jaxmm.config import DataConfig
from jaxmm.data.dataset import Dataset, say
from jaxmm.errors import UserError, check_choice
from jaxmm.keys import named_rng

SCHEMES = ("independent", "exact")


def mask(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with modalities missing at random, as `data.missing_rate` and `data.missing_scheme` ask.

    Modalities of the examples of every split are dropped as `drop` says (MLA, arXiv 2311.10707, section
    4.2). With `data.missing_modality` only that modality is dropped, and only in training (its figure 2).
    The masks are drawn by `data.seed`, add to what an example lacks already, and leave each example at
    least one modality. They do not depend on the method: a run with some of the modalities is trained and
    scored on the examples that have one of these.

    Raises:
      UserError: the rate is not in [0, 1), there is no such modality or scheme, or no training example
        has a modality to spare.
    """
    rate, only = config.missing_rate, config.missing_modality
    if not 0 <= rate < 1:
        raise UserError(f"data.missing_rate={rate}; expected a share in [0, 1), as one modality of each "
                        "example is kept")
    check_choice("data.missing_scheme", config.missing_scheme, SCHEMES)
    if only:
        check_choice("data.missing_modality", only, dataset.modalities)
    if rate == 0:
        return dataset
    if dataset.target:
        raise UserError(f"data.missing_rate={rate} is not for a segmentation; leave it 0, and name what rows lack by "
                        "present")
    modalities, present = [only] if only else dataset.modalities, dataset.splits["train"]["present"]
    if not (np.any([present[m] for m in modalities], axis=0) & (sum(present.values()) > 1)).any():
        what = f"has {only} and another modality" if only else "has two modalities"
        raise UserError(f"data.missing_rate={rate}: no training example of {dataset.name} {what}, and one of "
                        "each is kept; leave it 0")
    return dataset._replace(splits=dataset.splits | {
        split: drop(dataset.splits[split], modalities, rate, config.seed, split, config.missing_scheme)
        for split in (["train"] if only else dataset.splits)})


def drop(split: Batch, modalities, rate: float, seed: int, name: str, scheme: str = "independent") -> Batch:
    """The split with the modalities dropped from its examples at that rate; of each example one is left.

    "independent" drops each modality of each example with probability `rate`. An example that would have
    nothing left keeps one of its modalities, drawn with equal probability, so that fewer are missing in the
    end. The draws depend on the seed and the names of split and modality.

    "exact" draws one modality of each example that is kept, and drops of the others as many as make the
    share of all that are missing the rate; of M modalities from (M-1)/M on exactly one is left. The
    modalities that are not to be dropped are kept first.

    References:
      "exact": the code released with GCNet (arXiv 2203.02177) and MLA, after that of CPM-Nets.
    """
    names = sorted(split["present"])
    had = np.stack([split["present"][m] for m in names])
    at_risk = had & np.isin(names, modalities)[:, None]
    drawn, turn = np.stack([named_rng(seed, name, m).random((2, had.shape[1])) for m in names], axis=1)
    spared, rows = np.where(had, turn + ~at_risk, -1).argmax(axis=0), np.arange(had.shape[1])
    if scheme == "exact":
        at_will = at_risk.copy()
        at_will[spared, rows] = False
        wanted, most = round(rate * at_risk.sum()), at_will.sum()
        if wanted > most:
            say(f"data.missing_rate={rate}: one modality of each example is kept, so "
                f"{most / at_risk.sum():.1%} are missing")
        lost = np.zeros_like(had)
        lost.flat[np.flatnonzero(at_will)[drawn[at_will].argsort(kind="stable")[:wanted]]] = True
    else:
        lost = at_risk & (drawn < rate)
        lost[spared, rows] &= (had & ~lost).any(axis=0)
    return split | {"present": dict(zip(names, had & ~lost))}


def shares(split: Batch) -> tuple[float, float]:
    """The share of the modalities that the examples of a split lack, and of examples with more than one."""
    present = np.stack(list(split["present"].values()))
    return float(1 - present.mean()), float((present.sum(axis=0) > 1).mean())
