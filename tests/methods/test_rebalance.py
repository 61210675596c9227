"""Re-balancing steps: which there are, what they train, and the rule that guides them."""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import OptimizerConfig
from jaxmm.errors import UserError
from jaxmm.methods import rebalance
from jaxmm.methods.rebalance import GuidedConfig, RebalanceConfig, SpeedState
from jaxmm.train import setup as setup_lib

TRUTH = np.load(pathlib.Path(__file__).with_name("speed.npz"))


def zero_speeds(*modalities):
    zeros = {m: jnp.zeros(()) for m in modalities}
    return SpeedState(zeros, zeros, jnp.int32(0), jnp.int32(0))


def test_mu_is_a_ratio_of_sums():
    assert rebalance.speed([jnp.array([1.0]), jnp.array([2.0])],
                           [jnp.array([3.0]), jnp.array([4.0])]) == pytest.approx(0.2)


def test_speeds_are_those_of_the_released_code():
    """Over three steps, of two modules; the shared layers count for both modalities."""
    speeds = zero_speeds("front", "rear")
    for step, expected in enumerate(TRUTH["speed"]):
        def tree(kind, step=step):
            def at(name):
                return {part: TRUTH[f"{step}/{kind}/{name}.{part}"] for part in ("weight", "bias")}

            return {"front": at("net_view_0")["weight"], "rear": at("net_view_1")["weight"],
                    "head": {"front": at("net_view_0")["bias"], "rear": at("net_view_1")["bias"]},
                    "exchange": {name: {"squeeze": at(f"{name}.fc_squeeze"), "gate": {
                        "front": at(f"{name}.fc_visual"), "rear": at(f"{name}.fc_skeleton")}}
                        for name in ("mmtm2", "mmtm3")}}

        speeds = rebalance.measure(speeds, tree("weight"), tree("gradient"))
        found = [x for m in ("front", "rear") for x in (speeds.bypass[m], speeds.main[m])]
        np.testing.assert_allclose(found, expected[:4], rtol=1e-5)
        s = np.log10(np.divide(found[::2], found[1::2]))
        assert s[0] - s[1] == pytest.approx(expected[4], rel=1e-4)


@pytest.mark.parametrize("bypass, main, bound, active, left, slow", [
    ((0.4, 0.5), (0.2, 0.5), 0.01, True, 5, 0),         # d = 0.30103
    ((0.5, 0.4), (0.5, 0.2), 0.3010, True, 5, 1),
    ((0.4, 0.5), (0.2, 0.5), 0.3011, True, 0, 0),
    ((0.4, 0.5), (0.2, 0.5), 0.01, False, 0, 0),
    ((0.1, 0.1, 0.2), (0.1, 0.1, 0.1), 0.01, True, 5, 2)])
def test_the_guided_rule(bypass, main, bound, active, left, slow):
    names = "abc"[:len(main)]
    speeds = zero_speeds(*names)._replace(main=dict(zip(names, map(jnp.float32, main))),
                                          bypass=dict(zip(names, map(jnp.float32, bypass))))
    guided = rebalance.guide(speeds, jnp.bool_(active), bound, 5)
    assert (int(guided.left), int(guided.slow) if left else 0) == (left, slow)


def run(config, make_dataset, make_config, steps, **optimizer):
    """State and metrics before and after each of so many steps; an epoch has two."""
    dataset = make_dataset(rows=(32, 8, 8))
    setup = setup_lib.build(make_config(config, epochs=steps, batch_size=16, optimizer=OptimizerConfig(
        learning_rate=0.1, schedule="constant", **optimizer)), dataset=dataset, devices=jax.devices()[:1])
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state, found = setup_lib.init_state(setup), []
    for i in range(steps):
        before = jax.device_get(state._replace(key=()))
        index = np.random.default_rng(i).permutation(32)[None, :16].astype(np.int32)
        state, metrics = setup.programs.steps(state, feed.at(index))
        alone = [m for m in ("image", "sound") if metrics[f"alone/{m}"][0]]
        found.append((before, jax.device_get(state._replace(key=())), alone))
    return found


def test_guided_steps_come_by_five_after_a_regular_one(make_dataset, make_config):
    """The warm-up is the first epoch, of two steps; speeds move in regular steps alone."""
    found = run(GuidedConfig(bound=0.0), make_dataset, make_config, 15)
    assert [len(alone) for _, _, alone in found] == [0, 0, 0, *[1] * 5, 0, *[1] * 5, 0]
    for before, after, alone in found:
        moved = float(after.extra["speeds"].main["image"] - before.extra["speeds"].main["image"])
        assert (moved > 0) == (not alone)
        if alone:
            assert alone == [("image", "sound")[int(before.extra["speeds"].slow)]]


def test_random_steps_are_of_all_kinds_after_the_warm_up(make_dataset, make_config):
    found = run(RebalanceConfig(), make_dataset, make_config, 26)
    kinds = [tuple(alone) for _, _, alone in found]
    assert kinds[:2] == [(), ()] and set(kinds) == {(), ("image",), ("sound",)}
    whole = run(RebalanceConfig(warmup_epochs=2), make_dataset, make_config, 4)
    assert [alone for _, _, alone in whole] == [[]] * 4


@pytest.mark.parametrize("updates", ["all", "own"])
def test_what_a_rebalancing_step_trains(updates, make_dataset, make_config):
    """With "own", everything but one encoder and its layer is frozen, momentum and decay included."""
    config = RebalanceConfig(warmup_epochs=0, updates=updates)
    for before, after, alone in run(config, make_dataset, make_config, 8, weight_decay=0.1):
        def parts(state):
            whole = {"params": state.params, "opt_state": state.opt_state}
            flat = {jax.tree_util.keystr(k): x for k, x in jax.tree_util.tree_leaves_with_path(whole)}
            return {k: x for k, x in flat.items() if np.size(x) > 1}

        old, new = parts(before), parts(after)
        stay = {k for k in old if np.array_equal(old[k], new[k])}
        frozen = {k for k in old if alone and not any(f"'{m}'" in k and "exchange" not in k for m in alone)}
        assert stay == (frozen if updates == "own" else set())


@pytest.mark.parametrize("config, message", [
    (RebalanceConfig(updates="some"), "method.updates='some'; expected one of all, own"),
    (RebalanceConfig(warmup_epochs=-1), "method.warmup_epochs=-1"),
    (GuidedConfig(bound=-1.0), "method.bound=-1"), (GuidedConfig(steps=0), "method.steps=0"),
    (GuidedConfig(stages=9), "mmtm_guided exchanges behind the last 9 stages")])
def test_options_that_cannot_be(config, message, make_dataset, make_config):
    with pytest.raises(UserError, match=message):
        setup_lib.build(make_config(config), dataset=make_dataset(), devices=jax.devices()[:1])
