import math
from fractions import Fraction

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm import shapley
from jaxmm.errors import UserError
from jaxmm.methods.fusion import FusedConfig
from jaxmm.methods.smv import SMVConfig, contributions, repeats, shares
from jaxmm.train import setup as setup_lib

WIDTHS = {"sound": 3, "image": 4}


@pytest.mark.parametrize("right, expected, times", [
    (("a", "v", "av"), (1, 1), (0, 0)), (("a", "av"), (1.5, 0.5), (0, 1)), (("a",), (0.5, -0.5), (1, 3)),
    ((), (0, 0), (2, 2)), (("av",), (1, 1), (0, 0))])
def test_values_and_repeats_by_hand(right, expected, times):
    """The last row lacks v: a has the whole value of what it predicts, with or without v."""
    label, wrong = jnp.eye(2)[jnp.zeros(3, int)], jnp.eye(2)[jnp.ones(3, int)]
    z = {s: label if "".join(s) in right else wrong for s in shapley.subsets("av")[1:]}
    alone = "a" in right
    z = {s: x.at[2].set([alone, not alone] if "a" in s else [0, 1]) for s, x in z.items()}
    present = {"a": np.ones(3, bool), "v": np.array([True, True, False])}
    phi = contributions(z, np.zeros(3, int), present)
    np.testing.assert_array_equal(np.stack([phi["a"], phi["v"]], 1), [expected, expected, (alone, 0)])
    np.testing.assert_array_equal([n[0] for n in repeats(phi).values()], times)


def test_repeats_are_whole_where_values_are_rounded():
    """Of games of four, in float32, as in exact fractions."""
    rng = np.random.default_rng(0)
    right = {s: rng.random(60) < 0.6 for s in shapley.subsets("abcd")[1:]}
    z = {s: jnp.where(x[:, None], jnp.eye(2)[:1], jnp.eye(2)[1:]) for s, x in right.items()}
    n = repeats(contributions(z, np.zeros(60, int), dict.fromkeys("abcd", np.ones(60, bool))))
    weight = {k: Fraction(math.factorial(k) * math.factorial(3 - k), math.factorial(4)) for k in range(4)}
    for m in "abcd":
        for i in range(60):
            v = {(): 0} | {s: len(s) * int(right[s][i]) for s in right}
            phi = sum(weight[len(s)] * (v[tuple(sorted({*s, m}))] - v[s]) for s in v if m not in s)
            assert n[m][i] == max(0, math.ceil(2 * (1 - phi)))


def test_shares_by_hand():
    values = {"a": [1, 0.5, -np.inf], "b": [0, 0, 0.75], "c": [-1, -3, -2]}
    values = {m: np.float32(x) for m, x in values.items()}
    np.testing.assert_allclose(list(shares(values, 0.6).values()), [0, 0.4 * 0.5, 1], rtol=1e-6)
    unseen = shares(values | {"c": np.full(3, -np.inf, np.float32)}, 0.6)
    np.testing.assert_allclose([unseen["a"], unseen["b"]], [0, 0.2], rtol=1e-6)


@pytest.mark.parametrize("level", ["sample", "modality"])
def test_a_step_against_numpy(level, step_of):
    """Without a bias yet, the output with one modality alone is its readout; the warm-up is the base."""
    present = {"sound": np.arange(8) > 1, "image": np.arange(8) != 4}
    rows, run = step_of(lambda alpha: SMVConfig(level=level, alpha=alpha), WIDTHS, present)
    step = run(1.3, steps_done=5)
    z = {m: np.asarray(x, np.float64) for m, x in step.outputs.items()}
    label = rows["label"]

    def loss(z):
        return np.log(np.exp(z).sum(1)) - z[np.arange(8), label]

    right = {m: x.argmax(1) == label for m, x in z.items()}
    alone = {m: right[m] * present[m] for m in WIDTHS}
    value = right["fused"] * (present["sound"] + 1.0 * present["image"])
    phi = {m: np.where(present[m], (alone[m] + value - alone[o]) / 2, -np.inf)
           for m, o in (("sound", "image"), ("image", "sound"))}
    means = {m: x[present[m]].mean() for m, x in phi.items()}
    expected = {"fused": loss(z["fused"]).mean()}
    for m in WIDTHS:
        n = {"sample": np.maximum(np.ceil(2 - 2 * phi[m]), 0),
             "modality": 2 / 3 * 1.3 * (max(means.values()) - means[m])}[level]
        expected[m] = np.where(present[m], n * loss(z[m]), 0.0).mean()
        np.testing.assert_allclose(step.after.extra["values"][m], phi[m])
        np.testing.assert_allclose(step.metrics[f"value/{m}"], means[m], rtol=1e-6)
    assert len(set(means.values())) == 2 and max(expected[m] for m in WIDTHS) > 0
    for name, x in expected.items():
        np.testing.assert_allclose(step.metrics[f"loss/{name}"], x, rtol=1e-5, atol=1e-7)
    if level == "sample":
        early, base = run(1.3, steps_done=4), step_of(lambda: FusedConfig("concat"), WIDTHS, present)[1]()
        chex.assert_trees_all_close(early.after.params, base.after.params, rtol=1e-4, atol=1e-6)
        chex.assert_trees_all_equal(early.after.extra, step.after.extra)


def test_what_does_not_suit_it_is_refused(make_dataset, make_config):
    with pytest.raises(UserError, match="smv.*needs two or more; use unimodal"):
        setup_lib.build(make_config("smv", modalities=("sound",)), dataset=make_dataset({"sound": (3,)}))
    with pytest.raises(UserError, match="method.level='class'; expected one of sample, modality"):
        setup_lib.build(make_config(SMVConfig(level="class")), dataset=make_dataset())
