import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.errors import UserError
from jaxmm.methods.fusion import FusedConfig
from jaxmm.methods.ogm_ge import OGMConfig
from jaxmm.methods.opm import OPMConfig, drop, probabilities
from jaxmm.train import setup as setup_lib

WIDTHS = {"sound": 3, "image": 4}


def test_probabilities_by_hand():
    q = probabilities({"a": 2.0, "b": 0.5, "c": 1.0}, 0.5, 0.5)
    np.testing.assert_allclose([q["a"], q["b"], q["c"]], [0.6904, 0, 0], rtol=1e-4)
    assert probabilities({"a": 9.0}, 0.9, 0.5)["a"] == 1 and probabilities({"a": 9.0}, 0.0, 0.5)["a"] == 0


def test_shares_that_are_dropped_and_how_the_rest_is_scaled():
    """theta = (3 * 0.5 + 2 * 0.2) / 6: the expected sum over all numbers stays."""
    ids = jnp.arange(4000)
    features = {m: jnp.ones((4000, n)) for m, n in {"a": 3, "b": 2, "c": 1}.items()}
    present = {"a": ids >= 0, "b": ids < 3000, "c": ids < 2000}
    q, batch = {"a": 0.5, "b": 0.2, "c": 0.0}, {"id": ids, "present": present}
    dropped = drop(jax.random.key(0), features, q, batch)
    for x in dropped.values():
        assert set(np.unique(np.round(x, 4))) <= {0.0, np.round(np.float32(1 / (1 - 1.9 / 6)), 4)}
        assert not np.ptp(x, axis=1).any()
    gone = {m: np.asarray(x[:, 0] == 0) for m, x in dropped.items()}
    np.testing.assert_allclose([gone[m][:2000].mean() for m in "abc"], [0.5, 0.2, 0], atol=0.04)
    # Without c, one of a and b stays; alone, a always does.
    assert not (gone["a"] & gone["b"])[2000:3000].any() and not gone["a"][3000:].any()
    assert 0.3 < gone["a"][2000:3000].mean() < 0.5 and gone["b"][2000:3000].any()
    # An example loses the same wherever it stands, and whatever else it has.
    turned = drop(jax.random.key(0), {m: h[::-1] for m, h in features.items()}, q,
                  {"id": ids[::-1], "present": {m: x[::-1] for m, x in present.items()}})
    chex.assert_trees_all_equal({m: x[::-1] for m, x in turned.items()}, dropped)


def test_steps_by_hand(step_of):
    """q_0 = 1 and lambda = 0: the modality that is ahead is dropped from all rows that have another one.

    Both have 4 features, so theta is 1/2, and without a bias yet z_f is twice the readout that is left.
    """
    present = {"sound": np.arange(8) > 1, "image": np.arange(8) != 4}
    rows, run = step_of(lambda base, rate: OPMConfig(base=base, slope=0.0, rate=rate), WIDTHS, present)
    dropped, early = run(1.0, 1.0, steps_done=5), run(1.0, 1.0, steps_done=4)
    logits = {m: np.asarray(z, np.float64) for m, z in dropped.outputs.items()}

    def loss(z):
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        return -log_p[np.arange(8), rows["label"]]

    score = {m: np.exp(-loss(logits[m]))[present[m]].mean() for m in WIDTHS}
    ahead, other = sorted(score, key=score.get, reverse=True)
    assert {m: dropped.metrics[f"dropped/{m}"] for m in WIDTHS} == {ahead: 1, other: 0}
    left = 2 * np.where(present[other][:, None], logits[other], logits[ahead])
    np.testing.assert_allclose(dropped.metrics["loss"], loss(left).mean(), rtol=1e-5)
    np.testing.assert_allclose(early.metrics["loss"], loss(logits["fused"]).mean(), rtol=1e-5)
    # In the warm-up, with q_0 = 0, or in no batch: the base.
    base = step_of(lambda: FusedConfig("concat"), WIDTHS, present)[1]()
    for step in (early, run(0.0, 1.0, steps_done=5), run(1.0, 0.0, steps_done=5)):
        chex.assert_trees_all_close(step.after.params, base.after.params, rtol=1e-4, atol=1e-6)


def test_with_ogm_it_is_ogm_ge_that_drops(step_of):
    """Gradients of what is left are slowed by the coefficients from before anything is dropped."""
    _, run = step_of(lambda base: OPMConfig(base=base, rate=1.0, ogm=True, alpha=0.4), WIDTHS)
    expected = step_of(lambda: OGMConfig(alpha=0.4), WIDTHS)[1](steps_done=5)
    found, dropped = run(0.0, steps_done=5), run(1.0, steps_done=5)
    chex.assert_trees_all_close(found.after.params, expected.after.params, rtol=1e-4, atol=1e-6)
    for m in WIDTHS:
        assert expected.metrics[f"coefficient/{m}"] == pytest.approx(dropped.metrics[f"coefficient/{m}"])
    assert run(0.0, steps_done=50).metrics["coefficient/sound"] == 1


def test_what_does_not_suit_it_is_refused(make_dataset, make_config):
    with pytest.raises(UserError, match="opm.*needs two or more; use unimodal"):
        setup_lib.build(make_config("opm", modalities=("sound",)), dataset=make_dataset({"sound": (3,)}))
    with pytest.raises(UserError, match="method.rate=1.5; expected a share in"):
        setup_lib.build(make_config(OPMConfig(rate=1.5)), dataset=make_dataset())
