import dataclasses
import functools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import OptimizerConfig, SpectrogramConfig, TrainConfig
from jaxmm.data.transform import make_transform
from jaxmm.encoders import Encoder
from jaxmm.errors import UserError
from jaxmm.heads import linear
from jaxmm.methods import avslowfast
from jaxmm.methods.avslowfast import LateralDropoutConfig, make_dropout
from jaxmm.methods.common import only, own_key, step_key
from jaxmm.methods.fusion import DropoutConfig
from jaxmm.methods import fusion
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train import plan
from jaxmm.train.optimizers import make_optimizer

SEED = 11       # whose steps 0 and 3 add nothing, and steps 1 and 2 do, at a probability of 1/2
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
    ({"sync_weight": 1.0}, {}, "method.sync_weight=1 compares .* name it by --config.method.main"),
    ({"main": "video", "sync_weight": -1.0}, {}, "method.sync_weight=-1.0; expected a number of at least 0"),
    ({"main": "video", "sync_weight": 1.0}, {}, "behind the last three of five stages .* found video 4"),
    ({"main": "video"}, {"stages": 3}, "behind the third and the fourth stage of each encoder; found video 3")])
def test_what_cannot_be_added(options, of, message):
    with pytest.raises(UserError, match=message) as error:
        method = make_dropout(dataclasses.replace(LateralDropoutConfig("dropout"), **options), model(**of))
        jax.eval_shape(method.init, jax.random.key(0), batch())
    assert "\n" not in str(error.value)


def synchronised(**options):
    return LateralDropoutConfig("dropout", main="video", **{"sync_weight": 1.0, "sync_epochs": 1} | options)


SOUND = {"audio": SpectrogramConfig(rate=100, seconds=3.0, crop_seconds=1.0, n_fft=20, hop=25, mels=4, center=False,
                                    preemphasis=0.0, window=0)}


@functools.cache
def hearing(axis_name=None):
    """The model on clips and sound, in epochs of two steps."""
    epoch = plan.make_epoch([range(16)], TrainConfig(batch_size=8, epochs=3))
    whole = model(axis_name, stages=5)
    return whole._replace(transform=make_transform({}, {}, SOUND), epoch=epoch,
                          encoders={m: whole.encoders[m] for m in ("audio", "video")})


@functools.cache
def recorded(value=0):
    """Eight rows, with NaN and this sample in place of what is missing unless it is 0."""
    rows, rng = only(batch(), ("audio", "video")), np.random.default_rng(2)
    missing = {m: ~rows["present"][m].reshape(8, *[1] * n) for m, n in (("audio", 1), ("video", 4))}
    return rows | {"inputs": {
        "audio": np.where(missing["audio"], value, rng.integers(-9000, 9000, (8, 300))).astype(np.int16),
        "video": np.where(missing["video"], np.nan if value else 0, rows["inputs"]["video"])}}


@functools.cache
def stepped(axis_name=None, seeds=False):
    """(init, step) compiled, of a method that adds something in half of the steps.

    Over eight devices if they have a name, or of several states at once.
    """
    method = make_dropout(synchronised(drop_pathway=0.5), hearing(axis_name))
    step = jax.vmap(method.step, (None, 0), axis_name=axis_name) if axis_name else (
        jax.vmap(method.step, (0, None)) if seeds else method.step)
    return jax.jit(method.init), jax.jit(step)


@functools.cache
def run(steps=4):
    """States and metrics of four steps, the last two of the second epoch, on one device."""
    init, step = stepped()
    states, metrics = [init(jax.random.key(SEED), recorded())], []
    for _ in range(steps):
        state, found = step(states[-1], recorded())
        states.append(state)
        metrics.append(found)
    return states, metrics


def test_loss_for_synchronisation_of_the_authors():
    """Their loss, its gradients and the clips that count; tolerances are shares of the largest number."""
    with np.load(pathlib.Path(__file__).with_name("avslowfast_sync.npz"), allow_pickle=False) as file:
        found = dict(file)
    visual, aligned, other = (found[f"input/{name}"].transpose(0, 2, 3, 4, 1) for name in (
        "visual", "aligned", "other"))
    sounds = found["input/raw_audio"].reshape(5, 2, 8, 4)
    valid = avslowfast.comparable(sounds[:, 0], sounds[:, 1])
    assert valid.tolist() == found["output/valid"].tolist() == [False, False, True, True, True]

    def loss_fn(params, visual):
        v, a, b = (linear(params[name], avslowfast.squeeze(x)) for name, x in (
            ("ref_fc", visual), ("query_fc", aligned), ("query_fc", other)))
        return model().mean(avslowfast.sync_loss(v, a, b), valid)

    params = {name: {"kernel": found[f"weights/{name}.weight"].T, "bias": found[f"weights/{name}.bias"]}
              for name in ("ref_fc", "query_fc")}
    loss, (grads, of_visual) = jax.jit(jax.value_and_grad(loss_fn, (0, 1)))(params, visual)
    np.testing.assert_allclose(loss, found["output/loss"], rtol=1e-5)
    expected = {name: found[f"output/gradient/{name}"] for name in (
        "ref_fc.weight", "query_fc.weight", "query_fc.bias")} | {
            "visual": found["output/gradient_visual"].transpose(0, 2, 3, 4, 1)}
    got = {f"{name}.weight": grads[name]["kernel"].T for name in grads} | {
        "query_fc.bias": grads["query_fc"]["bias"], "visual": of_visual}
    for name, x in expected.items():
        np.testing.assert_allclose(got[name], x, atol=1e-4 * np.abs(x).max(), err_msg=name)


