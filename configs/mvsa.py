r"""MVSA-Single: the sentiment of tweets from their text and picture, after MLA (arXiv 2311.10707, table 1).

As food101.py, which has the details: both encoders are M3AE-base, pre-trained, and all of both is trained on
with the paper's SGD; texts of up to 256 tokens without [CLS] and [SEP], pictures of 256 pixels. With the same
two files, from raw data to the table:

    python -m launch.convert --weights=m3ae_base.pkl --output=weights/m3ae_base.safetensors
    cp vocab.txt weights/bert_uncased.txt
    python -m launch.prepare --dataset=mvsa --source=DIR --output=data --short_side=256
    python -m launch.train --config=configs/mvsa.py:mla
    python -m launch.compare --config=configs/mvsa.py --seeds=3 \
        --methods=sum,concat,late,film,gated,ogm_ge,qmf,mla

An epoch has 25 steps of 18 TFLOP. `mvsa.py:mla,smoke` is a size for smoke tests, without the files.

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
