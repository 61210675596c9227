r"""AV-MNIST: written digits, each with a recording of somebody who says it.

One second of sound at 8 kHz as a log-mel spectrogram [65, 40], the image [28, 28]; two small
convolutional networks. The tables of the papers do not have this data set. Both parts come
through TFDS, once, with network:

    python -m launch.prepare --dataset=avmnist --source=DIR --output=data
    python -m launch.train --config=configs/avmnist.py:mla
    python -m launch.compare --config=configs/avmnist.py --methods=unimodal,concat,mla --seeds=3

`avmnist.py:mla,smoke` is a size for smoke tests.
"""
from jaxmm.experiments.presets import make_config, shrink
from jaxmm.config import (Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig,
                          SpectrogramConfig)


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="avmnist", path="data/avmnist", preprocess={
        "audio": SpectrogramConfig(rate=8000, seconds=1.0, fill="zeros", n_fft=256, hop=125,
                                   mels=40),
        "visual": FramesConfig(height=28, width=28, size=28, min_area=0.7, flip=False)})
    for m in ("audio", "visual"):
        config.encoders[m] = EncoderConfig(name="cnn")
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.05, schedule="cosine")
    config.train.epochs = 20
    return shrink(config) if smoke else config
