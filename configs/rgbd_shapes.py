r"""rgbd_shapes: the class of every pixel, from colour and depth; see jaxmm/data/rgbd_shapes.py.

A made set, small enough for CPUs, in which each modality alone cannot know some of the classes. The
network is ESANet (arXiv 2011.06961) with narrow encoders; the papers do not have this data set.

    python -m launch.train --config=configs/rgbd_shapes.py:segment
    python -m launch.compare --config=configs/rgbd_shapes.py --seeds=3 \
        --methods=segment+modalities=rgb,segment+modalities=depth,segment,umt_segment

Expected mean IoU on the test split, three seeds: colour alone 39.3 ± 0.3, depth alone 37.2 ± 0.7, both 76.9 ± 0.2,
`umt_segment` 76.4 ± 0.3.
"""
from jaxmm.config import Config, DataConfig, EncoderConfig, MapConfig, OptimizerConfig, PictureConfig, TrainConfig
from jaxmm.methods import method_config

METHODS = ("segment", "umt_segment")        # that a comparison makes by default


def get_config(method: str = "segment") -> Config:
    config = Config(
        data=DataConfig(name="rgbd_shapes", zoom=1.4, preprocess={
            "rgb": PictureConfig(height=64, width=64, jitter=True), "depth": MapConfig(height=64, width=64)}),
        method=method_config(method),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4,
                                  schedule="one_cycle"),
        train=TrainConfig(epochs=60, batch_size=8, eval_epochs=5, class_weights="median_frequency"))
    for m in "rgb", "depth":
        config.encoders[m] = EncoderConfig(name="esanet18", width=16)
    if hasattr(config.method, "main"):
        config.method.main, config.method.decoder_blocks = "rgb", 1
    return config
