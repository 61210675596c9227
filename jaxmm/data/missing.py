"""Drops modalities from examples, once for the whole run."""
import numpy as np

from jaxmm.batch import Batch
from jaxmm.config import DataConfig
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError, check_choice
from jaxmm.keys import named_rng


def mask(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with modalities missing at random, as `data.missing_rate` asks.

    Every modality of every example of every split is dropped with that probability (MLA, arXiv
    2311.10707, section 4.2). With `data.missing_modality` only that modality is dropped, and only in
    training (its figure 2). The masks are drawn by `data.seed`, add to what an example lacks already,
    and leave each example at least one modality. They do not depend on the method: a run with some of
    the modalities is trained and scored on the examples that have one of these.

    Raises:
      UserError: the rate is not in [0, 1), or there is no such modality.
    """
    rate, only = config.missing_rate, config.missing_modality
    if not 0 <= rate < 1:
        raise UserError(f"data.missing_rate={rate}; expected a probability in [0, 1)")
    if only:
        check_choice("data.missing_modality", only, dataset.modalities)
    if rate == 0:
        return dataset
    splits = dict(dataset.splits)
    for split in ["train"] if only else splits:
        splits[split] = drop(splits[split], [only] if only else dataset.modalities, rate,
                             config.seed, split)
    return dataset._replace(splits=splits)


def drop(split: Batch, modalities, rate: float, seed: int, name: str) -> Batch:
    """The split with each of the modalities dropped with probability `rate` in each example.

    The draws depend on the seed and the names of split and modality. An example that would have nothing
    left keeps one of its modalities, drawn with equal probability.
    """
    names = sorted(split["present"])
    had = np.stack([split["present"][m] for m in names])
    at_risk = np.isin(names, modalities)[:, None]
    drawn, turn = np.stack([named_rng(seed, name, m).random((2, had.shape[1])) for m in names], axis=1)
    kept = had & ~(at_risk & (drawn < rate))
    spared = np.where(had, turn, -1).argmax(axis=0)
    empty = np.flatnonzero(~kept.any(axis=0))
    kept[spared[empty], empty] = had[spared[empty], empty]
    return split | {"present": dict(zip(names, kept))}
