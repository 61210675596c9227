import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.losses.discrepancy import central_moment_discrepancy

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(9, 3)).astype(np.float32), RNG.gamma(2.0, size=(6, 3)).astype(np.float32)
both = jax.jit(jax.value_and_grad(central_moment_discrepancy, argnums=(0, 1)))


def by_hand(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    moments = [[x.mean(0), *(((x - x.mean(0))**q).mean(0) for q in (2, 3, 4, 5))] for x in (a, b)]
    return sum(np.linalg.norm(m - n) for m, n in zip(*moments))


def test_against_numpy_and_symmetric():
    value, _ = both(A, B)
    np.testing.assert_allclose(value, by_hand(A, B), rtol=1e-5)
    np.testing.assert_allclose(both(B, A)[0], value, rtol=1e-6)
    np.testing.assert_allclose(both(A[::-1], B)[0], value, rtol=1e-5)


def test_a_shift_is_its_norm_and_nothing_else():
    """Moments are central, and taken of differences: far from zero no digits are lost."""
    shift = np.float32([3, 0, -4])
    whole = RNG.integers(-2, 3, size=(8, 3)).astype(np.float32)      # exact in float32 with their mean
    value, (_, grad) = both(whole, whole + shift)
    np.testing.assert_allclose(value, 5.0, rtol=1e-6)
    np.testing.assert_allclose(grad, np.tile(shift / 5 / 8, (8, 1)), atol=1e-6)
    np.testing.assert_allclose(both(whole + 4096, whole + 4096 + shift)[0], 5.0, rtol=1e-6)


def test_what_agrees_has_no_gradient():
    value, grads = both(A, A)
    assert value == 0
    for grad in grads:
        np.testing.assert_array_equal(grad, np.zeros_like(A))


@pytest.mark.parametrize("masked", [0, 1])
def test_rows_that_do_not_count(masked):
    """The others alone decide; where there are none, nothing does. Neither has the rest a gradient."""
    keep = np.arange(9) % 3 > 0
    rubbish = np.where(keep[:, None], A, 1e30).astype(np.float32)
    everyone = np.ones(6, bool)

    def loss(x, keep):
        return central_moment_discrepancy(*(((x, B, keep, everyone), (B, x, everyone, keep))[masked]))

    value, grad = jax.jit(jax.value_and_grad(loss))(rubbish, keep)
    np.testing.assert_allclose(value, by_hand(A[keep], B), rtol=1e-5)
    assert (grad[~keep] == 0).all() and (grad[keep] != 0).all() and np.isfinite(grad).all()
    value, grad = jax.jit(jax.value_and_grad(loss))(rubbish, np.zeros(9, bool))
    assert value == 0 and not grad.any()


def test_rows_spread_over_devices():
    """Moments are of all rows, not means of those of the devices; so is the gradient."""
    def on_devices(a, b):
        def loss(a, b):
            return central_moment_discrepancy(a, b, reduce=lambda x: jax.lax.psum(x, "devices"))

        value, grad = jax.value_and_grad(loss)(a, b)
        return value, grad / 3      # every device has the whole loss

    b = jnp.concatenate([B, B[:3] + 1])
    values, grads = jax.pmap(on_devices, axis_name="devices", devices=jax.devices()[:3])(
        A.reshape(3, 3, 3), b.reshape(3, 3, 3))
    value, (grad, _) = both(A, b)
    np.testing.assert_allclose(values, [value] * 3, rtol=1e-5)
    np.testing.assert_allclose(grads.reshape(9, 3), grad, rtol=1e-4, atol=1e-6)
