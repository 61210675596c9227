"""Data sets by name."""
from jaxmm.config import DataConfig
from jaxmm.data import arrays, av_digits, missing, synthetic
from jaxmm.data.dataset import Dataset, check_dataset
from jaxmm.errors import UserError

DATASETS = {"arrays": arrays.load, "av_digits": av_digits.load,
            "synthetic": synthetic.load}


def load(config: DataConfig) -> Dataset:
    """The data set that `config.name` names, checked, its modalities masked as `config` says."""
    if config.name not in DATASETS:
        raise UserError(f"data.name={config.name!r} is no data set; "
                        f"expected one of {', '.join(DATASETS)}")
    return missing.mask(check_dataset(DATASETS[config.name](config)), config)

