"""Modalities taken away from examples, once and for the whole run."""
import numpy as np

from jaxmm.batch import Batch
from jaxmm.config import DataConfig
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError, check_choice


def mask(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with modalities missing at random, as `data.missing_rate` asks.

    Every modality of every example of every split is dropped with that probability (MLA, arXiv
    2311.10707, section 4.2); with `data.missing_modality` that modality alone, and in training
    alone (its figure 2). The masks are drawn by `data.seed`, come on top of what an example lacks
    already, and leave each example one modality at least.

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
    for number, split in enumerate(["train"] if only else sorted(splits)):
        rng = np.random.default_rng([config.seed, number])
        splits[split] = drop(splits[split], [only] if only else dataset.modalities, rate, rng)
    return dataset._replace(splits=splits)


def drop(split: Batch, modalities, rate: float, rng: np.random.Generator) -> Batch:
    """The split with each of the modalities dropped with probability `rate` in each example.

    An example that would have nothing left keeps one of those it had, each as likely.
    """
    names = sorted(split["present"])
    had = np.stack([split["present"][m] for m in names])
    at_risk = np.isin(names, modalities)[:, None]
    kept = had & ~(at_risk & (rng.random(had.shape) < rate))
    spared = np.where(had, rng.random(had.shape), -1).argmax(axis=0)
    empty = np.flatnonzero(~kept.any(axis=0))
    kept[spared[empty], empty] = had[spared[empty], empty]
    return split | {"present": dict(zip(names, kept))}
