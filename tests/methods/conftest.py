from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.encoders import make_encoder
from jaxmm.methods import make_method
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train.optimizers import make_optimizer
from jaxmm.train.plan import make_epoch


class Step(NamedTuple):
    """One step of a method."""
    before: Any         # its state
    after: Any
    metrics: Any
    outputs: Any        # logits before it, by head


@pytest.fixture
def step_of():
    """Steps of a method on small encoders and a batch of 8 rows of three classes, one batch an epoch.

    They are plain SGD at a rate of 1.
    """
    def make(make_options, widths, present=None):
        """(rows, run): run(*values, steps_done=0) makes a `Step`, and is compiled once.

        `make_options` gives the options of the method from `values`, which are traced; `widths` are those of
        the inputs by modality, `present` is as in `make_batch`.
        """
        rng = np.random.default_rng(0)
        rows = make_batch({m: rng.normal(size=(8, n)).astype(np.float32) for m, n in widths.items()},
                          rng.integers(3, size=8), present=present)
        encoders = {m: make_encoder(EncoderConfig(name="mlp", depth=1, width=4), 1) for m in widths}
        epoch = make_epoch([np.arange(8)], TrainConfig(batch_size=8))
        options = OptimizerConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant")
        model = Model(encoders, classification("abc"), lambda key, batch: batch,
                      make_optimizer(options, 1, epoch), epoch, 8, 8)

        @jax.jit
        def step(steps_done, *values):
            method = make_method(make_options(*values), model)
            before = method.init(jax.random.key(0), rows)._replace(step=steps_done)
            after, metrics = method.step(before, rows)
            return Step(before, after, metrics, method.predict(before, rows))

        return rows, lambda *values, steps_done=0: jax.device_get(step(np.int32(steps_done), *values))
    return make
