r"""UPMC Food-101: 101 dishes from a photograph and a title, after MLA (arXiv 2311.10707, table 1).

Both encoders are M3AE-base (arXiv 2205.14204), pre-trained, with a copy for text and one for images, and
all of both is trained on with the paper's SGD: learning rate 1e-3, a tenth of it after epoch 70 of 100,
batches of 64. The text is up to 256 tokens of BERT-uncased without [CLS] and [SEP], and the feature is the
mean over all 257 tokens, padding too, as in the released code. Images have 256 pixels; in training they are
random crops of 8 to 100% of the area, mirrored, with brightness, contrast and saturation changed by up to
100%. (The crops are taken from the middle that evaluation sees, not from the whole photograph.) QMF weighs
its ranking losses by 1. The lists of the released code have 62,970 examples for training and 22,714 for the
test.

Two files are yours to bring: m3ae_base.pkl (github.com/young-geng/m3ae_public) and vocab.txt of
bert-base-uncased. From raw data to the table:

    python -m launch.convert --weights=m3ae_base.pkl --output=weights/m3ae_base.safetensors
    cp vocab.txt weights/bert_uncased.txt
    python -m launch.prepare --dataset=food101 --source=DIR --output=data --short_side=256
    python -m launch.train --config=configs/food101.py:mla
    python -m launch.compare --config=configs/food101.py --seeds=3 \
        --methods=sum,concat,late,film,gated,ogm_ge,qmf,mla

Elsewhere, name them by --config.encoders.text.weights=FILE, --config.encoders.visual.weights=FILE and
--config.data.preprocess.text.vocabulary=FILE. A step takes 18 TFLOP and an epoch 1000 steps: hours on an
H100 for one run, and nothing for a CPU. 64 tokens cost the text a quarter and cut few titles
(--config.data.preprocess.text.length=64). `food101.py:mla,smoke` is a size for smoke tests, without the
files; food101_clip.py has CLIP in place of M3AE.

Published accuracy on test data in percent:

    method             text         visual          fused
    sum        85.63 ± 1.14    4.57 ± 0.88   86.19 ± 0.86
    concat     86.02 ± 1.05    3.51 ± 1.22   86.32 ± 1.18
    late       85.19 ± 1.21   58.46 ± 1.03   90.21 ± 1.02
    film       85.84 ± 0.92    4.68 ± 0.97   87.21 ± 1.05
    gated      85.79 ± 1.10   14.20 ± 1.18   88.87 ± 0.88
    ogm_ge     85.17 ± 1.09   22.35 ± 1.27   87.54 ± 1.03
    qmf        84.13 ± 1.27   45.74 ± 1.09   92.87 ± 1.01
    mla        86.47 ± 0.86   69.60 ± 0.89   93.33 ± 0.92

The images of the paper's code are cut into patches in another order than M3AE was trained with, which may be
why its visual figures are low: here they are cut as M3AE has them.
"""
from jaxmm.experiments.presets import m3ae, m3ae_images, m3ae_text, make_config, shrink
from jaxmm.config import Config, DataConfig


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="food101", path="data/food101", preprocess={
        "text": m3ae_text(), "visual": m3ae_images()})
    for m in ("text", "visual"):
        config.encoders[m] = m3ae()
    if config.method.name == "qmf":
        config.method.weight = 1.0
    return shrink(config) if smoke else config
