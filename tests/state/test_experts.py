"""Temperatures and weights of a product of experts, against what the data were drawn from."""
import numpy as np
from scipy.special import log_softmax

from jaxmm.state import experts

PRIOR = np.array([0.5, 0.3, 0.2])


def draw(rows, scale=(1.0, 1.0), seed=0):
    """Labels by PRIOR, and log p(y | x_m) of two noisy views that are independent given the label, times `scale`."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=rows, p=PRIOR)
    logits = {}
    for m, factor in zip("ab", scale):
        x = np.eye(3)[labels] * 2 + rng.normal(size=(rows, 3))
        logits[m] = (factor * log_softmax(2 * x + np.log(PRIOR), axis=1)).astype(np.float32)
    return labels, logits


def everywhere(rows):
    return {m: np.ones(rows, bool) for m in "ab"}


def nll(weights, logits, labels, present):
    z = np.log(PRIOR) + sum(w * present[m][:, None] * (log_softmax(np.float64(logits[m]), axis=1) - np.log(PRIOR))
                            for m, w in weights.items())
    return -log_softmax(z, axis=1)[np.arange(len(labels)), labels].mean()


def test_independent_views_have_weights_of_one_and_their_own_temperatures():
    """Where the product is the posterior itself; a scale of the logits is undone by the temperature."""
    labels, logits = draw(20000, scale=(3.0, 0.5))
    found = experts.fit(experts.init("ab", np.log(PRIOR)), logits, labels, everywhere(20000), weighted=True)
    np.testing.assert_allclose([found.temperature[m] for m in "ab"], [3.0, 0.5], rtol=0.05)
    np.testing.assert_allclose([found.weight[m] for m in "ab"], [1.0, 1.0], atol=0.05)
    equal = experts.fit(found, logits, labels, everywhere(20000), weighted=False)
    assert [float(equal.weight[m]) for m in "ab"] == [1.0, 1.0]
    assert {m: float(t) for m, t in equal.temperature.items()} == {m: float(t) for m, t in found.temperature.items()}


def test_weights_minimise_the_likelihood_where_rows_lack_modalities():
    """The same view twice counts once in all; what says nothing gets no weight, nor a view of no row one at all."""
    labels, logits = draw(2000)
    present = {"a": np.arange(2000) % 3 > 0, "b": np.arange(2000) % 5 > 0}
    filled = {m: np.where(present[m][:, None], z, np.nan) for m, z in logits.items()}
    found = experts.fit_weights(filled, np.log(PRIOR), labels, present)
    best = nll(found, logits, labels, present)
    for m in "ab":
        for change in (0.9, 1.1):
            assert nll(found | {m: found[m] * change}, logits, labels, present) > best
    twice = experts.fit_weights({m: logits["a"] for m in "ab"}, np.log(PRIOR), labels, everywhere(2000))
    assert abs(sum(twice.values()) - 1) < 0.1
    wrong = {"a": logits["a"], "b": logits["b"][::-1]}
    assert experts.fit_weights(wrong, np.log(PRIOR), labels, everywhere(2000))["b"] < 0.1
    never = everywhere(2000) | {"b": np.zeros(2000, bool)}
    assert experts.fit_weights(logits, np.log(PRIOR), labels, never)["b"] == 1.0
