"""Predictions of a run for examples that are composed of the modalities of several rows of a split.

Rows are int [B] by modality: the number of a row, or ABSENT, ZERO or MEAN, see `jaxmm.evaluate.contribution`.
"""
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.batch import Batch, Logits
from jaxmm.config import scalar_options
from jaxmm.data.rows import select
from jaxmm.evaluate.contribution import ABSENT, Predict, chunks
from jaxmm.methods import make_method
from jaxmm.methods.common import TrainState, on_features
from jaxmm.train.predictions import predict_split, split_features
from jaxmm.train.scores import main_head
from jaxmm.train.setup import Setup

AT_ONCE = 2**12     # rows that the head is applied to

Fused = Callable[[TrainState, Mapping, Mapping], jax.Array]     # (state, features [N, s], rows) -> logits [B, C]


def compile_head(setup: Setup) -> Fused | None:
    """The main head of the method on features that are already there; None if it needs the inputs."""
    options = scalar_options(setup.config)
    method = make_method(setup.config.method, on_features(setup.make_model(None, options))) if (
        setup.make_method(None, options).from_features) else None
    return method and jax.jit(lambda state, features, rows: main(method.predict(state, {
        "inputs": {m: features[m][index] for m, index in rows.items()},
        "present": {m: index != ABSENT for m, index in rows.items()}})))


def main(outputs: Logits) -> jax.Array:
    """Those of the head that stands for the method."""
    return outputs[main_head(outputs)]


def predict_from_features(fused: Fused, setup: Setup, state: TrainState, split: Batch,
                          means: Mapping[str, np.ndarray]) -> Predict:
    """What predicts composed examples of a split by the head alone; encoders run once.

    Args:
      fused: of the run, see `compile_head`.
      setup: of the run.
      state: of the run.
      split: the rows.
      means: of the features in training, [s] by modality, for MEAN; 0 by default.
    """
    copy, table = setup.programs.fetch(state), {}
    for m, x in split_features(setup, state, split).items():
        if m in state.params:
            mean = means.get(m, np.zeros(x.shape[1], np.float32))
            # The last rows are what the numbers MEAN, ZERO and ABSENT stand for.
            table[m] = jnp.concatenate([x, mean[None], jnp.zeros((2, x.shape[1]))])

    def predict(rows):
        count, parts = len(next(iter(rows.values()))), []
        size = min(AT_ONCE, 1 << (count - 1).bit_length())      # few shapes, each of which is compiled
        for part in chunks(count, AT_ONCE):
            filled = np.resize(part, size)
            index = {m: jnp.asarray(rows[m][filled], jnp.int32) for m in table}
            parts.append(np.asarray(fused(copy, table, index))[:len(part)])
        return np.concatenate(parts)

    return predict


def predict_from_inputs(setup: Setup, state: TrainState, split: Batch) -> Predict:
    """The same by whole passes, for methods whose encoders or predictions need all inputs; not of ZERO and MEAN."""

    def predict(rows):
        count = len(next(iter(rows.values())))
        nothing = np.full(count, ABSENT)
        index = {m: rows.get(m, nothing) for m in split["inputs"]}
        batch = {"inputs": {m: select({m: x}, np.maximum(index[m], 0))[m] for m, x in split["inputs"].items()},
                 "present": {m: index[m] != ABSENT for m in index},
                 "label": split["label"][np.zeros(count, int)], "id": np.arange(count, dtype=np.int32)}
        return np.asarray(main(predict_split(setup, state, batch)))

    return predict
