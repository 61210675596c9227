r"""Kinetics-Sounds: 31 actions that can be heard and seen, as MLA trains on them.

arXiv 2311.10707, table 1. Ten seconds of sound as a log-mel filterbank [1024, 128], standardised
by the mean and twice the standard deviation that the paper's code gives; three frames at equal
steps, random crops resized to 224 pixels; a ResNet-18 from scratch for each, and the paper's
training.

    python -m launch.prepare --dataset=kinetics_sounds --source=DIR --output=data \
        --audio_rate=16000 --short_side=256
    python -m launch.train --config=configs/kinetics_sounds.py:mla
    python -m launch.compare --config=configs/kinetics_sounds.py --methods=concat,late,mla --seeds=3

Where the sound is stored as filterbanks (audio/ID.npy), "audio" needs PreprocessConfig(mean=...,
std=...) in place of `log_mel` below. `kinetics_sounds.py:mla,smoke` is a size for smoke tests.

Published accuracy on test data in percent:

    method            audio         visual          fused
    sum        48.77 ± 0.95   24.53 ± 1.12   64.72 ± 0.97
    concat     49.18 ± 0.76   24.67 ± 1.07   64.84 ± 1.05
    late       47.87 ± 1.10   46.76 ± 0.85   65.53 ± 0.89
    film       48.67 ± 0.83   23.15 ± 0.98   63.33 ± 0.76
    gated      49.96 ± 1.21   23.77 ± 1.14   63.72 ± 1.13
    ogm_ge     48.87 ± 1.05   29.73 ± 1.06   65.74 ± 1.08
    qmf        51.57 ± 1.03   32.19 ± 0.92   65.78 ± 0.97
    mla        54.67 ± 0.92   51.03 ± 1.09   71.35 ± 1.22
"""
from jaxmm.experiments.presets import IMAGENET, log_mel, make_config, shrink
from jaxmm.config import Config, DataConfig, EncoderConfig, FramesConfig


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="kinetics_sounds", path="data/kinetics_sounds", preprocess={
        "audio": log_mel(mean=(-4.503877,), std=(10.282552,)),
        "visual": FramesConfig(frames=3, height=256, width=340, size=224, **IMAGENET)})
    for m in ("audio", "visual"):
        config.encoders[m] = EncoderConfig(name="resnet18", stem="standard")
    return shrink(config) if smoke else config
