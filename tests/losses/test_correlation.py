"""Canonical correlations against values by hand, symmetric roots in NumPy, and their closed gradient."""
import jax
import numpy as np
import pytest

from jaxmm.losses import correlation

RNG = np.random.default_rng(0)
ROWS = 50
X = RNG.normal(size=(ROWS, 5)).astype(np.float32)
Y = (X[:, :4] + RNG.normal(size=(ROWS, 4))).astype(np.float32)
HAS_X, HAS_Y = RNG.random((2, ROWS)) < 0.6
ALL = np.ones(ROWS, bool)

moments = jax.jit(correlation.moments, static_argnames="impute")
directions = jax.jit(lambda sums, r: correlation.directions(correlation.covariances(sums), r, 3))
loss_and_gradient = jax.jit(jax.value_and_grad(correlation.correlation_loss, (0, 1)), static_argnames="impute")


def loss(x, y, r, has_x=True, has_y=True, **options):
    rows = np.ones(len(x), bool)
    return loss_and_gradient(np.asarray(x, np.float32), np.asarray(y, np.float32), rows & has_x, rows & has_y,
                             r, **options)


def roots(x, y, r):
    """S_xx^-1/2, S_yy^-1/2 and S_xy in float64."""
    x, y = (np.asarray(v, np.float64) - np.mean(v, 0, np.float64) for v in (x, y))
    found = []
    for v in (x, y):
        variances, axes = np.linalg.eigh(v.T @ v / (len(v) - 1) + r * np.eye(v.shape[1]))
        found.append(axes / np.sqrt(variances) @ axes.T)
    return *found, x.T @ y / (len(x) - 1)


def reference(x, y, r):
    """(rho, directions of x, of y)."""
    root_x, root_y, cross = roots(x, y, r)
    u, rho, vt = np.linalg.svd(root_x @ cross @ root_y, full_matrices=False)
    return rho, root_x @ u, root_y @ vt.T


def filled(x, has_x):
    return np.where(has_x[:, None], x, x[has_x].mean(0, np.float64))


def test_one_number_of_each_view_by_hand():
    u, v = np.array([[1, 2, 3, 4], [1, 3, 2, 4]], float)[..., None]
    np.testing.assert_allclose(loss(u, v, 0.0)[0], -0.8, rtol=1e-6)


def test_views_that_agree_by_hand():
    """Variances 8/3 and 2/3: the sum of l / (l + r)."""
    x = [[2, 0], [-2, 0], [0, 1], [0, -1]]
    np.testing.assert_allclose(loss(x, x, 1e-3)[0], -1.998127, rtol=1e-6)
    np.testing.assert_allclose(loss(x, x, 2.0)[0], -(8 / 14 + 2 / 8), rtol=1e-6)


@pytest.mark.parametrize("r", [0.0, 0.5])
def test_directions_are_those_of_symmetric_roots(r):
    """Their variates have unit variance, r included, and without it correlate by rho."""
    rho, a, b = directions(moments(X, Y, ALL, ALL), r)
    expected = reference(X, Y, r)
    np.testing.assert_allclose(rho, expected[0][:3], rtol=1e-5)
    for found, known, x in ((a, expected[1], X), (b, expected[2], Y)):
        np.testing.assert_allclose(np.abs(found), np.abs(known[:, :3]), atol=1e-4)
        variance = np.cov(x.T) + r * np.eye(x.shape[1])
        np.testing.assert_allclose(found.T @ variance @ found, np.eye(3), atol=1e-5)
    between = np.corrcoef((X @ a).T, (Y @ b).T)[:3, 3:]
    assert (np.diag(between) > 0.3).all()
    if not r:
        np.testing.assert_allclose(between, np.diag(rho), atol=1e-5)
    assert (a[np.abs(a).argmax(0), np.arange(3)] > 0).all()
    np.testing.assert_allclose(correlation.correlations(correlation.covariances(moments(X, Y, ALL, ALL)), r),
                               expected[0], rtol=1e-5)


