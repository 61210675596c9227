"""se_add by hand; MMTM against the released module (nyukat/greedy_multimodal_learning, run with torch 2.13)."""
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.encoders import exchange
from jaxmm.errors import UserError
from jaxmm.losses import weighted_mean

TRUTH = np.load(pathlib.Path(__file__).with_name("mmtm.npz"))
NAMES = ("skeleton", "visual")
MMTM = exchange.mmtm((0,))
ALL = {m: np.ones(3, bool) for m in NAMES}
apply = jax.jit(functools.partial(MMTM.apply, mean=weighted_mean), static_argnames="train")


def layer(name, columns=slice(None)):
    return {"kernel": TRUTH[f"weights/{name}.weight"][:, columns].T,
            "bias": TRUTH[f"weights/{name}.bias"]}


# The released layer reads [visual, skeleton]; ours the modalities in alphabetical order.
PARAMS = {"squeeze": layer("fc_squeeze", np.roll(np.arange(16), 8)),
          "gate": {m: layer(f"fc_{m}") for m in NAMES}}
MAPS = {m: TRUTH[f"input/{m}"].transpose(0, 2, 3, 1) for m in NAMES}
STATS = MMTM.init(jax.random.key(0), {m: (3, 4, 5, 8) for m in NAMES})[1]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_pass_and_its_gradients_are_those_of_the_released_module():
    maps, stats = apply(PARAMS, STATS, MAPS, ALL, train=True)
    for m in NAMES:
        close(maps[m], TRUTH[f"output/{m}"].transpose(0, 2, 3, 1))
        close(stats[m]["mean"], TRUTH[f"output/squeeze_{m}"].mean(0))

    def loss(params, maps):
        return sum((x ** 2).sum() for x in apply(params, STATS, maps, ALL, train=True)[0].values())

    params, inputs = jax.grad(loss, (0, 1))(PARAMS, MAPS)
    close(params["squeeze"]["kernel"].T[:, np.roll(np.arange(16), 8)],
          TRUTH["output/gradient/fc_squeeze.weight"])
    close(params["gate"]["visual"]["kernel"].T, TRUTH["output/gradient/fc_visual.weight"])
    close(params["gate"]["skeleton"]["bias"], TRUTH["output/gradient/fc_skeleton.bias"])
    for m in NAMES:
        close(inputs[m], TRUTH[f"output/gradient_input/{m}"].transpose(0, 2, 3, 1))


def test_gates_are_one_half_at_zero_maps_and_maps_may_have_any_rank():
    shapes = {"a": (2, 3, 4, 5, 6), "b": (2, 8), "c": (2, 9, 4)}
    params, stats = MMTM.init(jax.random.key(0), shapes)
    assert params["squeeze"]["kernel"].shape == (18, 9)
    present = {m: np.ones(2, bool) for m in shapes}

    def gates(scale):
        """d maps / d inputs where all of them are `scale`, less what comes through the gates."""
        maps = {m: jnp.full(s, scale) for m, s in shapes.items()}
        return {m: x / scale for m, x in apply(params, stats, maps, present, train=False)[0].items()}

    for m, gate in gates(1e-20).items():
        np.testing.assert_allclose(gate, np.full(shapes[m], 0.5), rtol=1e-6)
    assert any(np.ptp(np.asarray(gate)) > 0.01 for gate in gates(1.0).values())


def test_an_absent_modality_enters_as_its_running_mean():
    """The mean over passes of the means over the examples that have it; none leaves it as it is."""
    present = ALL | {"visual": np.array([True, False, False])}
    _, stats = apply(PARAMS, STATS, MAPS, present, train=True)
    _, stats = apply(PARAMS, stats, MAPS, ALL, train=True)
    squeezes = TRUTH["output/squeeze_visual"]
    expected = (squeezes[0] + squeezes.mean(0)) / 2
    close(stats["visual"]["mean"], expected)
    nobody = ALL | {"visual": np.zeros(3, bool)}
    absent, after = apply(PARAMS, stats, MAPS, nobody, train=True)
    jax.tree.map(np.testing.assert_array_equal, after["visual"], stats["visual"])
    shown = MAPS | {"visual": np.broadcast_to(expected, MAPS["visual"].shape)}
    close(absent["skeleton"], apply(PARAMS, stats, shown, ALL, train=True)[0]["skeleton"])


