r"""VGGSound as a stream: ten tasks of ten classes each (class-incremental), for SAMM.

The protocol "Seq" of arXiv 2405.02766: 100 classes with about 500 training and 50 test clips each,
five seconds of sound as a log spectrogram [129, 626] and four frames [224, 224, 3], a ResNet-18
each, plain SGD, 50 epochs a task. The learning rate was not published: 0.05 is where to start
from, not the paper's.

    python -m launch.prepare --dataset=vggsound --variant=mmcl --source=DIR --output=data \
        --audio_rate=16000 --short_side=256 --allow_skipped=0.2
    python -m launch.train --config=configs/seq_vggsound.py:samm
    python -m launch.compare --config=configs/seq_vggsound.py --seeds=3 \
        --methods=joint,joint:audio,joint:visual,sgd,er,er:audio,er:visual,samm \
        --capacities=500,1000,2000

Published mean accuracy over the tasks after the last one, in percent (main table):

    buffer  method          audio        visual         fused
            joint    53.47 ± 1.62  34.52 ± 0.28  58.21 ± 0.24
            sgd       7.60 ± 0.33   6.37 ± 0.33   8.24 ± 0.09
       500  er       13.92 ± 1.07   9.07 ± 0.39  21.44 ± 1.76
            samm     23.61 ± 1.06   8.90 ± 0.35  26.34 ± 0.42
      1000  er       18.06 ± 0.44  11.23 ± 0.57  28.09 ± 0.77
            samm     28.59 ± 0.77  10.08 ± 0.34  34.51 ± 2.37
      2000  er       23.41 ± 0.50  14.19 ± 0.32  34.02 ± 0.40
            samm     32.20 ± 0.28  11.60 ± 0.43  37.76 ± 2.94
"""
from jaxmm.experiments.presets import IMAGENET, RAW, make_config, shrink
from jaxmm.config import (Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig,
                          SpectrogramConfig, StreamConfig, TrainConfig)


def get_config(argument: str = "samm") -> Config:
    config, smoke = make_config(argument)
    config = Config(
        data=DataConfig(name="vggsound", path="data/vggsound_mmcl", preprocess={
            "audio": SpectrogramConfig(rate=16000, seconds=10.0, crop_seconds=5.0, n_fft=256,
                                       hop=128, **RAW),
            "visual": FramesConfig(frames=4, height=256, width=340, size=224, **IMAGENET)}),
        stream=StreamConfig(kind="class", num_tasks=10),
        method=config.method,
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.05, momentum=0.0, weight_decay=0.0,
                                  schedule="constant"),
        train=TrainConfig(epochs=50, batch_size=32),
    )
    for modality in ("audio", "visual"):
        config.encoders[modality] = EncoderConfig(name="resnet18", stem="standard")
    return shrink(config) if smoke else config
