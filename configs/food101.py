r"""UPMC Food-101: 101 dishes from a photograph and a title, after MLA (arXiv 2311.10707, table 1).

The paper's encoders are those of a pre-trained M3AE-base, which is not in this package: here a
transformer reads the text and a ResNet-18 the image, both from scratch. So the published figures
are not to be expected; texts need a learning rate of their own, and Adam with 1e-3 is where to
start. QMF weighs its ranking losses by 1, as on all images with text. WordPiece of up to 256
tokens. Name the vocabulary of BERT-uncased, one token a line, by
--config.data.preprocess.text.vocabulary=FILE; without it, one is made of the training texts.
Images are scaled to 256 pixels and cut to 224.

    python -m launch.prepare --dataset=food101 --source=DIR --output=data --short_side=256
    python -m launch.train --config=configs/food101.py:mla
    python -m launch.compare --config=configs/food101.py --methods=concat,late,mla --seeds=3

`food101.py:mla,smoke` is a size for smoke tests.

Published accuracy on test data in percent:

    method             text         visual          fused
    sum        85.63 ± 1.14    4.57 ± 0.88   86.19 ± 0.86
    concat     86.02 ± 1.05    3.51 ± 1.22   86.32 ± 1.18
    late       85.19 ± 1.21   58.46 ± 1.03   90.21 ± 1.02
    film       85.84 ± 0.92    4.68 ± 0.97   87.21 ± 1.05
    gated      85.79 ± 1.10   14.20 ± 1.18   88.87 ± 0.88
    ogm_ge     85.17 ± 1.09   22.35 ± 1.27   87.54 ± 1.03
    qmf        84.13 ± 1.27   45.74 ± 1.09   92.87 ± 1.01
    mla        86.47 ± 0.86   69.60 ± 0.89   93.33 ± 0.92
"""
from jaxmm.experiments.presets import IMAGENET, make_config, shrink
from jaxmm.config import (Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig,
                          TextConfig)


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="food101", path="data/food101", preprocess={
        "text": TextConfig(length=256),
        "visual": FramesConfig(height=256, width=256, fit="crop", size=224, min_area=0.0,
                               center=True, **IMAGENET)})
    config.encoders["text"] = EncoderConfig(name="transformer", width=256, depth=4, features=512)
    config.encoders["visual"] = EncoderConfig(name="resnet18", stem="standard")
    config.optimizer = OptimizerConfig(name="adam", learning_rate=1e-3, schedule="cosine")
    config.train.epochs = 30
    if config.method.name == "qmf":
        config.method.weight = 1.0
    return shrink(config) if smoke else config