@pytest.mark.parametrize("train", [True, False])
def test_statistics_move_in_training_alone(train):
    _, stats = apply(PARAMS, STATS, MAPS, ALL, train=train)
    assert float(stats["visual"]["passes"]) == train


@pytest.mark.parametrize("number, m", [(0, "visual"), (1, "skeleton")])
def test_gates_of_one_that_is_alone_are_their_running_means(number, m):
    """Those of three passes, the last one included; nothing of it flows back through them."""
    second = {k: TRUTH[f"input/second_{k}"].transpose(0, 2, 3, 1) for k in NAMES}
    _, stats = apply(PARAMS, STATS, MAPS, ALL, train=True)
    _, stats = apply(PARAMS, stats, second, ALL, train=True)
    alone = {k: np.bool_(k == m) for k in NAMES}
    for k in NAMES:
        close(stats[k]["gate"], TRUTH[f"output/running_two_{k}"])
    maps, _ = apply(PARAMS, stats, MAPS, ALL, train=True, alone=alone)
    for k in NAMES:
        close(maps[k], TRUTH[f"output/rebalance_{number}/{k}"].transpose(0, 2, 3, 1))

    def loss(params, maps):
        return (apply(params, stats, maps, ALL, train=True, alone=alone)[0][m] ** 2).sum()

    params, inputs = jax.grad(loss, (0, 1))(PARAMS, MAPS)
    other, = set(NAMES) - {m}
    assert all(np.all(g == 0) for g in jax.tree.leaves((params, inputs[other])))
    assert np.any(inputs[m] != 0)


def test_means_of_squeezes_stand_for_the_other_modality():
    """As the released code replaces them, which here is to say that it is absent."""
    stats = {m: STATS[m] | {"mean": TRUTH[f"input/average_{m}"]} for m in NAMES}
    for m in NAMES:
        present = {k: np.full(3, k == m) for k in NAMES}
        close(apply(PARAMS, stats, MAPS, present, train=False)[0][m],
              TRUTH[f"output/replaced/{m}"].transpose(0, 2, 3, 1))


SE = exchange.se_add((0,), "main")


def weighed(params, x):
    """x sigmoid(V relu(W q + b) + d) with the mean q of x over positions, in NumPy."""
    q = x.mean((1, 2))
    e = np.maximum(q @ params["squeeze"]["kernel"] + params["squeeze"]["bias"], 0)
    return x / (1 + np.exp(-(e @ params["excite"]["kernel"] + params["excite"]["bias"])))[:, None, None]


def test_main_gets_what_the_others_see_and_they_go_on_as_they_are():
    """0 of what is absent; `main` gets nothing where it is alone, and is not touched by what absent rows hold."""
    rng = np.random.default_rng(0)
    maps = {m: rng.normal(size=(4, 2, 3, 32)).astype(np.float32) for m in ("main", "b", "c")}
    params, stats = SE.init(jax.random.key(0), {m: x.shape for m, x in maps.items()})
    assert params["b"]["squeeze"]["kernel"].shape == (32, 2) and stats == {}
    present = {"main": np.array([True, False, True, True]), "b": np.array([True, True, False, True]),
               "c": np.array([True, True, False, False])}
    maps["c"][2:] = np.nan
    found, _ = jax.jit(functools.partial(SE.apply, train=True, mean=weighted_mean))(params, stats, maps, present)
    expected = sum(np.where(present[m][:, None, None, None], weighed(params[m], x), 0) for m, x in maps.items())
    np.testing.assert_allclose(found["main"], expected, rtol=1e-5, atol=1e-6)
    for m in "bc":
        np.testing.assert_array_equal(found[m], maps[m])
    alone, _ = SE.apply(params, stats, maps, present, train=True, mean=weighted_mean,
                        alone={m: np.bool_(True) for m in maps})
    one, _ = SE.apply({"main": params["main"]}, {}, {"main": maps["main"]}, present, train=False, mean=weighted_mean)
    np.testing.assert_array_equal(alone["main"], one["main"])
    np.testing.assert_allclose(one["main"][0], weighed(params["main"], maps["main"])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 2, 3, 16), (4, 2, 6, 32)])
def test_maps_of_another_size_cannot_be_added(shape):
    with pytest.raises(UserError, match="what b sees has the shape .* where main has .2, 3, 32."):
        SE.init(jax.random.key(0), {"main": (4, 2, 3, 32), "b": shape})
