r"""Seq-MNIST: the digits 0-1, 2-3, ..., 8-9 as five tasks: continual methods against mammoth's figures.

An `.npz` with {split}/visual, images [28, 28] of bytes, and {split}/label; what else it holds is not
used. Two layers of 100 units, pixels in [0, 1], plain SGD, batches of 10. With all 60,000 digits a task
is one epoch (--config.train.epochs=1); by default ten, as many steps with 6,000.

    python -m launch.train --config=configs/seq_mnist.py:er --config.data.path=FILE.npz \
        --config.train.seeds=3 --config.method.capacity=200 --config.optimizer.learning_rate=0.01

Accuracy over all classes after the last task, in percent: published (Buzzega et al., arXiv 2004.07211,
lwf and sgd too), and here with 6,000 digits, mean and deviation over three seeds, with these options:

    method  capacity  rate                                          published          here
    sgd               0.03                                              19.60    19.5 ± 0.1
    lwf               0.03  alpha=0.25 head_epochs=10 *                 19.62    19.7 ± 0.1 +
    er           200  0.01                                              80.43    80.3 ± 0.3
    er           500  0.1                                               86.12    87.0 ± 1.1
    derpp        200  0.03  alpha=0.2 beta=0 (DER)                      84.55    87.0 ± 0.7
    derpp        200  0.03  alpha=0.2 beta=1 replay_batch=128           85.61    87.2 ± 1.3 +
    derpp        500  0.03  alpha=1 beta=0.5                            91.00    91.5 ± 1.2

* and --config.train.epochs=20 --config.optimizer.weight_decay=5e-4: mammoth's distillation has no T^2,
and the head of a new task learns first, alone. + measured with the digits numbered in another order,
the tasks the same.
"""
from jaxmm.config import (Config, DataConfig, EncoderConfig, OptimizerConfig, PreprocessConfig,
                          StreamConfig, TrainConfig)
from jaxmm.methods import method_config


def get_config(method: str = "er") -> Config:
    config = Config(
        data=DataConfig(name="arrays", preprocess={"visual": PreprocessConfig(mean=(0.0,), std=(255.0,))}),
        stream=StreamConfig(kind="class", num_tasks=5, order="sorted"),
        method=method_config(method),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.03, momentum=0.0, weight_decay=0.0,
                                  schedule="constant"),
        train=TrainConfig(epochs=10, batch_size=10))
    if hasattr(config.method, "modalities"):
        config.method.modalities = "visual"
    config.encoders["visual"] = EncoderConfig(name="mlp", width=100, depth=2)
    return config
