r"""CMU-MOSEI: sentiment, from -3 to 3, of people who review films, from published features.

Vectors over time for sound, face and words (one .npz archive with the arrays of the published
one), three dense layers of 128 units for each, the training of MLA (arXiv 2311.10707), whose
tables do not have this data set: there is no published value to compare with. The sentiment is a number
to predict; `mla` and `samm` fuse by the plain mean, as fusion by certainty needs classes.

    python -m launch.prepare --dataset=mosei --source=DIR --output=data
    python -m launch.train --config=configs/mosei.py:mla
    python -m launch.compare --config=configs/mosei.py \
        --methods=concat,late,mla+dynamic_fusion=false --seeds=3

Its sign as class, negative or positive, without neutral clips:

    python -m launch.prepare --dataset=mosei --variant=binary --source=DIR --output=data
    python -m launch.train --config=configs/mosei.py:mla --config.data.path=data/mosei_binary \
        --config.task.sentiment=false --config.method.dynamic_fusion=true

`mosei.py:mla,smoke` is a size for smoke tests.
"""
from jaxmm.config import Config, DataConfig
from jaxmm.experiments.configs import load


def get_config(argument: str = "mla") -> Config:
    config = load(f"mosi:{argument}")
    config.data = DataConfig(name="mosei", path="data/mosei")
    return config
