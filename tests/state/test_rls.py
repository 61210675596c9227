"""Recursive least squares against its closed form, in float64."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.state import rls

DIM = 8
update = jax.jit(rls.update, static_argnames="axis_name")


def closed_form(means, alpha):
    means = np.asarray(means, np.float64)
    return np.linalg.inv(np.eye(means.shape[1]) + means.T @ means / alpha)


@functools.partial(jax.jit, static_argnames=("draw", "steps"))
def many_updates(draw, norm, alpha, *, steps):
    """State after updates on single features `draw(key)`, each scaled to `norm`."""
    def body(state, i):
        feature = draw(jax.random.fold_in(jax.random.key(0), i))
        feature = feature * norm / jnp.linalg.norm(feature)
        return rls.update(state, feature[None], alpha=alpha), None
    return jax.lax.scan(body, rls.init(DIM), jnp.arange(steps))[0]


def everywhere(key):
    """Features in all directions."""
    return jax.random.normal(key, (DIM,))


def subspace(key):
    """Features that never leave three dimensions, at an angle to the axes."""
    basis = jax.random.normal(jax.random.key(7), (3, DIM))
    return jax.random.normal(key, (3,)) @ basis


def decaying(key):
    """A common mean and ever smaller components around it."""
    mean, basis = jax.random.normal(jax.random.key(7), (2, DIM, DIM))
    return mean[0] + (jax.random.normal(key, (DIM,)) * jnp.exp(-2.0 * jnp.arange(DIM))) @ basis


def always_the_same(key):
    """One direction, again and again."""
    del key
    return jnp.arange(1.0, DIM + 1)


def test_two_updates_by_hand():
    state = update(rls.init(2), jnp.array([[2.0, 0.0], [0.0, 0.0]]), alpha=0.5)   # mean (1, 0)
    np.testing.assert_allclose(state.projection, [[1 / 3, 0], [0, 1]], atol=1e-5)
    state = update(state, jnp.array([[3.0, 1.0]]), alpha=0.5)       # k = (1, 1), h.k = 4
    expected = [[1 / 3 - 1 / 4.5, -1 / 4.5], [-1 / 4.5, 1 - 1 / 4.5]]
    np.testing.assert_allclose(state.projection, expected, atol=1e-5)


@pytest.mark.parametrize("rank, scale", [(DIM, 1), (2, 1), (2, 30)])
def test_closed_form_after_1000_updates(rank, scale):
    rng = np.random.default_rng(0)
    features = scale * rng.normal(size=(1000, 4, rank)) @ rng.normal(size=(rank, DIM))
    features = features.astype(np.float32)
    step = lambda state, x: (rls.update(state, x, alpha=0.1), None)
    state, _ = jax.jit(functools.partial(jax.lax.scan, step))(rls.init(DIM), features)
    np.testing.assert_allclose(state.projection, closed_form(features.mean(1), 0.1), atol=1e-4)


@pytest.mark.parametrize("draw", [everywhere, subspace, decaying, always_the_same])
def test_stays_symmetric_positive_definite(draw):
    for norm, alpha in [(1.0, 0.1), (30.0, 0.1), (30.0, 1e-4), (30.0, 1e-8)]:
        p = np.asarray(many_updates(draw, norm, alpha, steps=100_000).projection)
        np.testing.assert_array_equal(p, p.T)
        eigenvalues = np.linalg.eigvalsh(p.astype(np.float64))
        assert 0 < eigenvalues[0] and eigenvalues[-1] < 1.01, (norm, alpha, eigenvalues)


@pytest.mark.parametrize("draw, rank", [(subspace, 3), (always_the_same, 1)])
def test_unseen_directions_survive_20000_updates(draw, rank):
    for norm in (1.0, 30.0):
        p = np.asarray(many_updates(draw, norm, 0.1, steps=20_000).projection, np.float64)
        eigenvalues = np.linalg.eigvalsh(p)
        assert (eigenvalues[:rank] < 1e-4).all()
        np.testing.assert_allclose(eigenvalues[rank:], 1, atol=0.02)


def test_projection_takes_seen_directions_out_and_leaves_others():
    seen = jax.random.normal(jax.random.key(7), (3, DIM))           # the subspace's basis
    state = many_updates(subspace, 30.0, 0.1, steps=1000)
    gradient = seen.T @ jnp.array([[1.0, 2], [3, 4], [5, 6]])
    other = np.linalg.svd(seen)[2][3:].T
    assert np.abs(rls.project(state, gradient)).max() < 1e-3 * np.abs(gradient).max()
    np.testing.assert_allclose(rls.project(state, other), other, atol=1e-4)


def test_project_is_the_product_in_the_type_of_the_gradient():
    state = rls.RLSState(root=jnp.array([[1.0, 0.0], [0.5, 1.0]]))
    np.testing.assert_allclose(state.projection, [[1, 0.5], [0.5, 1.25]], atol=1e-5)
    gradient = jnp.array([[1.0, 2, 3], [4, 8, 12]])
    expected = np.array([[3, 6, 9], [5.5, 11, 16.5]])
    np.testing.assert_array_equal(rls.project(state, gradient), expected)
    half = rls.project(state, gradient.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half.astype(jnp.float32), expected)


def test_weights_pick_the_rows_of_the_mean():
    features = jax.random.normal(jax.random.key(1), (4, DIM))
    weights = jnp.array([True, False, True, False])
    expected = closed_form(np.asarray(features)[::2].mean(0, keepdims=True), 0.1)
    for step in (update, rls.update):       # with and without jit
        got = step(rls.init(DIM), features, alpha=0.1, weights=weights)
        np.testing.assert_allclose(got.projection, expected, atol=1e-5)


def test_no_counting_row_leaves_the_state_alone():
    state = many_updates(everywhere, 1.0, 0.1, steps=100_000)
    after = update(state, 3 * jnp.ones((4, DIM)), alpha=0.1, weights=jnp.zeros(4))
    np.testing.assert_array_equal(after.root, state.root)
    after = update(state, jnp.zeros((4, DIM)), alpha=0.1)
    np.testing.assert_array_equal(after.root, state.root)


def test_float32_for_bfloat16_features():
    features = jax.random.normal(jax.random.key(1), (4, DIM), jnp.bfloat16)
    got = update(rls.init(DIM), features, alpha=0.1).projection
    assert got.dtype == jnp.float32
    mean = np.asarray(features, np.float64).mean(0, keepdims=True)
    np.testing.assert_allclose(got, closed_form(mean, 0.1), atol=1e-5)


def test_eight_devices_equal_one_and_vmap_equals_each():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 8, 3, DIM)).astype(np.float32)       # steps, devices, rows
    weights = rng.random((2, 8, 3)) < 0.4
    weights[0, 2] = weights[1] = False                                  # second batch: no row
    devices = jax.pmap(
        lambda state, x, w: rls.update(state, x, alpha=0.1, weights=w, axis_name="devices"),
        axis_name="devices", in_axes=(None, 0, 0))

    one = eight = rls.init(DIM)
    for x, w in zip(features, weights):
        one = update(one, x.reshape(-1, DIM), alpha=0.1, weights=w.reshape(-1))
        replicas = devices(eight, x, w)
        np.testing.assert_array_equal(replicas.root, np.tile(replicas.root[0], (8, 1, 1)))
        eight = jax.tree.map(lambda x: np.asarray(x[0]), replicas)
    np.testing.assert_allclose(eight.projection, one.projection, atol=1e-6)

    seeds = jax.jit(jax.vmap(lambda x, w: rls.update(rls.init(DIM), x, alpha=0.1, weights=w)))
    runs = seeds(features[0], weights[0])
    for run, x, w in zip(runs.projection, features[0], weights[0]):
        each = update(rls.init(DIM), x, alpha=0.1, weights=w).projection
        np.testing.assert_allclose(run, each, atol=1e-6)
