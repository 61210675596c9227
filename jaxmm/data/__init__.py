"""Data sets by name."""
from collections.abc import Mapping, Sequence

from jaxmm.config import DataConfig
from jaxmm.data import arrays, av_digits, folds, missing, pipeline, synthetic
from jaxmm.data.dataset import Dataset, check_dataset
from jaxmm.data.feeding import is_streamed, read_all
from jaxmm.errors import UserError, check_at_least, suggest

PREPARED = ("avmnist", "cremad", "food101", "iemocap", "kinetics400", "kinetics_sounds",
            "modelnet40", "mosei", "mosi", "mvsa", "table", "ucf101", "vggsound")      # or any, as "prepared"
DATASETS = {"arrays": arrays.load, "av_digits": av_digits.load,
            **dict.fromkeys(("prepared", *PREPARED), pipeline.load), "synthetic": synthetic.load}


def load(config: DataConfig, vocabularies: Mapping[str, Sequence[str]] | None = None) -> Dataset:
    """The data set called `config.name`, checked, with modalities masked as `config` says.

    Splits that are not streamed are read into memory. `vocabularies` are the tokens by id of the text
    modalities, as a run has kept them; None: as the config says.
    """
    if config.name not in DATASETS:
        raise UserError(f"data.name={config.name!r} is not a data set{suggest(config.name, DATASETS)}")
    if config.kind and config.name != "synthetic":
        raise UserError(f"data.kind={config.kind!r} is for the data set synthetic; leave it out for "
                        f"{config.name}")
    check_at_least("data.seed", config.seed, 0)
    folds.check(config)
    if config.folds and DATASETS[config.name] not in (arrays.load, pipeline.load):
        raise UserError(f"data.folds={config.folds}: {config.name} has a test split; folds are for your own "
                        "arrays, or a table, without one")
    known = {"vocabularies": vocabularies} if DATASETS[config.name] is pipeline.load else {}
    dataset = check_dataset(DATASETS[config.name](config, **known))
    splits = {name: split if is_streamed(split, config.placement) else read_all(split)
              for name, split in dataset.splits.items()}
    return missing.mask(dataset._replace(splits=splits), config)
