r"""Kinetics-400: 400 human actions in clips of ten seconds, after UMT (arXiv 2305.01233).

The paper names SlowFast 8x8, which sees 64 consecutive frames (of 30 a second), and the sound of the
same two seconds; its accuracy of the images alone (74.1) is that of the slow pathway of PySlowFast
(74.8), not of both (77.0). So here `slow50` sees every eighth of the 64 frames: 3.75 frames a second
are stored, 37 of a clip are read, and eight consecutive ones are drawn, with the log-mel filterbank
[256, 128] of the sound at the same moment, which ResNet-18 encodes. For both pathways store 15 frames
a second, and set encoders.visual.name=slowfast50, data.preprocess.visual.frames=150 and
data.preprocess.visual.crop_frames=32.

Training is PySlowFast's, as in the paper (table 11): SGD with Nesterov momentum, learning rate 0.1,
a cosine over 196 epochs, batches of 64. There the warm-up of 34 epochs is a line from 0.01 to the
cosine; here it is a factor on it. Evaluation averages over ten clips and three crops of each video,
which are 224 pixels here and 256 there. Nobody has trained this config to its end yet.

    python -m launch.prepare --dataset=kinetics400 --source=DIR --output=data \
        --audio_rate=16000 --short_side=256 --fps=3.75 --allow_skipped=0.2
    python -m launch.train --config=configs/kinetics400.py:umt
    python -m launch.compare --config=configs/kinetics400.py --methods=concat,umt,ume --seeds=3

`kinetics400.py:umt,smoke` is a size for smoke tests.

Published accuracy in percent, fused (tables 5 and 3) and of linear probes of the encoders (table
7); `linear` is `concat` here:

    method          audio  visual   fused
    unimodal         23.5    74.1
    linear           18.3    72.9    74.3
    umt              21.6    74.6    76.8
    frozen_linear                    76.4
    ume                              74.8
    mlp                              74.8
    attention                        74.1
    aux_ce                           73.2
    g_blending                       75.8
    ogm_ge                           74.5
"""
from jaxmm.experiments.presets import log_mel, make_config, shrink
from jaxmm.config import Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig


def get_config(argument: str = "umt") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="kinetics400", path="data/kinetics400", preprocess={
        "audio": log_mel(seconds=10.0, crop_seconds=64 / 30, columns=256),
        "visual": FramesConfig(frames=37, crop_frames=8, height=256, width=340, size=224,
                               mean=(0.45,), std=(0.225,))})
    config.encoders["audio"] = EncoderConfig(name="resnet18", stem="standard")
    config.encoders["visual"] = EncoderConfig(name="slow50")
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.1, nesterov=True, decay_vectors=False,
                                       schedule="cosine", warmup_epochs=34.0)
    config.train.epochs, config.train.eval_epochs = 196, 14     # of 30 views each
    config.data.clips, config.data.crops = 10, 3
    return shrink(config) if smoke else config
