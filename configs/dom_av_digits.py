"""av_digits as a stream: is the digit odd or even, from two new digits a task (domain-incremental).

The protocol of SAMM (arXiv 2405.02766, "Dom"): the labels stay, what they stand for grows. Each of
five tasks brings one odd and one even digit. No value is published on this data.

    python -m launch.train --config=configs/dom_av_digits.py:samm

`METHOD,SIZE`, such as `dom_av_digits:samm,100`, has the options that were chosen on validation data for any size of
the memory, dense encoders among them (`tuned.csv`); for `samm` they are the recommended ones beside its released ones.
"""
from jaxmm.config import Config
from jaxmm.experiments import presets
from jaxmm.experiments.configs import load


def get_config(argument: str = "samm") -> Config:
    method, tuned, _ = argument.partition(",")
    config = load(f"seq_av_digits:{method}")
    config.stream.kind = "domain"
    config.stream.coarse = "configs/av_digits_parity.csv"
    return presets.with_tuned(config, "dom_av_digits", argument) if tuned else config
