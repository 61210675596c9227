import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import OptimizerConfig, TrainConfig
from jaxmm.encoders import Encoder
from jaxmm.errors import UserError
from jaxmm.methods.avslowfast import LateralDropoutConfig, make_dropout
from jaxmm.methods.fusion import DropoutConfig
from jaxmm.methods import fusion
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train import plan
from jaxmm.train.optimizers import make_optimizer

ROWS = {"video": (2, 2, 2, 3), "audio": (4, 5, 1), "sensor": (2, 3, 1)}


def encoder(width, stages=4):
    """A chain of linear layers on the channels of maps, whose features are their means."""
    def init(key, x):
        sizes = [x.shape[-1]] + [width] * stages
        return [jax.random.normal(jax.random.fold_in(key, i), (a, b)) for i, (a, b) in
                enumerate(zip(sizes, sizes[1:]))], {}

    def stage(i, params, stats, x, *, train, mask=None):
        return jnp.tanh(x @ params[i]), stats

    def pool(params, stats, x, *, train, mask=None):
        return x.mean(axis=tuple(range(1, x.ndim - 1))), stats

    def apply(params, stats, x, **options):
        for i in range(stages):
            x, _ = stage(i, params, stats, x, **options)
        return pool(params, stats, x, **options)

    return Encoder(init, apply, tuple(functools.partial(stage, i) for i in range(stages)), pool)


@functools.cache
def model(axis_name=None, stages=4):
    epoch = plan.make_epoch([range(8)], TrainConfig(batch_size=8))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, weight_decay=0.0), 100, epoch)
    return Model({m: encoder(3 + i, stages) for i, m in enumerate(ROWS)}, classification("xyz"),
                 lambda key, batch: batch, optimizer, epoch, 8, 8, axis_name=axis_name)


@functools.cache
def batch(value=0.0):
    rng = np.random.default_rng(1)
    present = {m: rng.random(8) < 0.7 for m in ROWS}
    inputs = {m: np.where(present[m].reshape(8, *[1] * len(shape)), rng.standard_normal((8, *shape)), value)
              for m, shape in ROWS.items()}
    return make_batch({m: np.float32(x) for m, x in inputs.items()}, rng.integers(0, 3, 8), present=present)


def after(method, steps=3, axis_name=None):
    """The state after some steps and the outputs in evaluation, all on one device or on two halves of a batch."""
    state = jax.jit(method.init)(jax.random.key(3), batch())
    rows = batch()

    def run(state, rows):
        for _ in range(steps):
            state, _ = method.step(state, rows)
        return state, method.predict(state, rows)

    if not axis_name:
        return jax.jit(run)(state, rows)
    halves = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), rows)
    states, outputs = jax.jit(jax.vmap(run, (None, 0), axis_name=axis_name))(state, halves)
    return jax.tree.map(lambda x: x[0], states), jax.tree.map(lambda x: x.reshape(8, -1), outputs)


@functools.cache
def adding(drop_pathway, axis_name=None):
    config = LateralDropoutConfig("dropout", main="video", drop_pathway=drop_pathway)
    return after(make_dropout(config, model(axis_name)), axis_name=axis_name)


def test_steps_that_add_nothing_are_those_of_dropout():
    state, _ = adding(1.0)
    plain, _ = after(fusion.make_dropout(DropoutConfig(), model()))
    groups = [*ROWS, "head"]
    chex.assert_trees_all_close(*({g: s.params[g] for g in groups} for s in (state, plain)), rtol=1e-5)
    start = jax.jit(make_dropout(LateralDropoutConfig("dropout", main="video"), model()).init)(
        jax.random.key(3), batch())
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.batch_stats["exchange"],
                         start.batch_stats["exchange"])
    assert min(jax.tree.leaves(moved)) > 0      # of what would be added


def test_what_is_added_trains_the_encoders_of_the_others():
    always, _ = adding(0.0)
    never, _ = adding(1.0)
    for group in ("audio", "sensor", "video"):
        assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(*(jax.tree.leaves(s.params[group])
                                                                for s in (always, never))))


def test_pathways_are_dropped_in_a_share_of_the_steps():
    """The exchange gets no gradient in a step that adds nothing."""
    method = make_dropout(LateralDropoutConfig("dropout", main="video", drop_pathway=0.8), model())
    step = jax.jit(method.step)
    state = jax.jit(method.init)(jax.random.key(0), batch())
    dropped = 0
    for i in range(60):
        new, _ = step(state._replace(step=jnp.int32(i)), batch())
        weight = jax.tree.leaves(new.opt_state["exchange"])
        dropped += all(not np.asarray(x).any() for x in weight if np.asarray(x).ndim > 1)
    assert not method.from_features     # which are not of each modality alone
    assert 40 <= dropped <= 56      # of a binomial distribution with mean 48, deviation 3.1


def test_two_halves_of_a_batch_are_the_whole():
    whole, outputs = adding(0.0)
    halves, other = adding(0.0, "devices")
    chex.assert_trees_all_close(whole.params, halves.params, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(whole.batch_stats, halves.batch_stats, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(outputs, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options, of, message", [
    ({"main": "visual"}, {}, "method.main='visual'; expected one of"),
    ({"main": "audio"}, {}, "the encoder of audio does not see motion"),
    ({"main": "video", "drop_pathway": 1.5}, {}, "method.drop_pathway=1.5; expected a probability"),
    ({"main": "video"}, {"stages": 3}, "behind the third and the fourth stage of each encoder; found video 3")])
def test_what_cannot_be_added(options, of, message):
    with pytest.raises(UserError, match=message) as error:
        method = make_dropout(dataclasses.replace(LateralDropoutConfig("dropout"), **options), model(**of))
        jax.eval_shape(method.init, jax.random.key(0), batch())
    assert "\n" not in str(error.value)
