r"""MVSA-Single: the sentiment of tweets from their text and picture, after MLA.

arXiv 2311.10707, table 1. The paper's encoders are those of a pre-trained M3AE-base, which is not
in this package: here a transformer reads the text and a ResNet-18 the image, both from scratch.
So the published figures are not to be expected; texts need a learning rate of their own, and Adam
with 1e-3 is where to start. QMF weighs its ranking losses by 1. WordPiece of up to 256 tokens.
Name the vocabulary of BERT-uncased, one token a line, by
--config.data.preprocess.text.vocabulary=FILE; without it, one is made of the training texts.
Images are scaled to 256 pixels and cut to 224.

    python -m launch.prepare --dataset=mvsa --source=DIR --output=data --short_side=256
    python -m launch.train --config=configs/mvsa.py:mla
    python -m launch.compare --config=configs/mvsa.py --methods=concat,late,mla --seeds=3

`mvsa.py:mla,smoke` is a size for smoke tests.

Published accuracy on test data in percent:

    method             text         visual          fused
    sum        73.33 ± 1.03   28.46 ± 1.12   76.19 ± 1.01
    concat     75.22 ± 0.92   27.32 ± 1.09   76.25 ± 0.95
    late       72.15 ± 1.07   45.24 ± 0.97   76.88 ± 0.82
    film       74.85 ± 0.98   27.12 ± 1.18   75.34 ± 1.07
    gated      73.13 ± 1.08   28.15 ± 0.88   75.94 ± 0.88
    ogm_ge     74.76 ± 0.87   31.98 ± 1.03   76.37 ± 0.98
    qmf        74.87 ± 1.15   32.99 ± 1.09   77.96 ± 1.06
    mla        75.72 ± 0.79   54.99 ± 1.12   79.94 ± 0.97
"""
from jaxmm.config import Config
from jaxmm.experiments.configs import load


def get_config(argument: str = "mla") -> Config:
    config = load(f"food101:{argument}")
    config.data.name, config.data.path = "mvsa", "data/mvsa"
    return config
