r"""Kinetics-400 by AVSlowFast (Xiao et al., arXiv 2001.08740), the intermediate fusion that UMT compares with.

Both pathways of SlowFast see 64 consecutive frames of 30 a second, the fast one every second of them, so 15
frames a second are stored. An audio pathway hears the same two seconds, as the logarithm of 80 mel bands, and is
added to the slow pathway behind its third and fourth stage, in training in one of five steps (DropPathway). The
loss for synchronisation is off; --config.method.sync_weight=1 adds it, as in the released settings. Training is
SlowFast's with batches of 32: SGD with Nesterov momentum, a cosine over 196 epochs from 0.1, dropout 0.5 before
the head; the released settings scale the learning rate with the batch, so here it is 0.05. Evaluation averages
over ten clips and three crops.

    python -m launch.prepare --dataset=kinetics400 --source=DIR --output=data/15fps \
        --audio_rate=16000 --short_side=256 --fps=15 --allow_skipped=0.2
    python -m launch.train --config=configs/kinetics400_avslowfast.py

Published accuracy (UMT, arXiv 2305.01233, table 6): 77.0% with 50 layers, 78.8% with 101, copied there from
AVSlowFast, and 78.1% and 79.4% of UMT beside them. Nobody has trained this config to its end yet.
`kinetics400_avslowfast.py:dropout,smoke` is a size for smoke tests, in which nothing is added.
"""
from jaxmm.experiments.presets import log_mel, make_config, shrink
from jaxmm.config import Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig

METHODS = ("dropout",)


def get_config(argument: str = "dropout") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="kinetics400", path="data/15fps/kinetics400", clips=10, crops=3, preprocess={
        "audio": log_mel(seconds=10.0, crop_seconds=64 / 30, window=512, hop=256, preemphasis=0.0, mels=80,
                         columns=128),
        "visual": FramesConfig(frames=150, crop_frames=32, height=256, width=340, size=224,
                               mean=(0.45,), std=(0.225,))})
    config.encoders["audio"] = EncoderConfig(name="separable50")
    config.encoders["visual"] = EncoderConfig(name="avslowfast50")
    if config.method.name == "dropout" and not smoke:
        config.method.main = "visual"
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.05, nesterov=True, decay_vectors=False,
                                       schedule="cosine", warmup_epochs=34.0)
    config.train.epochs, config.train.batch_size, config.train.eval_epochs = 196, 32, 14
    return shrink(config) if smoke else config
