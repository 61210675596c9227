"""Temperatures against a grid search, and at the ends of their range."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from jaxmm.state import calibration

fit = jax.jit(calibration.fit_temperature)


def nll(logits, labels, temperature):
    log_p = log_softmax(np.asarray(logits, np.float64) / temperature, axis=-1)
    return -log_p[np.arange(len(labels)), labels].mean()


def samples(scale):
    """Logits `scale` times those that the labels were drawn from."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (400, 5))
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1)
    return (scale * logits).astype(np.float32), labels


@pytest.mark.parametrize("scale", [5.0, 1.0, 0.2])      # over-, well and underconfident
def test_minimises_the_likelihood(scale):
    logits, labels = samples(scale)
    grid = scale * np.exp(np.linspace(-0.4, 0.4, 4001))
    best = grid[np.argmin([nll(logits, labels, t) for t in grid])]
    temperature = float(fit(logits, labels))
    np.testing.assert_allclose(temperature, best, rtol=1e-3)
    assert nll(logits, labels, temperature) <= nll(logits, labels, 1.0)


def test_rows_of_weight_zero_do_not_count():
    logits, labels = samples(5.0)
    padded = np.concatenate([logits, np.zeros_like(logits)])
    padded[-1] = 1e4 * np.arange(5)
    labels = np.concatenate([labels, np.zeros_like(labels)])
    expected = fit(logits, labels[:400])
    np.testing.assert_allclose(fit(padded, labels, np.arange(800) < 400), expected, rtol=1e-5)


def test_same_without_jit():
    logits, labels = samples(5.0)
    temperature = calibration.fit_temperature(jnp.array(logits), jnp.array(labels))
    np.testing.assert_allclose(temperature, fit(logits, labels), rtol=1e-5)


def test_one_where_nothing_can_be_learned():
    logits, labels = samples(5.0)
    assert fit(logits, labels, np.zeros(400)) == 1.0
    assert fit(np.zeros_like(logits), labels) == 1.0


@pytest.mark.parametrize("margin", [1.0, 50.0, 1e4])
def test_ends_of_the_range(margin):
    labels = np.arange(6) % 3
    separable = np.float32(margin) * np.eye(3, dtype=np.float32)[labels]
    np.testing.assert_allclose(fit(separable, labels), 0.05, rtol=1e-5)
    np.testing.assert_allclose(fit(separable, (labels + 1) % 3), 20.0, rtol=1e-5)
