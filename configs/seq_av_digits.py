"""av_digits as a stream: five tasks of two new digits each (class-incremental).

The protocol of SAMM (arXiv 2405.02766, "Seq") on data that ships with the package. Expected
accuracy: see the table in the README.

    python -m launch.train --config=configs/seq_av_digits.py:samm
    python -m launch.compare --config=configs/seq_av_digits.py --methods=joint,sgd,er,samm --seeds=3

`METHOD,SIZE`, such as `seq_av_digits:samm,100`, has the options that were chosen on validation data for any size of
the memory, dense encoders among them (`tuned.csv`); for `samm` they are the recommended ones beside its released ones.
"""
from jaxmm.config import Config, OptimizerConfig, StreamConfig, TrainConfig
from jaxmm.experiments import presets
from jaxmm.experiments.configs import load


def get_config(argument: str = "samm") -> Config:
    method, tuned, _ = argument.partition(",")
    config = load(f"av_digits:{method}")
    config.stream = StreamConfig(kind="class", num_tasks=5)
    # SAMM trains by plain SGD with a constant rate; larger ones let it diverge on some seeds.
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.02, momentum=0.0,
                                       weight_decay=0.0, schedule="constant")
    config.train = TrainConfig(epochs=10, batch_size=32)
    if hasattr(config.method, "capacity"):
        config.method.capacity = 100
    return presets.with_tuned(config, "seq_av_digits", argument) if tuned else config
