"""MBSD: who imitates whom, by hand."""
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.methods.mbsd import imitation


def test_the_worse_modality_imitates_the_better_one():
    """(.8, .2) and (.4, .6) of class 0, then of class 1, and twice the same."""
    a, b = (jnp.log(jnp.float32(p)) for p in ([[.8, .2]] * 3, [[.4, .6], [.4, .6], [.8, .2]]))
    label, distance = np.array([0, 1, 0]), .4**2
    of_a = .8 * np.log(.8 / .4) + .2 * np.log(.2 / .6)      # KL(p_a || p_b)
    of_b = .4 * np.log(.4 / .8) + .6 * np.log(.6 / .2)
    expected = [.4 * (distance + of_a), .4 * (distance + of_b), 0]
    np.testing.assert_allclose(imitation(a, b, label), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(imitation(b, a, label), expected, rtol=1e-4, atol=1e-7)
    # The lead is a constant. Without distances (their gradient is known), only the worse one moves.
    p, q = jnp.exp(a), jnp.exp(b)
    grads = jax.grad(lambda a, b: imitation(a, b, label).sum(), (0, 1))(a, b)
    of_distance = [p * (d - (p * d).sum(1, keepdims=True)) for p, d in ((p, p - q), (q, q - p))]
    worse = np.array([[[0], [1], [0]], [[1], [0], [0]]])
    np.testing.assert_allclose(grads[0], .4 * (of_distance[0] + worse[0] * (p - q)), atol=1e-6)
    np.testing.assert_allclose(grads[1], .4 * (of_distance[1] + worse[1] * (q - p)), atol=1e-6)
