import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.errors import UserError
from jaxmm.train.optimizers import (PLATEAU, accumulate, by_encoder, make_optimizer, make_schedule,
                                    update_plateau)
from jaxmm.train.plan import Epoch, make_epoch

EPOCH = make_epoch([np.arange(10)], TrainConfig(batch_size=1))
PARAMS = {"sound": {"w": jnp.array([1.0, -2.0])}, "head": {"w": jnp.array([3.0])}}
GRADS = {"sound": {"w": jnp.array([0.3, 0.4])}, "head": {"w": jnp.array([1.2])}}


@pytest.mark.parametrize("name, reference", [
    ("sgd", optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.01, momentum=0.9))),
    ("nesterov", optax.chain(optax.add_decayed_weights(0.1),
                             optax.sgd(0.01, momentum=0.9, nesterov=True))),
    ("rmsprop", optax.chain(optax.add_decayed_weights(0.1), optax.rmsprop(0.01))),
    ("adagrad", optax.chain(optax.add_decayed_weights(0.1), optax.adagrad(0.01))),
    ("adadelta", optax.chain(optax.add_decayed_weights(0.1), optax.adadelta(0.01))),
    ("adam", optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.01))),
    ("adamw", optax.adamw(0.01, weight_decay=0.1))])
def test_three_updates_are_those_of_optax(name, reference):
    config = OptimizerConfig(name=name, learning_rate=0.01, weight_decay=0.1, schedule="constant")
    if name == "nesterov":
        config.name, config.nesterov = "sgd", True
    optimizer = make_optimizer(config, 10, EPOCH)
    params, opt_state = PARAMS, optimizer.init(PARAMS)
    expected, reference_state = PARAMS, reference.init(PARAMS)
    for step in range(3):
        params, opt_state = optimizer.update(GRADS, opt_state, params, step)
        updates, reference_state = reference.update(GRADS, reference_state, expected)
        expected = optax.apply_updates(expected, updates)
    chex.assert_trees_all_close(params, expected, rtol=1e-6)


def test_groups_without_gradient_are_not_returned():
    optimizer = make_optimizer(OptimizerConfig(), 10, EPOCH)
    params, opt_state = optimizer.update({"head": GRADS["head"]}, optimizer.init(PARAMS), PARAMS, 0)
    assert set(params) == set(opt_state) == {"head"}


def test_scale_multiplies_the_rate_of_a_group():
    optimizer = make_optimizer(OptimizerConfig(), 10, EPOCH)
    args = GRADS, optimizer.init(PARAMS), PARAMS, 0
    params, opt_state = optimizer.update(*args)
    scaled, scaled_state = optimizer.update(*args, {"sound": 0.25})
    np.testing.assert_allclose(scaled["sound"]["w"] - PARAMS["sound"]["w"],
                               0.25 * (params["sound"]["w"] - PARAMS["sound"]["w"]), rtol=1e-3)
    chex.assert_trees_all_equal((scaled["head"], scaled_state), (params["head"], opt_state))


@pytest.mark.parametrize("name, steps", [("sgd", 1), ("adamw", 1), ("sgd", 2)])
def test_encoders_have_their_own_rates_and_frozen_ones_no_part_in_it(name, steps):
    """As with the rate for `scale`, on top of it, and as if the frozen group were not there."""
    config = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.5, clip_norm=1.0, schedule="constant")
    plain = accumulate(make_optimizer(config, 10, EPOCH), steps)
    own = by_encoder(plain, {"sound": EncoderConfig(rate=0.5), "image": EncoderConfig(frozen=True, rate=3.0)})
    with_image = [tree | {"image": {"w": jnp.array([5.0])}} for tree in (GRADS, PARAMS)]
    found, expected = (PARAMS, own.init(with_image[1])), (PARAMS, plain.init(PARAMS))
    assert set(found[1]) == {"sound", "head"}
    for step in range(4):
        found = own.update(with_image[0], found[1], found[0], step, {"sound": 0.5, "image": 2.0},
                           {"image": jnp.array(True)})
        expected = plain.update(GRADS, expected[1], expected[0], step, {"sound": 0.25})
        chex.assert_trees_all_equal(found, expected)
    assert by_encoder(plain, {"sound": EncoderConfig()}) is plain


def test_clipping_takes_the_norm_over_all_groups():
    """The gradient (0.3, 0.4, 1.2) has norm 1.3; clipped to 0.13 it is a tenth of itself."""
    config = OptimizerConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.13,
                             schedule="constant")
    optimizer = make_optimizer(config, 10, EPOCH)
    params, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS, 0)
    chex.assert_trees_all_close(
        params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, GRADS), rtol=1e-5)


