"""Losses by hand, and on eight devices as on one."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.losses import classification

cross_entropy = jax.jit(classification.cross_entropy)
mean_squared_error = jax.jit(classification.mean_squared_error)
weighted_mean = jax.jit(classification.weighted_mean)
kl_divergence = jax.jit(jax.value_and_grad(
    lambda *args: classification.kl_divergence(*args).sum(), (0, 1)))


def test_cross_entropy_by_hand():
    logits = np.log(np.float32([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])) + 7
    labels = np.array([0, 1])
    for fn in cross_entropy, classification.cross_entropy:
        np.testing.assert_allclose(fn(logits, labels), -np.log([0.5, 0.1]), rtol=1e-5)


def test_weighted_mean_by_hand():
    values = np.float32([2, 6])
    np.testing.assert_allclose(weighted_mean(values), 4)
    np.testing.assert_allclose(weighted_mean(values, np.float32([3, 1])), 3)
    np.testing.assert_allclose(weighted_mean(values, np.array([False, True])), 6)


def test_mean_squared_error_by_hand():
    a, b = np.float32([[1, 2], [0, 0]]), np.float32([[1, 4], [3, 1]])
    np.testing.assert_allclose(mean_squared_error(a, b), [2, 5])


def test_kl_divergence_by_hand():
    teacher, student = np.float32([[0.5, 0.3, 0.2]]), np.float32([[0.2, 0.2, 0.6]])
    expected = np.sum(teacher * np.log(teacher / student))
    for t in (1.0, 4.0):    # logits t log p, softened by t, are p again
        loss, gradients = kl_divergence(t * np.log(student), t * np.log(teacher), t)
        np.testing.assert_allclose(loss, t ** 2 * expected, rtol=1e-5)
        np.testing.assert_allclose(gradients[0], t * (student - teacher), atol=1e-5)
        assert not gradients[1].any()


def test_kl_divergence_of_opposite_certainties():
    far = np.float32([[1e4, -1e4, 0]])
    loss, gradients = kl_divergence(far, -far, 2.0)
    np.testing.assert_allclose(loss, 2.0 ** 2 * 1e4)     # log p of the teacher's class: -2e4 / T
    assert np.isfinite(gradients[0]).all()


def test_bfloat16_logits_are_averaged_in_float32():
    values = cross_entropy(np.zeros((300, 2), jnp.bfloat16), np.zeros(300, np.int32))
    assert values.dtype == jnp.float32
    mean = weighted_mean(values.astype(jnp.bfloat16))
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(weighted_mean(values), np.log(2), rtol=1e-6)
