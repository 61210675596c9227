r"""IEMOCAP: four emotions heard, seen and read, after MLA (arXiv 2311.10707, table 1).

The paper's encoders, pre-trained: the audio branch of CAV-MAE (arXiv 2210.07839) hears the filterbank of
Kaldi [1024, 128], and M3AE-base (arXiv 2205.14204) sees the face in the middle frame and reads the
transcript, with a copy for each. All of them are trained on with the paper's SGD: learning rate 1e-3, a tenth
of it after epoch 70 of 100, batches of 64. Texts and pictures are as in food101.py: up to 256 tokens without
[CLS] and [SEP], crops of faces of 256 pixels. Sound is standardised as CAV-MAE was trained, by
(x + 5.081) / 4.4849, and 0 before that where there is none; the paper's code forgets to.

Three files are yours to bring: m3ae_base.pkl (github.com/young-geng/m3ae_public), vocab.txt of
bert-base-uncased and audio_model.21.pth (github.com/YuanGongND/cav-mae). From raw data to the table:

    python -m launch.convert --weights=m3ae_base.pkl --output=weights/m3ae_base.safetensors
    python -m launch.convert --weights=audio_model.21.pth --output=weights/cav_mae.safetensors
    cp vocab.txt weights/bert_uncased.txt
    python -m launch.prepare --dataset=iemocap --source=DIR --output=data \
        --audio_rate=16000 --short_side=256
    python -m launch.train --config=configs/iemocap.py:mla
    python -m launch.compare --config=configs/iemocap.py --seeds=3 \
        --methods=sum,concat,late,film,gated,ogm_ge,qmf,mla

Elsewhere, name them by --config.encoders.audio.weights=FILE, and of text and visual, and
--config.data.preprocess.text.vocabulary=FILE. An epoch has 52 steps of 36 TFLOP.
`iemocap.py:mla,smoke` is a size for smoke tests, without the files; iemocap_features.py is for precomputed
features.

Published accuracy on test data in percent:

    method            audio         visual           text          fused
    sum        39.79 ± 1.08   29.44 ± 0.97   65.16 ± 0.88   74.18 ± 1.03
    concat     41.93 ± 0.89   30.00 ± 0.88   67.84 ± 0.97   75.91 ± 0.92
    late       43.12 ± 0.97   32.38 ± 0.92   68.79 ± 1.07   74.96 ± 0.97
    film       41.64 ± 1.06   29.85 ± 1.06   66.37 ± 0.95   74.32 ± 1.12
    gated      42.23 ± 0.88   27.45 ± 1.08   65.16 ± 1.08   73.34 ± 1.05
    ogm_ge     41.38 ± 1.13   30.24 ± 1.02   70.79 ± 1.03   76.17 ± 1.01
    qmf        42.98 ± 0.95   31.22 ± 1.07   75.03 ± 0.79   76.17 ± 0.95
    mla        46.29 ± 1.02   37.63 ± 0.78   73.22 ± 1.09   78.92 ± 1.07
"""
from jaxmm.experiments.presets import cav_mae_sound, m3ae, m3ae_images, m3ae_text, make_config, shrink
from jaxmm.config import Config, DataConfig, EncoderConfig


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="iemocap", path="data/iemocap", preprocess={
        "audio": cav_mae_sound(), "text": m3ae_text(), "visual": m3ae_images()})
    config.encoders["audio"] = EncoderConfig(name="cav_mae", weights="weights/cav_mae.safetensors")
    for m in ("text", "visual"):
        config.encoders[m] = m3ae()
    return shrink(config) if smoke else config
