r"""ModelNet40: shapes of 40 classes seen from the front and from the rear, after UMT.

arXiv 2305.01233. Two of twelve rendered views, 224 x 224, a ResNet-18 from scratch for each.
The paper trains as Wu et al. (2022) do (table 11): batches of 8, at most 299 epochs, the rate reduced
on a plateau, which this package does not do; optimizer, epochs and batch here are where to start.

    python -m launch.prepare --dataset=modelnet40 --source=DIR --output=data
    python -m launch.train --config=configs/modelnet40.py:ume
    python -m launch.compare --config=configs/modelnet40.py --methods=concat,ume,umt --seeds=3

`modelnet40.py:ume,smoke` is a size for smoke tests.

Published accuracy in percent, fused (tables 10 and 3); `vanilla` is `concat` here, and `rubi`,
`random` and `guided` are not in this package:

    method          fused
    frozen_linear    91.7
    ume              91.9
    vanilla          90.1
    rubi             90.5
    random           91.4
    guided           91.4
"""
from jaxmm.experiments.presets import IMAGENET, make_config, shrink
from jaxmm.config import Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig


def get_config(argument: str = "ume") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="modelnet40", path="data/modelnet40", preprocess={
        m: FramesConfig(height=224, width=224, size=224, min_area=0.5, **IMAGENET)
        for m in ("front", "rear")})
    for m in ("front", "rear"):
        config.encoders[m] = EncoderConfig(name="resnet18", stem="standard")
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.01, schedule="cosine")
    config.train.epochs = 50
    return shrink(config) if smoke else config
