r"""av_digits with a third modality, words in many languages, as a stream of five tasks (class-incremental).

What more than two modalities give SAMM (arXiv 2405.02766) and others; settings are those of `seq_av_digits.py`.
Expected accuracy: no value is published on this data.

    python -m launch.train --config=configs/seq_avt_digits.py:samm
    python -m launch.compare --config=configs/seq_avt_digits.py --seeds=10 --baseline=er \
        --methods="er:audio,er:text,er:visual,er:audio&text,er:audio&visual,er:text&visual,er"
"""
from jaxmm.config import Config, EncoderConfig
from jaxmm.experiments.configs import load


def get_config(method: str = "samm") -> Config:
    config = load(f"seq_av_digits:{method}")
    config.data.name = "avt_digits"
    config.encoders["text"] = EncoderConfig(name="mlp")
    return config
