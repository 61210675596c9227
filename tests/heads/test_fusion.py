"""Fusion by hand and in NumPy, with missing modalities and extreme logits."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from jaxmm.heads import fusion

RNG = np.random.default_rng(0)
LOGITS = {m: RNG.normal(0, 2, (4, 3)).astype(np.float32) for m in ["audio", "visual", "text"]}
PRESENT = {"audio": np.array([True, False, True, False]),
           "visual": np.array([True, True, False, False]),
           "text": np.array([True, True, False, False])}
TEMPERATURES = {"audio": 0.5, "visual": 1.0, "text": 3.0}

entropy_weighted = jax.jit(fusion.entropy_weighted)
confidence_weighted = jax.jit(fusion.confidence_weighted)
mean_logits = jax.jit(fusion.mean_logits)
product_of_experts = jax.jit(fusion.product_of_experts)


def test_entropy_weighted_equals_the_equations():
    z = np.stack([np.asarray(z, np.float64) for z in LOGITS.values()])
    e = entropy(softmax(z, axis=-1), axis=-1)
    weights = softmax(e.max(axis=0) - e, axis=0)
    fused, got = entropy_weighted(LOGITS)
    for i, modality in enumerate(LOGITS):
        np.testing.assert_allclose(got[modality], weights[i], rtol=1e-5)
    np.testing.assert_allclose(fused, (weights[..., None] * z).sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fused, fusion.entropy_weighted(LOGITS)[0], rtol=1e-5, atol=1e-6)


def test_entropy_weighted_by_hand():
    certain, uniform = np.float32([[0.0, 1000.0]]), np.float32([[3.0, 3.0]])     # entropy 0, log 2
    fused, weights = entropy_weighted({"audio": certain, "visual": uniform})
    np.testing.assert_allclose(weights["audio"], [2 / 3], rtol=1e-6)
    np.testing.assert_allclose(weights["visual"], [1 / 3], rtol=1e-6)
    np.testing.assert_allclose(fused, [[1.0, 2003 / 3]], rtol=1e-5)


@pytest.mark.parametrize("fuse", [
    lambda logits, present=None: entropy_weighted(logits, present)[0],
    lambda logits, present=None: confidence_weighted(logits, TEMPERATURES, present),
    mean_logits])
def test_missing_modality_might_as_well_not_exist(fuse):
    # Whatever the network makes of an input that is not there.
    nan = np.float32(np.nan)
    logits = LOGITS | {"audio": np.where(PRESENT["audio"][:, None], LOGITS["audio"], nan)}
    fused = fuse(logits, PRESENT)
    np.testing.assert_allclose(fused[0], fuse(LOGITS)[0], rtol=1e-5)
    pair, single = [{m: LOGITS[m] for m in names} for names in (["visual", "text"], ["audio"])]
    np.testing.assert_allclose(fused[1], fuse(pair)[1], rtol=1e-5)
    np.testing.assert_allclose(fused[2], fuse(single)[2], rtol=1e-5)
    assert not fused[3].any()


def test_weights_of_missing_modalities_are_zero():
    weights = entropy_weighted(LOGITS, PRESENT)[1]
    for modality, weight in weights.items():
        assert not weight[~PRESENT[modality]].any() and (weight[PRESENT[modality]] > 0).all()
    np.testing.assert_allclose(sum(weights.values()), [1, 1, 1, 0], rtol=1e-6)


def test_extreme_logits_and_their_gradient():
    logits = {"audio": np.float32([[1e4, -1e4, 0]] * 4), "visual": np.float32([[-1e4] * 3] * 4),
              "text": np.float32([[1e4, 1e4, -1e4]] * 4)}
    fused, weights = entropy_weighted(logits)
    expected = np.array([1, 1 / 3, 1 / 2]) / (1 + 1 / 3 + 1 / 2)       # exp(-0, -log 3, -log 2)
    np.testing.assert_allclose([weights[m][0] for m in logits], expected, rtol=1e-5)
    np.testing.assert_allclose(
        fused[0], 1e4 * (expected @ [[1, -1, 0], [-1, -1, -1], [1, 1, -1]]), rtol=1e-5)

    loss_fn = lambda z: jnp.sum(entropy_weighted(z, PRESENT)[0] ** 2)
    for gradient in jax.jit(jax.grad(loss_fn))(logits).values():
        assert np.isfinite(gradient).all() and not gradient[3].any()


def test_confidence_weighted_equals_its_formula():
    expected = sum(softmax(z / t, axis=-1).max(-1, keepdims=True) * z / t for z, t in (
        (np.asarray(LOGITS[m], np.float64), TEMPERATURES[m]) for m in LOGITS))
    np.testing.assert_allclose(
        confidence_weighted(LOGITS, TEMPERATURES), expected, rtol=1e-4, atol=1e-5)
    weights = fusion.confidences(LOGITS, TEMPERATURES, PRESENT)
    fused = sum(weights[m][:, None] * np.where(PRESENT[m][:, None], LOGITS[m] / TEMPERATURES[m], 0)
                for m in LOGITS)
    np.testing.assert_allclose(confidence_weighted(LOGITS, TEMPERATURES, PRESENT), fused, rtol=1e-4,
                               atol=1e-5)


def test_mean_logits_by_hand():
    logits = {"audio": np.float32([[1.0, 2.0]] * 2), "visual": np.float32([[3.0, 6.0]] * 2)}
    np.testing.assert_allclose(mean_logits(logits), [[2, 4]] * 2)
    present = {"audio": jnp.array([True, False]), "visual": jnp.array([True, True])}
    np.testing.assert_allclose(mean_logits(logits, present), [[2, 4], [3, 6]])


@pytest.mark.parametrize("prior, first, second, expected", [
    ((0.5, 0.5), (0.8, 0.2), (0.6, 0.4), (6 / 7, 1 / 7)), ((0.7, 0.3), (0.8, 0.2), (0.6, 0.4), (0.72, 0.28)),
    ((0.7, 0.3), (0.8, 0.2), None, (0.8, 0.2)), ((0.7, 0.3), None, None, (0.7, 0.3))])
def test_product_of_experts_by_hand(prior, first, second, expected):
    """By Bayes; one expert is itself, and none is the prior."""
    told = {"audio": first, "visual": second}
    logits = {m: np.log(np.float32([p or (np.nan, np.nan)])) for m, p in told.items()}
    present = {m: np.array([p is not None]) for m, p in told.items()}
    weights = dict.fromkeys(told, 1.0)
    fused = product_of_experts(logits, weights, weights, np.log(np.float32(prior)), present)
    np.testing.assert_allclose(softmax(fused, axis=-1), [expected], rtol=1e-5)


def test_product_of_experts_equals_the_equation():
    weights, prior = {"audio": 0.5, "visual": 2.0, "text": 0.0}, np.float32([0.2, 0.3, 0.5])
    got = softmax(product_of_experts(LOGITS, TEMPERATURES, weights, np.log(prior), PRESENT), axis=-1)
    for i in range(4):
        p = np.ones(3)
        total = 0.0
        for m in LOGITS:
            if PRESENT[m][i]:
                p, total = p * softmax(LOGITS[m][i] / TEMPERATURES[m]) ** weights[m], total + weights[m]
        p *= prior ** (1 - total)
        np.testing.assert_allclose(got[i], p / p.sum(), rtol=1e-4)
    # The order of the classes means nothing.
    order = np.array([2, 0, 1])
    turned = product_of_experts({m: z[:, order] for m, z in LOGITS.items()}, TEMPERATURES, weights,
                                np.log(prior[order]), PRESENT)
    np.testing.assert_allclose(softmax(turned, axis=-1), got[:, order], rtol=1e-5)
