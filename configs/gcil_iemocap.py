r"""IEMOCAP features as a stream: emotions come back in uneven shares (generalised class-incremental).

Three modalities under the protocol "GCIL" of SAMM (arXiv 2405.02766), scaled to four classes: 10 phases of 300
utterances of one to three emotions, none twice, until the data run out. Data and encoders are those of
`iemocap_features.py`, complete; as in SAMM, plain SGD with a constant rate. Memories are of 100, 200 or 400
examples. No value is published on this stream: the papers do not have this data set so.

    python -m launch.prepare --dataset=iemocap --source=DIR --output=data
    python -m launch.train --config=configs/gcil_iemocap.py:samm --describe_stream
    python -m launch.train --config=configs/gcil_iemocap.py:samm --config.stream.long_tailed
    python -m launch.compare --config=configs/gcil_iemocap.py --seeds=10 --capacities=100,200,400 --baseline=er \
        --methods="er:audio,er:text,er:visual,er:audio&text,er:audio&visual,er:text&visual,er,derpp,samm"

`gcil_iemocap.py:er,smoke` is a size for smoke tests.
"""
from jaxmm.config import Config, OptimizerConfig, StreamConfig
from jaxmm.experiments.configs import load


def get_config(argument: str = "samm") -> Config:
    config = load(f"iemocap_features:{argument}")
    config.data.missing_rate, config.data.missing_scheme = 0.0, "independent"
    config.stream = StreamConfig(kind="generalized", num_tasks=10, phase_size=300, max_classes=3, seed=1992)
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.02, momentum=0.0, weight_decay=0.0,
                                       schedule="constant")
    if not argument.endswith(",smoke"):
        config.train.epochs, config.train.batch_size = 10, 32
        if hasattr(config.method, "capacity"):
            config.method.capacity = 200
    return config
