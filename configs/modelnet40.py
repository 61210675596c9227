r"""ModelNet40: shapes of 40 classes seen from the front and from the rear, after UMT.

arXiv 2305.01233. Two of twelve rendered views of 9843 shapes, 224 x 224 as rendered, mirrored at random
each by itself, a ResNet-18 from scratch for each; a fifth of train is validation. Trained as Wu et al.
(2022) do: plain SGD, rate 0.1, batches of 8. They reduce the rate on a plateau (times 0.3) in at most
299 epochs and report the best epoch on validation; here it falls as a cosine in 50 epochs, and the last
epoch is reported. The exchanges of `mmtm`, `mmtm_random`, `mmtm_guided` and `rubi` stand behind the last
three stages, as theirs do.

    python -m launch.prepare --dataset=modelnet40 --source=DIR --output=data
    python -m launch.train --config=configs/modelnet40.py:ume
    python -m launch.compare --config=configs/modelnet40.py --seeds=3 \
        --methods=mmtm,rubi,mmtm_random,mmtm_guided,ume
    python -m launch.evaluate --workdir=runs/modelnet40_mmtm --utilization

`modelnet40.py:ume,smoke` is a size for smoke tests.

Published accuracy in percent, fused (tables 10 and 3); each view alone is about 89. Wu et al. call
`mmtm` vanilla, `mmtm_random` random and `mmtm_guided` guided, and released no code of `rubi`:

    method          fused
    mmtm            90.09 ± 0.58
    rubi            90.45 ± 0.58
    mmtm_random     91.36 ± 0.10
    mmtm_guided     91.37 ± 0.28
    ume             91.92 ± 0.14
    frozen_linear   91.7
"""
from jaxmm.experiments.presets import IMAGENET, make_config, shrink
from jaxmm.config import Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig


def get_config(argument: str = "ume") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="modelnet40", path="data/modelnet40", preprocess={
        m: FramesConfig(height=224, width=224, size=224, min_area=0.0, **IMAGENET)
        for m in ("front", "rear")})
    for m in ("front", "rear"):
        config.encoders[m] = EncoderConfig(name="resnet18", stem="standard")
    if hasattr(config.method, "stages"):
        config.method.stages = 0 if smoke else 3
    config.data.val_fraction = 0.2
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.0,
                                       schedule="cosine")
    config.train.epochs, config.train.batch_size = 50, 8
    return shrink(config) if smoke else config
