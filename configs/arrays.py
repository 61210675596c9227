r"""Your own arrays: any `.npz` with {split}/{modality} and {split}/label; see jaxmm/data/arrays.py.

    python -m launch.train --config=configs/arrays.py:mla --config.data.path=FILE.npz

The encoder of a modality follows from the rank of an example (vector: mlp, otherwise cnn). Choose
another one, or its size, by `--config.encoders.MODALITY.name=resnet18`; `mla` needs the same
number of features from all: `--config.encoders.MODALITY.features=64`.

Behind the method may stand what the labels are, if they are no classes: `arrays.py:mla,numbers` has Adam, as
the squared error is too steep for SGD at this rate, and `arrays.py:mla,labels` is for labels that hold or not.
With either, `mla` and `samm` fuse by the plain mean.

Modalities that are not paired, each with rows and labels of its own ({split}/{modality}/label in place of
{split}/label), train `mla`, `late`, `unimodal` and `ume`.

As a stream of tasks, each of some of the classes (class-incremental); the memory of `er` and `samm`
holds at least one batch:

    python -m launch.train --config=configs/arrays.py:samm --config.data.path=FILE.npz \
        --config.stream.kind=class --config.stream.num_tasks=5 --config.method.capacity=200
"""
import copy

from jaxmm.config import Config, DataConfig, OptimizerConfig, TrainConfig
from jaxmm.errors import UserError
from jaxmm.experiments.presets import fuse_plainly
from jaxmm.methods import method_config


OPTIMIZERS = {"": OptimizerConfig(name="sgd", learning_rate=0.02, momentum=0.9, weight_decay=1e-4, schedule="cosine"),
              "numbers": OptimizerConfig(name="adam", learning_rate=1e-3, schedule="cosine")}


def get_config(argument: str = "mla") -> Config:
    method, _, labels = argument.partition(",")
    if labels not in ("", "labels", "numbers"):
        raise UserError(f"--config=...:{argument}: found {labels!r} after the method; expected nothing (classes), "
                        "labels or numbers")
    config = Config(
        data=DataConfig(name="arrays"),
        method=method_config(method),
        optimizer=copy.copy(OPTIMIZERS.get(labels, OPTIMIZERS[""])),
        train=TrainConfig(epochs=20, batch_size=64),
    )
    return fuse_plainly(config) if labels else config
