"""av_digits: handwritten digits paired with spoken ones, made to be hard for each modality alone.

Methods of arXiv 2311.10707, table 1, on data that ships with the package. Expected accuracy: see
the table in the README.

    python -m launch.train --config=configs/av_digits.py:mla
    python -m launch.compare --config=configs/av_digits.py --methods=unimodal,concat,mla --seeds=3
"""
from jaxmm.config import (AugmentConfig, Config, DataConfig, EncoderConfig, OptimizerConfig,
                          TrainConfig)
from jaxmm.methods import method_config


def get_config(method: str = "mla") -> Config:
    config = Config(
        data=DataConfig(name="av_digits"),
        method=method_config(method),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-4,
                                  schedule="cosine"),
        train=TrainConfig(epochs=20, batch_size=64),
    )
    config.encoders["audio"] = EncoderConfig(name="cnn")
    config.encoders["visual"] = EncoderConfig(name="cnn")
    config.augment["audio"] = AugmentConfig(time_mask=4, frequency_mask=4)
    config.augment["visual"] = AugmentConfig(noise=0.3)
    return config
