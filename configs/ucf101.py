r"""UCF101: 101 actions from one colour image and stacked optical flow, after UMT.

arXiv 2305.01233. One image of a clip, and ten frames of flow, horizontal and vertical, as an
image [224, 224, 20]; a ResNet-18 from scratch for each. Training is the paper's (table 11), SGD,
learning rate 1e-2, batches of 64, 20 epochs; the rate is reduced on a plateau (patience 1), here to
a tenth when validation accuracy has not risen for two epochs. What the paper looks at, the factor,
momentum and weight decay are not given.

    python -m launch.prepare --dataset=ucf101 --source=DIR --output=data --short_side=256
    python -m launch.train --config=configs/ucf101.py:ume
    python -m launch.compare --config=configs/ucf101.py --methods=concat,mlp_head,ume,umt --seeds=3

--variant=split2 and split3 prepare the other published splits, as data/ucf101_split2 and so on.
`ucf101.py:ume,smoke` is a size for smoke tests.

Published accuracy in percent (split 1), fused (tables 9 and 3) and of linear probes of the
encoders (table 1); `linear` is `concat` here, `mlp` and `attention` are `mlp_head` and
`attention_head`:

    method           flow  visual   fused
    linear           48.1    75.7    82.3
    mlp              51.9    75.7    80.0
    attention         7.7    74.8    74.2
    g_blending       44.5    74.9    83.0
    ogm_ge           65.0    73.5    84.0
    unimodal         75.0    77.1
    frozen_linear                    84.4
    ume                              86.8
    aux_ce                           81.3
"""
from jaxmm.experiments.presets import IMAGENET, make_config, shrink
from jaxmm.config import (Config, DataConfig, EncoderConfig, FlowConfig, FramesConfig,
                          OptimizerConfig)


def get_config(argument: str = "ume") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="ucf101", path="data/ucf101", preprocess={
        "flow": FlowConfig(frames=10, sampling="consecutive", height=256, width=340, size=224,
                           mean=(0.5,), std=(0.25,)),
        "visual": FramesConfig(height=256, width=340, size=224, **IMAGENET)})
    for m in ("flow", "visual"):
        config.encoders[m] = EncoderConfig(name="resnet18", stem="standard")
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.01, schedule="plateau")
    config.train.epochs = 20
    return shrink(config) if smoke else config
