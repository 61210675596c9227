r"""CREMA-D: six emotions, heard and seen, as MLA (arXiv 2311.10707, table 1) trains on it.

Sound at 22050 Hz, repeated up to 3 s, as a log spectrogram [257, 188]; three frames at equal
steps, random crops resized to 224 pixels; a ResNet-18 from scratch for each, and the paper's
training.

    python -m launch.prepare --dataset=cremad --source=DIR --output=data \
        --audio_rate=22050 --short_side=240
    python -m launch.train --config=configs/cremad.py:mla
    python -m launch.compare --config=configs/cremad.py --methods=concat,late,mla --seeds=3

`data` is where launch.prepare wrote to; elsewhere, name the folder by
--config.data.path=DIR/cremad. --dataset=cremad --variant=speakers makes splits that share no
speaker (the published ones do): its folder is DIR/cremad_speakers, and its accuracies are lower.
`cremad.py:mla,smoke` is a size for smoke tests.

Published accuracy on test data in percent:

    method            audio         visual          fused
    sum        54.14 ± 0.92   18.45 ± 1.07   60.32 ± 0.78
    concat     55.65 ± 0.82   18.68 ± 0.76   61.56 ± 0.91
    late       52.17 ± 1.12   55.48 ± 0.71   66.32 ± 1.08
    film       53.89 ± 0.75   18.67 ± 1.21   60.07 ± 1.25
    gated      51.49 ± 1.28   17.34 ± 1.11   59.21 ± 1.14
    ogm_ge     53.76 ± 0.98   28.09 ± 1.17   68.14 ± 0.79
    qmf        59.41 ± 0.71   39.11 ± 1.03   63.71 ± 1.12
    mla        59.27 ± 1.23   64.91 ± 1.10   79.70 ± 0.87
"""
from jaxmm.experiments.presets import IMAGENET, RAW, make_config, shrink
from jaxmm.config import Config, DataConfig, EncoderConfig, FramesConfig, SpectrogramConfig


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="cremad", path="data/cremad", preprocess={
        "audio": SpectrogramConfig(rate=22050, seconds=3.0, n_fft=512, hop=353, **RAW),
        "visual": FramesConfig(frames=3, height=240, width=320, size=224, **IMAGENET)})
    for m in ("audio", "visual"):
        config.encoders[m] = EncoderConfig(name="resnet18", stem="standard")
    return shrink(config) if smoke else config
