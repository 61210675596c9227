r"""Seq-MNIST: the digits 0-1, 2-3, ..., 8-9 as five tasks: continual methods against mammoth's figures.

An `.npz` with {split}/visual, images [28, 28] of bytes, and {split}/label; what else it holds is not
used. Two layers of 100 units, pixels in [0, 1], plain SGD, batches of 10. With all 60,000 digits a task
is one epoch (--config.train.epochs=1); by default ten, as many steps with 6,000.

    python -m launch.train --config=configs/seq_mnist.py:er,200 --config.data.path=FILE.npz \
        --config.train.seeds=3

METHOD,BUFFER takes the options of `tuned.csv` for a method with a memory of so many examples, and METHOD alone those
of one without a memory; `python -m benchmarks.reproduce --data=FILE.npz` trains all rows and says which miss their
figure.

Accuracy over all classes after the last task, in percent: published (Buzzega et al., arXiv 2004.07211, lwf, sgd, ewc
and agem too; CLS-ER, arXiv 2201.12604), and here with 6,000 digits, mean and deviation over three seeds:

    method        buffer  published          here
    sgd                       19.60    19.5 ± 0.1
    ewc                       20.46    19.9 ± 0.5
    lwf                       19.62    19.6 ± 0.1
    agem             200      45.72    36.8 ± 1.0
    er               200      80.43    80.3 ± 0.3
    er               500      86.12    87.0 ± 1.0
    derpp+beta=0     200      84.55    86.9 ± 0.6  (DER)
    derpp+beta=0     500      90.54    90.9 ± 0.2
    derpp            200      85.61    87.3 ± 0.9
    derpp            500      91.00    91.4 ± 1.3
    cls_er           200      89.54    88.6 ± 0.5
    cls_er           500      92.05    91.4 ± 0.6
    er_ace           200               84.0 ± 0.6
    er_ace           500               87.4 ± 1.3
    er_aml           200               83.6 ± 0.6
    er_aml           500               86.5 ± 1.8
    analytic                           93.3 ± 0.6

Mammoth's distillation has no T^2, so alpha is a quarter of its own, and the head of a new task learns first, alone,
which doubles the epochs of lwf. The same equations with 6,000 digits in NumPy: see `benchmarks/figures.csv`.
"""
from jaxmm.config import (Config, DataConfig, EncoderConfig, OptimizerConfig, PreprocessConfig,
                          StreamConfig, TrainConfig)
from jaxmm.experiments import presets
from jaxmm.methods import method_config
from jaxmm.report import variants


def get_config(argument: str = "er") -> Config:
    method, _, _ = variants.parse(argument.partition(",")[0])
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
    return presets.with_tuned(config, "seq_mnist", argument)
