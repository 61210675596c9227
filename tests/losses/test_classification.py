"""Losses by hand, and on eight devices as on one."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.losses import classification

cross_entropy = jax.jit(classification.cross_entropy)
mean_squared_error = jax.jit(classification.mean_squared_error)
kl_divergence = jax.jit(jax.value_and_grad(classification.kl_divergence, (0, 1)))


def test_cross_entropy_by_hand():
    logits = np.log(np.float32([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])) + 7
    labels, weights = np.array([0, 1]), np.float32([3, 1])
    values = -np.log([0.5, 0.1])
    expected = (3 * values[0] + values[1]) / 4
    np.testing.assert_allclose(cross_entropy(logits, labels, weights), expected, rtol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits, labels), values.mean(), rtol=1e-5)
    without_jit = classification.cross_entropy(jnp.array(logits), labels, weights)
    np.testing.assert_allclose(without_jit, expected, rtol=1e-5)


def test_mean_squared_error_by_hand():
    a, b = np.float32([[1, 2], [0, 0]]), np.float32([[1, 4], [3, 1]])
    np.testing.assert_allclose(mean_squared_error(a, b), (2 + 5) / 2)
    np.testing.assert_allclose(mean_squared_error(a, b, np.array([False, True])), 5)


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
    loss = cross_entropy(np.zeros((300, 2), jnp.bfloat16), np.zeros(300, np.int32))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


def losses(params, x, labels, weights, axis_name=None):
    """A loss of every kind, of a linear model."""
    logits = x @ params
    return (classification.cross_entropy(logits, labels, weights, axis_name)
            + classification.mean_squared_error(logits, x[:, :3], weights, axis_name)
            + classification.kl_divergence(logits, x[:, 1:], 2.0, weights, axis_name))


def mean_gradient(params, x, labels, weights):
    loss_fn = functools.partial(losses, axis_name="devices")
    return jax.lax.pmean(jax.value_and_grad(loss_fn)(params, x, labels, weights), "devices")


one_device = jax.jit(jax.value_and_grad(losses))
eight_devices = jax.pmap(mean_gradient, axis_name="devices", in_axes=(None, 0, 0, 0))


@pytest.mark.parametrize("rows", ["some", "one", "none"])
def test_eight_devices_equal_one(rows):
    rng = np.random.default_rng(0)
    params = rng.normal(size=(4, 3)).astype(np.float32)
    x = rng.normal(size=(16, 4)).astype(np.float32)
    labels = rng.integers(0, 3, 16)
    row = np.arange(16)
    counts = {"some": (row > 6) & (row != 12), "one": row == 5, "none": row < 0}[rows]
    weights = counts * rng.uniform(0.5, 2.0, 16).astype(np.float32)

    loss, gradient = one_device(params, x, labels, weights)
    split = lambda a: a.reshape(8, 2, *a.shape[1:])
    losses_of_devices, gradients = eight_devices(params, split(x), split(labels), split(weights))
    np.testing.assert_allclose(losses_of_devices, np.full(8, loss), rtol=1e-5)
    np.testing.assert_allclose(gradients[3], gradient, rtol=1e-4, atol=1e-6)

    if rows == "none":
        assert loss == 0 and not gradient.any()
    else:       # what stands in rows that do not count makes no difference
        changed = np.where(counts[:, None], x, 5.0)
        np.testing.assert_allclose(one_device(params, changed, labels, weights)[0], loss, rtol=1e-6)
