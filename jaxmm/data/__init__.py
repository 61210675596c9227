"""Data sets by name."""
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jaxmm.config import DataConfig
from jaxmm.data import arrays, av_digits, folds, missing, pipeline, rgbd_shapes, synthetic
from jaxmm.data.dataset import Dataset, check_dataset
from jaxmm.data.feeding import is_streamed, read_all
from jaxmm.errors import UserError, check_at_least, suggest

PREPARED = ("avmnist", "cremad", "food101", "iemocap", "kinetics400", "kinetics_sounds",
            "modelnet40", "mosei", "mosi", "mvsa", "nyuv2", "table", "ucf101", "vggsound")      # or any, as "prepared"
DATASETS = {"arrays": arrays.load, "av_digits": av_digits.load, av_digits.WITH_TEXT: av_digits.load,
            **dict.fromkeys(("prepared", *PREPARED), pipeline.load), "rgbd_shapes": rgbd_shapes.load,
            "synthetic": synthetic.load}


def load(config: DataConfig, vocabularies: Mapping[str, Sequence[str]] | None = None) -> Dataset:
    """The data set called `config.name`, checked, with modalities masked as `config` says.

    Splits that are not streamed are read into memory. `vocabularies` are those of the text modalities,
    as a run has kept them; None: as the config says.
    """
    _check(config)
    known = {"vocabularies": vocabularies} if DATASETS[config.name] is pipeline.load else {}
    return finish(DATASETS[config.name](config, **known), config)


def load_folds(config: DataConfig) -> Callable[[int], Dataset]:
    """`load` of any of the folds by its number, of data whose files are read once, here, for all of them."""
    _check(config)
    make = (arrays if DATASETS[config.name] is arrays.load else pipeline).reader(config)

    def load_fold(fold: int) -> Dataset:
        own = dataclasses.replace(config, fold=fold)
        return finish(make(own), own)

    return load_fold


def finish(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set, checked, with splits that are not streamed in memory, and masked as `config` says."""
    dataset = check_dataset(dataset)
    splits = {name: split if is_streamed(split, config.placement) else read_all(split)
              for name, split in dataset.splits.items()}
    return missing.mask(dataset._replace(splits=splits), config)


def _check(config: DataConfig) -> None:
    """Raises UserError for what no data set of this name has."""
    if config.name not in DATASETS:
        raise UserError(f"data.name={config.name!r} is not a data set{suggest(config.name, DATASETS)}")
    if config.kind and config.name != "synthetic":
        raise UserError(f"data.kind={config.kind!r} is for the data set synthetic; leave it out for "
                        f"{config.name}")
    if config.audio_rate != av_digits.SAMPLE_RATE and DATASETS[config.name] is not av_digits.load:
        raise UserError(f"data.audio_rate={config.audio_rate} is for av_digits and avt_digits; leave it out for "
                        f"{config.name}, whose rates are those of data.preprocess")
    if config.audio_rate not in av_digits.RATES:
        raise UserError(f"data.audio_rate={config.audio_rate}; expected one of "
                        f"{', '.join(map(str, av_digits.RATES))}")
    own = {rgbd_shapes.load: rgbd_shapes.TARGET}.get(DATASETS[config.name], "")
    if config.target not in ("", own) and DATASETS[config.name] not in (arrays.load, pipeline.load):
        raise UserError(f"data.target={config.target!r}: {config.name} has " + (
            f"the class maps {own!r}; leave it out" if own else
            "no class maps; it is for your own arrays, or prepared ones"))
    check_at_least("data.seed", config.seed, 0)
    folds.check(config)
    if config.folds and DATASETS[config.name] not in (arrays.load, pipeline.load):
        raise UserError(f"data.folds={config.folds}: {config.name} has a test split; folds are for your own "
                        "arrays, or a table, without one")
