"""av_digits as a stream: digits come back in uneven shares (generalised class-incremental).

The protocol of SAMM (arXiv 2405.02766, "GCIL"), scaled to this data: each phase has 150 examples
of one to six digits, no example is used twice, and the stream ends when the data run out. No value
is published on this data.

    python -m launch.train --config=configs/gcil_av_digits.py:samm
    python -m launch.train --config=configs/gcil_av_digits.py:samm --config.stream.long_tailed

`METHOD,SIZE`, such as `gcil_av_digits:samm,100`, has the options that were chosen on validation data for any size of
the memory, dense encoders among them (`tuned.csv`); for `samm` they are the recommended ones beside its released ones.
"""
from jaxmm.config import Config, StreamConfig
from jaxmm.experiments import presets
from jaxmm.experiments.configs import load


def get_config(argument: str = "samm") -> Config:
    method, tuned, _ = argument.partition(",")
    config = load(f"seq_av_digits:{method}")
    config.stream = StreamConfig(kind="generalized", num_tasks=6, phase_size=150, max_classes=6,
                                 seed=1992)
    return presets.with_tuned(config, "gcil_av_digits", argument) if tuned else config
