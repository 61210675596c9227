"""Synthetic pairs: labels in one modality (A), in the pair alone (B), or in either (C).

Tables 20 and 21 of arXiv 2305.01233, section A.10. Expected test accuracy of `unimodal` first and
second, and of `mlp_head` fused, in percent: A 100, 100, 100; B 50, 50, 92; C 70, 70, 93.

    python -m launch.compare --config=configs/synthetic.py --config.data.kind=B --seeds=5

Networks have one hidden layer: on one modality 100 units, an encoder; `mlp_head` has 200 over both
inputs as they are, a head. Methods that fuse linearly after the encoders (`concat`, `late`) cannot
learn B, where the label is the sign of a product of the modalities.
"""
from jaxmm.config import Config, DataConfig, EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.methods import method_config

METHODS = ("unimodal", "mlp_head")      # that a comparison makes by default


def get_config(method: str = "mlp_head") -> Config:
    config = Config(
        data=DataConfig(name="synthetic", kind="B"),
        method=method_config(method),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.2, momentum=0.0, weight_decay=0.0,
                                  schedule="constant"),
        train=TrainConfig(epochs=3000, batch_size=3600, eval_epochs=3000, checkpoint_epochs=3000),
    )
    for m in "first", "second":
        config.encoders[m] = EncoderConfig(name="mlp", depth=1, width=100)
    if hasattr(config.method, "hidden"):
        config.method.hidden = 200
    if method == "mlp_head":
        for m in config.encoders:
            config.encoders[m] = EncoderConfig(name="identity")
    return config
