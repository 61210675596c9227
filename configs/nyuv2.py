r"""NYU Depth v2: the class of every pixel of rooms, from colour and depth, after ESANet and UMT.

ESANet, arXiv 2011.06961; UMT, arXiv 2305.01233, table 19. 795 rooms to train on, of which a tenth is
validation, and 654 to test, 480 x 640, 40 classes, void pixels left out. Trained as ESANet is: SGD with
Nesterov's momentum, weight decay 1e-4 on everything, batches of 8, 500 epochs of one cycle up to 0.01,
classes weighted by their median frequency; colour, depth and label are enlarged by up to 1.4, cut and
mirrored together, and colours vary.

    python -m launch.prepare --dataset=nyuv2 --source=DIR --output=data
    python -m launch.train --config=configs/nyuv2.py:segment
    python -m launch.train --config=configs/nyuv2.py:umt_segment
    python -m launch.train --config=configs/nyuv2.py:segment --config.method.modalities=depth

Depth has its holes filled. With the raw one, in which they are 0: `--variant=depth_raw`, and
`--config.data.path=data/nyuv2_depth_raw --config.data.preprocess.depth.holes=true`. Encoders start from
files of released weights by `--config.encoders.rgb.weights=FILE`, as of depth. `nyuv2.py:segment,smoke` is
a size for smoke tests.

Published mean IoU in percent, over the classes that occur in the test labels. ESANet reports the best
epoch on test, with encoders trained on ImageNet; UMT does not say which epoch, nor which encoder. Here
the last epoch is tested:

    method         from scratch   ImageNet
    ESANet                        50.30
    segment (UMT)  38.59          48.48
    umt_segment    40.45          49.39
"""
from jaxmm.config import Config, DataConfig, EncoderConfig, MapConfig, OptimizerConfig, PictureConfig
from jaxmm.experiments.presets import IMAGENET, make_config, shrink

METHODS = ("segment", "umt_segment")        # that a comparison makes by default


def get_config(argument: str = "segment") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="nyuv2", path="data/nyuv2", target="segments", zoom=1.4, preprocess={
        "rgb": PictureConfig(height=480, width=640, jitter=True, **IMAGENET),
        "depth": MapConfig(height=480, width=640, mean=(2841.949,), std=(1417.259,)),
        "segments": MapConfig(height=480, width=640)})
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.01, momentum=0.9, nesterov=True,
                                       weight_decay=1e-4, schedule="one_cycle")
    config.train.epochs, config.train.batch_size = 500, 8
    config.train.class_weights = "median_frequency"
    if hasattr(config.method, "main"):
        config.method.main = "rgb"
    config = shrink(config) if smoke else config
    for m in ("rgb", "depth"):
        config.encoders[m] = EncoderConfig(name="esanet18", width=4) if smoke else EncoderConfig(name="esanet34")
    return config
