r"""Your own arrays: any `.npz` with {split}/{modality} and {split}/label; see jaxmm/data/arrays.py.

    python -m launch.train --config=configs/arrays.py:mla --config.data.path=FILE.npz

The encoder of a modality follows from the rank of an example (vector: mlp, otherwise cnn). Choose
another one, or its size, by `--config.encoders.MODALITY.name=resnet18`; `mla` needs the same
number of features from all: `--config.encoders.MODALITY.features=64`.

Modalities that are not paired, each with rows and labels of its own ({split}/{modality}/label in place of
{split}/label), train `mla`, `late`, `unimodal` and `ume`.

As a stream of tasks, each of some of the classes (class-incremental); the memory of `er` and `samm`
holds at least one batch:

    python -m launch.train --config=configs/arrays.py:samm --config.data.path=FILE.npz \
        --config.stream.kind=class --config.stream.num_tasks=5 --config.method.capacity=200
"""
from jaxmm.config import Config, DataConfig, OptimizerConfig, TrainConfig
from jaxmm.methods import method_config


def get_config(method: str = "mla") -> Config:
    return Config(
        data=DataConfig(name="arrays"),
        method=method_config(method),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.02, momentum=0.9, weight_decay=1e-4,
                                  schedule="cosine"),
        train=TrainConfig(epochs=20, batch_size=64),
    )
