"""Divergence and contrast of modalities by hand, against loops, and where something is missing."""
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.losses.alignment import contrastive_loss, divergence_from_mean

RNG = np.random.default_rng(0)


def logs(*rows):
    return jnp.log(jnp.array(rows, jnp.float32))


def test_divergence_by_hand():
    """Opposite predictions are ln(1 / (2 sqrt(.16))) from the even one, which is their mean; equal ones 0."""
    logits = {"a": logs([.8, .2], [.8, .2], [.8, .2]), "b": logs([.2, .8], [.8, .2], [.2, .8])}
    present = {"a": np.ones(3, bool), "b": np.array([True, True, False])}
    np.testing.assert_allclose(divergence_from_mean(logits, present), [.2231, 0, 0], atol=1e-4)
    # A third one that the first example lacks says nothing there, whatever its logits.
    logits["c"], present["c"] = 1e4 * logs([.1, .9], [.8, .2], [.5, .5]), np.zeros(3, bool)
    np.testing.assert_allclose(divergence_from_mean(logits, present), [.2231, 0, 0], atol=1e-4)
    grads = jax.grad(lambda z: divergence_from_mean(z, present).sum())(logits)
    assert all(np.isfinite(g).all() for g in grads.values())
    assert not grads["c"].any() and not grads["b"][2].any()


def test_divergence_of_certain_predictions_is_finite():
    logits = {"a": jnp.array([[200.0, 0.0]]), "b": jnp.array([[200.0, 10.0]])}
    present = dict.fromkeys("ab", np.ones(1, bool))
    value, grads = jax.value_and_grad(lambda z: divergence_from_mean(z, present)[0])(logits)
    assert value == 0 and all(np.isfinite(g).all() for g in grads.values())


def test_contrast_against_a_loop():
    x, y = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    both = np.array([True, True, False, True, False])

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b) / 0.4

    rows = np.flatnonzero(both)
    expected = np.mean([np.log(sum(np.exp(cosine(*pair(i, j))) for j in rows)) - cosine(x[i], y[i])
                        for i in rows for pair in (lambda i, j: (x[i], y[j]), lambda i, j: (x[j], y[i]))])
    np.testing.assert_allclose(contrastive_loss(x, y, both, 0.4), expected, rtol=1e-5)
    # The lengths of features do not count, nor what rows hold that do not.
    other = np.where(both[:, None], 7 * x, 1e3)
    np.testing.assert_allclose(contrastive_loss(other, y, both, 0.4), expected, rtol=1e-5)
    np.testing.assert_array_equal(jax.grad(contrastive_loss)(x, y, both, 0.4)[~both], 0)


def test_nobody_to_contrast_is_no_loss():
    x = jnp.array(RNG.normal(size=(3, 2)))
    for both, rows in ((np.zeros(3, bool), x), (np.ones(3, bool), jnp.zeros((3, 2)))):
        value, grad = jax.value_and_grad(contrastive_loss)(rows, rows, both, 0.4)
        np.testing.assert_allclose(value, np.log(3) if both.any() else 0, rtol=1e-6)
        assert np.isfinite(grad).all()