@pytest.mark.parametrize("impute", correlation.IMPUTE)
def test_what_is_missing_is_the_mean_or_left_out(impute):
    """And is never read."""
    both = HAS_X & HAS_Y
    x, y = (filled(X, HAS_X), filled(Y, HAS_Y)) if impute == "mean" else (X[both], Y[both])
    rho, a, _ = directions(moments(X, Y, HAS_X, HAS_Y, impute=impute), 0.1)
    expected = reference(x, y, 0.1)
    np.testing.assert_allclose(rho, expected[0][:3], rtol=1e-5)
    np.testing.assert_allclose(np.abs(a), np.abs(expected[1][:, :3]), atol=1e-4)
    value, gradients = loss(X, Y, 0.1, HAS_X, HAS_Y, impute=impute)
    np.testing.assert_allclose(value, -expected[0].sum(), rtol=1e-5)
    for hidden in (np.nan, 1e30):
        other = (np.where(has[:, None], v, hidden).astype(np.float32) for v, has in ((X, HAS_X), (Y, HAS_Y)))
        again, others = loss(*other, 0.1, HAS_X, HAS_Y, impute=impute)
        assert again == value
        for gradient, same, has in zip(gradients, others, (HAS_X, HAS_Y)):
            np.testing.assert_array_equal(same, gradient)
            assert not gradient[~has].any() and gradient[has].any()


def test_moments_of_two_batches_add_up():
    whole = moments(X, Y, HAS_X, HAS_Y)
    parts = [moments(X[i:i + 25], Y[i:i + 25], HAS_X[i:i + 25], HAS_Y[i:i + 25]) for i in (0, 25)]
    for a, b, total in zip(*parts, whole):
        np.testing.assert_allclose(a + b, total, rtol=1e-4, atol=1e-4)


def test_gradient_is_the_closed_one():
    """Equations 11-13 of Andrew et al. (2013)."""
    r = 0.1
    root_x, root_y, cross = roots(X, Y, r)
    u, rho, vt = np.linalg.svd(root_x @ cross @ root_y, full_matrices=False)
    between = root_x @ u @ vt @ root_y
    within = [-root @ (axes * rho) @ axes.T @ root / 2 for root, axes in ((root_x, u), (root_y, vt.T))]
    x, y = X - X.mean(0, np.float64), Y - Y.mean(0, np.float64)
    expected = ((2 * x @ within[0] + y @ between.T) / (ROWS - 1), (2 * y @ within[1] + x @ between) / (ROWS - 1))
    value, gradients = loss(X, Y, r)
    np.testing.assert_allclose(value, -rho.sum(), rtol=1e-5)
    for found, known in zip(gradients, expected):
        np.testing.assert_allclose(found, -known, atol=1e-5)


def test_gradients_are_finite_at_views_that_agree_and_at_dead_units():
    """Where those of eigenvectors are not."""
    white = np.linalg.qr(X - X.mean(0))[0] * 7
    dead = np.where(np.arange(5) == 2, 3.0, X)
    for x, y in ((white, white), (dead, Y), (dead, dead), (np.zeros_like(X), Y)):
        value, gradients = loss(x, y, 1e-3)
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)
    assert loss(white, white, 1e-3)[0] == pytest.approx(-5 / (1 + 1e-3), rel=1e-5)


@pytest.mark.parametrize("impute", correlation.IMPUTE)
def test_without_a_row_that_has_both_nothing_is_learned(impute):
    value, gradients = loss(X, Y, 1e-3, HAS_X, ~HAS_X, impute=impute)
    assert value == 0 and not np.any(gradients[0]) and not np.any(gradients[1])
    found = directions(moments(X, Y, HAS_X, ~HAS_X, impute=impute), 1e-3)
    assert all(np.isfinite(x).all() for x in found) and not found[0].any()


def test_columns_that_are_orthogonal_do_not_correlate():
    x, y = np.linalg.qr(X - X.mean(0))[0], np.linalg.qr(np.c_[X - X.mean(0), Y - Y.mean(0)])[0][:, 5:]
    np.testing.assert_allclose(loss(x, y, 1e-3)[0], 0, atol=1e-6)


def test_neither_an_invertible_map_of_a_view_nor_a_shift_changes_anything():
    """Far from zero, too, where float32 has few digits left for squares."""
    value, _ = loss(X, Y, 1e-7)
    mapped = (X - 2) @ (np.eye(5) + np.triu(np.ones((5, 5)), 1))
    np.testing.assert_allclose(loss(mapped, Y, 1e-7)[0], value, rtol=1e-5)
    np.testing.assert_allclose(loss(X + 1000, Y - 3000, 0.1)[0], loss(X, Y, 0.1)[0], rtol=1e-4)