def test_schedules():
    config = OptimizerConfig(learning_rate=1.0, decay_epochs=2, decay_rate=0.1)
    step_decay = make_schedule(config, 10)
    np.testing.assert_allclose([step_decay(Epoch(*at, 10)) for at in (
        (0, 0), (1, 9), (2, 0), (3, 9), (4, 0))], [1, 1, 0.1, 0.1, 0.01], rtol=1e-5)
    config.schedule = "cosine"
    cosine = make_schedule(config, 10)
    np.testing.assert_allclose([cosine(Epoch(*at, 4)) for at in ((0, 0), (2, 2), (5, 0), (10, 0))],
                               [1, (1 + np.cos(np.pi / 4)) / 2, 0.5, 0], atol=1e-6)
    config.schedule = "constant"
    assert make_schedule(config, 10)(Epoch(7, 7, 10)) == 1.0


def test_warm_up_multiplies_any_schedule():
    """Two epochs of four steps: the first step has an eighth, the eighth all of the rate."""
    config = OptimizerConfig(learning_rate=8.0, decay_epochs=3, decay_rate=0.5, warmup_epochs=2.0)
    schedule = make_schedule(config, 10)
    np.testing.assert_allclose([schedule(Epoch(*at, 4)) for at in (
        (0, 0), (0, 3), (1, 2), (1, 3), (2, 0), (3, 0))], [1, 4, 7, 8, 8, 4], rtol=1e-6)
    with pytest.raises(UserError, match="warmup_epochs=2.0; expected between 0 and the 1"):
        make_schedule(config, 1)


def test_one_cycle_rises_for_three_tenths_and_falls_by_halves_of_cosines():
    schedule = make_schedule(OptimizerConfig(learning_rate=2.0, schedule="one_cycle"), 10)
    low = 2 / 25
    expected = [low, (low + 2) / 2, 2, (2 + low / 1e4) / 2, low / 1e4]
    found = [float(schedule(Epoch(*at, 2))) for at in ((0, 0), (1, 1), (3, 0), (6, 1), (10, 0))]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_plateau_is_that_of_pytorch():
    """Patience 1: the second evaluation in a row that is no better lowers the rate, by hand."""
    config = OptimizerConfig(schedule="plateau", patience=1, decay_rate=0.5, learning_rate=1.0,
                             momentum=0.0, weight_decay=0.0)
    optimizer = make_optimizer(config, 10, EPOCH)
    opt_state, rates = optimizer.init(PARAMS), []
    for score in (0.5, 0.6, 0.6, 0.7, 0.7, 0.1, 0.6, 0.69, 0.8):
        opt_state = opt_state | {PLATEAU: update_plateau(opt_state[PLATEAU], score, config)}
        params, new = optimizer.update(GRADS, opt_state, PARAMS, 0)
        rates.append(float((PARAMS["head"]["w"] - params["head"]["w"])[0]) / 1.2)
        assert set(new) == set(PARAMS)
    np.testing.assert_allclose(rates, [1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25], rtol=1e-5)
    accumulated = accumulate(optimizer, 2)
    opt_state = accumulated.init(PARAMS)
    assert set(opt_state) == {*PARAMS, PLATEAU}
    params, _ = accumulated.update(GRADS, opt_state, PARAMS, jnp.int32(1))
    chex.assert_trees_all_close(params, jax.tree.map(lambda p, g: p - g, PARAMS, GRADS))


