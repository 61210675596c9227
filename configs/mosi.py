r"""CMU-MOSI: sentiment, from -3 to 3, of people who review films, from published features.

Vectors over time for sound, face and words (one .npz archive with the arrays of the published
one), three dense layers of 128 units for each, the training of MLA (arXiv 2311.10707), whose
tables do not have this data set: there is no published value to compare with. The sentiment is a number
to predict; `mla` and `samm` fuse by the plain mean, as fusion by certainty needs classes.

    python -m launch.prepare --dataset=mosi --source=DIR --output=data
    python -m launch.train --config=configs/mosi.py:mla
    python -m launch.compare --config=configs/mosi.py \
        --methods=concat,late,mla+dynamic_fusion=false --seeds=3

Its sign as class, negative or positive, without neutral clips:

    python -m launch.prepare --dataset=mosi --variant=binary --source=DIR --output=data
    python -m launch.train --config=configs/mosi.py:mla --config.data.path=data/mosi_binary \
        --config.task.sentiment=false --config.method.dynamic_fusion=true

`mosi.py:mla,smoke` is a size for smoke tests.
"""
from jaxmm.experiments.presets import make_config, shrink
from jaxmm.config import Config, DataConfig, EncoderConfig


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="mosi", path="data/mosi")
    config.task.sentiment = True
    for option in ("dynamic_fusion", "dynamic"):
        if hasattr(config.method, option):
            setattr(config.method, option, False)
    for m in ("audio", "text", "visual"):
        config.encoders[m] = EncoderConfig(name="mlp", width=128, depth=3)
    return shrink(config) if smoke else config