def test_loss_for_synchronisation_by_hand():
    x, y = np.float32([[3, 4]]), np.float32([[-4, 3]])
    for v, a, other, expected in ((x, 2 * x, -x, 0), (x, x, x, 0.99**2 / 2), (x, y, 5 * x, (0.5 + 0.99**2) / 2),
                                  (x, -x, y, (1 + (0.99 - 0.5**0.5)**2) / 2)):
        np.testing.assert_allclose(avslowfast.sync_loss(v, a, other), [expected], rtol=1e-5, atol=1e-6)
    grads = jax.grad(lambda v: avslowfast.sync_loss(v, x, v).sum())(jnp.zeros((1, 2)))
    assert np.isfinite(grads).all()


def test_sounds_that_cannot_be_compared():
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    y = np.stack([x[0] + 1, 3 * x[1], 0.05 * x[3], x[2]])       # another, alike, silent, another
    assert avslowfast.comparable(x, y).tolist() == [True, False, False, True]
    assert avslowfast.comparable(y, x).tolist() == [True, False, False, True]


@pytest.mark.parametrize("late, expected", [(False, [1, 2, 3, 4, 5, 6, 7, 0]), (True, [1, 2, 3, 4, 5, 0, 6, 7])])
def test_other_sounds_are_of_the_next_clip(late, expected):
    """Of all clips or, late, of three fourths of them, wherever their rows are."""
    rows = {"inputs": {"audio": np.arange(8.0)}, "present": {"audio": np.arange(8) > 2}, "id": np.arange(8)}
    for devices in (1, 2, 8):
        parts = jax.tree.map(lambda x, n=devices: x.reshape(n, -1), rows)
        found = jax.vmap(lambda part: avslowfast.other_sounds(model("devices"), part, jnp.asarray(late)),
                         axis_name="devices")(parts)
        assert found["inputs"]["audio"].ravel().tolist() == expected
        assert found["present"]["audio"].ravel().tolist() == [i > 2 for i in expected]


def test_stages_that_have_been_told_are_not_compared():
    """The projections of later stages learn in steps that add nothing alone."""
    (start, *_), _ = run()
    _, step = stepped()
    for i, alone in enumerate((True, False, False, True)):
        before = start._replace(step=jnp.int32(i))
        assert avslowfast.drops(synchronised(drop_pathway=0.5), own_key(step_key(before))) == alone
        after, found = step(before, recorded())
        moved = [any(np.abs(new - old).max() > 0 for old, new in zip(*(jax.tree.leaves(
            state.params["sync"][f"stage_{stage}"]) for state in (before, after)))) for stage in (2, 3, 4)]
        assert moved == [True, alone, alone]
        np.testing.assert_allclose(found["loss"], found["loss/sync"] + found["loss/fused"], rtol=1e-6)


def test_weights_and_steps_are_those_of_dropout_but_for_the_loss_for_synchronisation():
    """With a weight near 0, and encoders without batch statistics."""
    states = []
    for weight in (1e-9, 0.0):
        method = make_dropout(synchronised(sync_weight=weight), hearing())
        state = jax.jit(method.init)(jax.random.key(SEED), recorded())
        states.append(jax.jit(method.step)(state, recorded())[0])
    groups = ("audio", "video", "head")
    chex.assert_trees_all_close(*({g: s.params[g] for g in groups} for s in states), rtol=1e-5, atol=1e-7)
    assert set(states[0].params) - set(states[1].params) == {"sync"}
    assert set(states[0].params["exchange"]) - set(states[1].params["exchange"]) == {"stage_4"}


def test_devices_seeds_resuming_and_what_is_missing_with_the_loss_for_synchronisation():
    states, metrics = run()
    init, step = stepped("devices")
    state, one_each = states[0], jax.tree.map(lambda x: x[:, None], recorded())
    for found in metrics:
        several, other = step(state, one_each)
        state = jax.tree.map(lambda x: x[0], several)
        chex.assert_trees_all_close(found, jax.tree.map(lambda x: x[0], other), rtol=1e-3, atol=1e-5)
    chex.assert_trees_all_close((states[-1].params, states[-1].batch_stats), (state.params, state.batch_stats),
                                rtol=1e-3, atol=1e-5)
    _, step = stepped(seeds=True)
    state = jax.tree.map(lambda *x: jnp.stack(x), init(jax.random.key(SEED + 1), recorded()), states[0])
    for _ in metrics:
        state, _ = step(state, recorded())
    chex.assert_trees_all_close(states[-1].params, jax.tree.map(lambda x: x[1], state.params), rtol=1e-3, atol=1e-5)
    _, step = stepped()
    state = states[2]._replace(**{part: jax.device_put(jax.device_get(getattr(states[2], part))) for part in (
        "params", "batch_stats", "opt_state")})
    for _ in range(2):
        state, _ = step(state, recorded(77))
    chex.assert_trees_all_equal(state.params, states[-1].params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_sound_that_has_no_second_cut():
    short = {"audio": dataclasses.replace(SOUND["audio"], crop_seconds=2.1)}
    for sections, message in (
            (short, "data.preprocess.audio: .*0.5 s or more from the first; found .*seconds=3 and crop_seconds=2.1, "
                    "expected .* at least 1 more"),
            ({}, "data.preprocess.audio: .* not read as sound")):
        method = make_dropout(synchronised(), hearing()._replace(transform=make_transform({}, {}, sections)))
        with pytest.raises(UserError, match=message) as error:
            jax.eval_shape(method.init, jax.random.key(0), recorded())
        assert "\n" not in str(error.value)
