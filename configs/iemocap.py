r"""IEMOCAP: four emotions heard, seen and read, after MLA (arXiv 2311.10707, table 1).

The paper's encoders are pre-trained: the audio branch of CAV-MAE, and M3AE-base for frames and
text. They are not in this package: here a ResNet-18 hears the log-mel filterbank [1024, 128],
another one sees the middle frame, and a transformer reads the transcript, all from scratch. So
the published figures are not to be expected; Adam with 1e-3 is where to start.

    python -m launch.prepare --dataset=iemocap --source=DIR --output=data \
        --audio_rate=16000 --short_side=256
    python -m launch.train --config=configs/iemocap.py:mla
    python -m launch.compare --config=configs/iemocap.py --methods=concat,late,mla --seeds=3

`iemocap.py:mla,smoke` is a size for smoke tests; iemocap_features.py is for precomputed features.

Published accuracy on test data in percent:

    method            audio         visual           text          fused
    sum        39.79 ± 1.08   29.44 ± 0.97   65.16 ± 0.88   74.18 ± 1.03
    concat     41.93 ± 0.89   30.00 ± 0.88   67.84 ± 0.97   75.91 ± 0.92
    late       43.12 ± 0.97   32.38 ± 0.92   68.79 ± 1.07   74.96 ± 0.97
    film       41.64 ± 1.06   29.85 ± 1.06   66.37 ± 0.95   74.32 ± 1.12
    gated      42.23 ± 0.88   27.45 ± 1.08   65.16 ± 1.08   73.34 ± 1.05
    ogm_ge     41.38 ± 1.13   30.24 ± 1.02   70.79 ± 1.03   76.17 ± 1.01
    qmf        42.98 ± 0.95   31.22 ± 1.07   75.03 ± 0.79   76.17 ± 0.95
    mla        46.29 ± 1.02   37.63 ± 0.78   73.22 ± 1.09   78.92 ± 1.07
"""
from jaxmm.experiments.presets import IMAGENET, log_mel, make_config, shrink
from jaxmm.config import (Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig,
                          TextConfig)


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="iemocap", path="data/iemocap", preprocess={
        "audio": log_mel(),
        "text": TextConfig(length=256),
        "visual": FramesConfig(height=256, width=256, fit="crop", size=224, **IMAGENET)})
    for m in ("audio", "visual"):
        config.encoders[m] = EncoderConfig(name="resnet18", stem="standard")
    config.encoders["text"] = EncoderConfig(name="transformer", width=256, depth=4, features=512)
    config.optimizer = OptimizerConfig(name="adam", learning_rate=1e-3, schedule="cosine")
    config.train.epochs = 30
    return shrink(config) if smoke else config
