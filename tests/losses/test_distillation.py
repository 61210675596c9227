"""Losses by hand."""
import jax
import numpy as np

from jaxmm.losses import distillation

mean_squared_error = jax.jit(distillation.mean_squared_error)
kl_divergence = jax.jit(jax.value_and_grad(
    lambda *args: distillation.kl_divergence(*args).sum(), (0, 1)))


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


def test_what_continual_methods_add_for_two_classes():
    """DER++ with weight 0.5: z' = (0, 0), z* = (1, 0); LwF: h* = (0, 0), z = (1, 0) at temperatures 1 and 2."""
    even, tilted = np.zeros((1, 2), np.float32), np.float32([[1, 0]])
    np.testing.assert_allclose(0.5 * mean_squared_error(even, tilted), [0.25])
    for t, expected in ((1.0, 0.1201), (2.0, 0.1237)):
        np.testing.assert_allclose(kl_divergence(tilted, even, t)[0], expected, atol=5e-5)


def test_kl_divergence_of_opposite_certainties():
    far = np.float32([[1e4, -1e4, 0]])
    loss, gradients = kl_divergence(far, -far, 2.0)
    np.testing.assert_allclose(loss, 2.0 ** 2 * 1e4)     # log p of the teacher's class: -2e4 / T
    assert np.isfinite(gradients[0]).all()
