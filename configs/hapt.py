r"""HAPT: twelve activities from a smartphone at the waist, with modalities missing.

Three modalities of the same windows of 2.56 s, 90 features each: gravity (acceleration below 0.3 Hz), body
(acceleration above it) and gyro; the official split by person, with some persons of training for validation
(UCI "Smartphone-Based Recognition of Human Activities and Postural Transitions", Reyes-Ortiz et al. 2016). Each
alone is weak, and all are needed. The file is yours: {split}/{gravity,body,gyro} [N, 90] and {split}/label, as
configs/arrays.py says. Networks are those of configs/iemocap_features.py: three dense layers of 128, Adam.

    python -m launch.compare --config=configs/hapt.py --config.data.path=FILE.npz --seeds=3 \
        --missing_rates=0,0.3,0.5,0.7
    python -m launch.compare --config=configs/hapt.py --config.data.path=FILE.npz --seeds=3 \
        --missing_rates=0,0.3,0.5,0.7 --config.data.missing_scheme=exact
    python -m launch.compare --config=configs/hapt.py --config.data.path=FILE.npz --methods=mla \
        --missing_modality=gyro --missing_rates=0,0.3,0.6,0.9
    python -m launch.train --config=configs/hapt.py:mla --config.data.path=FILE.npz \
        --config.data.missing_rate=0.5

The papers do not have this data set. Test accuracy of logistic regression on mean-filled features
(benchmarks/missing.py), independent masks of seed 0: 94.6% at rate 0, 88.0% at 0.3, 83.0% at 0.5, 79.6% at 0.7.
`hapt.py:mla,smoke` is a size for smoke tests.
"""
from jaxmm.experiments.presets import make_config, on_features, shrink
from jaxmm.config import Config, DataConfig

METHODS = ("late", "concat", "qmf", "mla")


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="arrays")
    config.train.epochs, config.optimizer.decay_epochs = 40, 28
    config = on_features(config, ("body", "gravity", "gyro"))
    return shrink(config) if smoke else config
