r"""VGGSound: 309 classes of ten-second clips, as UMT (arXiv 2305.01233) trains on it.

Ten seconds of sound at 16 kHz as a spectrogram of magnitudes [513, 313] (windows of 64 ms every
32), encoded by ResNet-18; 32 frames stored at 256 x 256, crops of 224, encoded by ResNet3D-18.
Training is the paper's (table 11): Adam, learning rate 1e-3, a tenth
of it after ten of 20 epochs, batches of 24; weight decay is not given. OGM-GE has the strength 0.1
that it was published with on this data.

    python -m launch.prepare --dataset=vggsound --source=DIR --output=data \
        --audio_rate=16000 --short_side=256 --fps=3.2 --allow_skipped=0.2
    python -m launch.train --config=configs/vggsound.py:umt
    python -m launch.compare --config=configs/vggsound.py --methods=concat,umt,ume --seeds=3

`vggsound.py:umt,smoke` is a size for smoke tests. The streams of SAMM are in seq_vggsound.py,
dom_vggsound.py and gcil_vggsound.py.

Published accuracy in percent, fused (tables 5 and 3) and of linear probes of the encoders (table
1); `linear` is `concat` here:

    method          audio  visual   fused
    linear           43.4    15.6    49.5
    mlp              40.0    14.5    44.8
    attention        44.0    13.3    49.8
    g_blending       43.9    17.7    50.4
    ogm_ge           42.0    15.6    50.6
    unimodal         45.1    23.2
    frozen_linear                    51.0
    ume                              46.1
    aux_ce                           49.9
    umt                              53.5
"""
from jaxmm.experiments.presets import IMAGENET, make_config, shrink
from jaxmm.config import (Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig,
                          SpectrogramConfig)


def get_config(argument: str = "umt") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="vggsound", path="data/vggsound", preprocess={
        "audio": SpectrogramConfig(rate=16000, seconds=10.0, n_fft=1024, hop=512, log=False),
        "visual": FramesConfig(frames=32, height=256, width=256, size=224, **IMAGENET)})
    config.encoders["audio"] = EncoderConfig(name="resnet18", stem="standard")
    config.encoders["visual"] = EncoderConfig(name="resnet3d18")
    config.optimizer = OptimizerConfig(name="adam", learning_rate=1e-3, schedule="step",
                                       decay_epochs=10, decay_rate=0.1)
    config.train.epochs, config.train.batch_size = 20, 24
    if config.method.name == "ogm_ge":
        config.method.alpha = 0.1
    return shrink(config) if smoke else config