def test_decay_without_biases_and_norms():
    config = OptimizerConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.1, schedule="constant",
                             decay_vectors=False)
    optimizer = make_optimizer(config, 10, EPOCH)
    params = {"head": {"w": jnp.ones((2, 1)), "b": jnp.ones(1), "temperature": jnp.ones(())}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    found, _ = optimizer.update(zeros, optimizer.init(params), params, 0)
    chex.assert_trees_all_close(found["head"], params["head"] | {"w": jnp.full((2, 1), 0.9)})


@pytest.mark.parametrize("decay_epochs", [7, 41])
def test_step_decay_comes_at_the_step_for_every_length_of_an_epoch(decay_epochs):
    """A task for each length from 1 to 60, compiled, against Python's integers."""
    config = TrainConfig(epochs=50, batch_size=1)
    epoch = make_epoch([np.arange(length) for length in range(1, 61)], config)
    schedule = make_schedule(OptimizerConfig(
        learning_rate=1.0, decay_epochs=decay_epochs, decay_rate=0.5), 50)
    places = [(i // n, i % n, n) for n in range(1, 61) for i in range(50 * n)]
    at, rate = jax.jit(lambda steps: (epoch(steps), schedule(epoch(steps))))(
        jnp.arange(len(places), dtype=jnp.int32))
    np.testing.assert_array_equal(np.stack(at[:3], 1), places)
    np.testing.assert_array_equal(rate, [0.5 ** (done // decay_epochs) for done, _, _ in places])


def test_the_schedule_starts_anew_with_every_task():
    """Two tasks of 2 and 4 steps an epoch, two epochs each: steps 0-3 and 4-11."""
    config = TrainConfig(epochs=2, batch_size=4)
    epoch = make_epoch([np.arange(8), np.arange(16)], config)
    np.testing.assert_allclose([epoch(s).fraction for s in (0, 1, 3, 4, 5, 8, 11)],
                               [0, 0.5, 1.5, 0, 0.25, 1, 1.75])
    optimizer = make_optimizer(OptimizerConfig(
        learning_rate=1.0, momentum=0.0, weight_decay=0.0, decay_epochs=1), 2, epoch)
    for step, rate in ((0, 1.0), (3, 0.1), (4, 1.0), (8, 0.1)):
        params, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS, step)
        chex.assert_trees_all_close(
            params, jax.tree.map(lambda p, g, r=rate: p - r * g, PARAMS, GRADS), rtol=1e-5)


@pytest.mark.parametrize("option, value", [
    ("name", "lamb"), ("schedule", "linear"), ("learning_rate", -1.0),
    ("learning_rate", float("nan")), ("weight_decay", -0.1), ("clip_norm", -1.0),
    ("decay_epochs", 0), ("decay_rate", 0.0), ("momentum", -1.0), ("patience", -1)])
def test_what_does_not_exist_is_refused(option, value):
    with pytest.raises(UserError, match=f"optimizer.{option}"):
        make_optimizer(OptimizerConfig(**{option: value}), 10, EPOCH)


def test_accumulated_updates_are_those_of_the_mean_gradient():
    """Three steps with gradients g, 2g, 3g make the one update of 2g, with clipping and momentum."""
    inner = make_optimizer(OptimizerConfig(learning_rate=0.1, clip_norm=1.0), 10, EPOCH)
    optimizer = accumulate(inner, 3)
    params, opt_state = PARAMS, optimizer.init(PARAMS)
    expected, inner_state = PARAMS, inner.init(PARAMS)
    for update in range(2):
        for factor in (1, 2, 3):
            chex.assert_trees_all_equal(params, expected)
            grads = jax.tree.map(lambda g, f=factor: f * g, GRADS)
            params, opt_state = optimizer.update(grads, opt_state, params,
                                                 jnp.int32(3 * update + factor - 1))
        expected, inner_state = inner.update(jax.tree.map(lambda g: 2 * g, GRADS), inner_state,
                                             expected, 3 * update + 2)
        chex.assert_trees_all_close(params, expected, rtol=1e-6)
        chex.assert_trees_all_close({g: s["inner"] for g, s in opt_state.items()}, inner_state,
                                    rtol=1e-6)
    assert accumulate(inner, 1) is inner
    with pytest.raises(UserError, match="train.accumulate=0"):
        accumulate(inner, 0)


def test_a_group_updated_twice_in_a_step_takes_what_came_before_first():
    optimizer = accumulate(make_optimizer(OptimizerConfig(
        learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant"), 10, EPOCH), 2)
    params, opt_state = {"head": jnp.float32(0)}, optimizer.init({"head": jnp.float32(0)})
    values = []
    for step, gradient in ((0, 1.0), (0, 2.0), (1, 3.0), (1, 4.0)):
        params, opt_state = optimizer.update({"head": jnp.float32(gradient)}, opt_state, params,
                                             step)
        values.append(float(params["head"]))
    assert values == [0.0, 0.0, -3.0, -5.0]     # (1 + 2 + 3) / 2, then 4 / 2


def test_a_group_that_is_not_due_stays_and_does_not_count():
    """Momentum and decay rest too; of three steps with gradients g, none, 3g the mean is 2g."""
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.1, schedule="constant")
    inner = make_optimizer(config, 10, EPOCH)
    params, opt_state = inner.update(GRADS, inner.init(PARAMS), PARAMS, 0)
    zeros = jax.tree.map(jnp.zeros_like, GRADS)
    due = {"sound": jnp.bool_(False), "head": jnp.bool_(True)}
    new_params, new_state = inner.update(zeros, opt_state, params, 1, None, due)
    chex.assert_trees_all_equal((new_params["sound"], new_state["sound"]),
                                (params["sound"], opt_state["sound"]))
    assert (new_params["head"]["w"] != params["head"]["w"]).all()

    sound = {"sound": PARAMS["sound"]}
    expected, _ = inner.update({"sound": jax.tree.map(lambda g: 2 * g, GRADS["sound"])},
                               inner.init(sound), sound, 2)
    for factors in ([1, None, 3], [1, 3, None]):       # it comes in the last step all the same
        optimizer = accumulate(inner, 3)
        params, opt_state = sound, optimizer.init(sound)
        for step, factor in enumerate(factors):
            grads = {"sound": jax.tree.map(lambda g, f=factor or 0: f * g, GRADS["sound"])}
            params, opt_state = optimizer.update(grads, opt_state, params, jnp.int32(step), None,
                                                 {"sound": jnp.bool_(factor is not None)})
            if step < 2:
                chex.assert_trees_all_equal(params, sound)
        chex.assert_trees_all_close(params, expected, rtol=1e-6)
    before = params, opt_state["sound"]["inner"]
    for step in (3, 4, 5):                              # nothing at all: nothing happens
        params, opt_state = optimizer.update(zeros | {}, opt_state | {"head": optimizer.init(PARAMS)["head"]},
                                             params | {"head": PARAMS["head"]}, jnp.int32(step), None,
                                             {"sound": jnp.bool_(False)})
        params = {"sound": params["sound"]}
    chex.assert_trees_all_equal((params, opt_state["sound"]["inner"]), before)
