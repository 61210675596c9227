import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.encoders.norm import BatchNorm, moments

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, size=(16, 3, 2, 5)).astype(np.float32)
MASK = np.array([1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 0, 1, 0, 0], bool)   # uneven over 8 devices
PARAMS = {"scale": np.float32([0.5, 1, 1.5, 2, 3]), "bias": np.float32([0, 1, 2, 3, 4])}
STATS = {"mean": np.float32([-1, -0.5, 0, 0.5, 1]), "var": np.float32([1, 1.2, 1.5, 1.7, 2])}


def normalise(x, mask=None, train=True, axis_name=None):
    y, updated = BatchNorm(axis_name).apply({"params": PARAMS, "batch_stats": STATS}, x,
                                            train=train, mask=mask, mutable=["batch_stats"])
    return y, updated["batch_stats"]


def test_masked_statistics_are_those_of_the_rows_that_count():
    y, stats = normalise(X, MASK)
    mean, var = X[MASK].mean((0, 1, 2)), X[MASK].var((0, 1, 2))
    expected = (X - mean) / np.sqrt(var + 1e-5) * PARAMS["scale"] + PARAMS["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.9 * STATS["mean"] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 * STATS["var"] + 0.1 * var, rtol=1e-5)


def test_no_mask_is_a_full_mask_and_gradients_are_those_of_the_formula():
    weight = RNG.normal(size=X.shape).astype(np.float32)

    def formula(x):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (((x - mean) / jnp.sqrt(var + 1e-5) * PARAMS["scale"]) * weight).sum()

    def ours(x, mask):
        return (normalise(x, mask)[0] * weight).sum()

    expected = jax.grad(formula)(X)
    np.testing.assert_allclose(jax.grad(ours)(X, None), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(X, np.ones(16, bool)), expected, rtol=1e-4, atol=1e-5)


def test_no_row_keeps_the_statistics_and_normalises_with_them():
    def total(x):
        y, stats = normalise(x, np.zeros(16, bool))
        return y.sum(), (y, stats)

    gradient, (y, stats) = jax.grad(total, has_aux=True)(X)
    np.testing.assert_array_equal(stats["mean"], STATS["mean"])
    np.testing.assert_array_equal(stats["var"], STATS["var"])
    np.testing.assert_allclose(y, normalise(X, train=False)[0], rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_evaluation_uses_and_keeps_the_running_statistics():
    y, stats = normalise(X, MASK, train=False)
    expected = (X - STATS["mean"]) / np.sqrt(STATS["var"] + 1e-5) * PARAMS["scale"] + PARAMS["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(stats["var"], STATS["var"])


def test_eight_devices_with_uneven_masks_are_one():
    y, stats = normalise(X, MASK)
    shards = jax.tree.map(lambda v: v.reshape(8, 2, *v.shape[1:]), (X, MASK))
    sharded, sharded_stats = jax.pmap(lambda x, mask: normalise(x, mask, axis_name="device"),
                                      axis_name="device")(*shards)
    np.testing.assert_allclose(sharded.reshape(X.shape), y, rtol=1e-5, atol=1e-5)
    for name in stats:
        np.testing.assert_allclose(sharded_stats[name], np.tile(stats[name], (8, 1)), rtol=1e-5)


def test_bfloat16_statistics_are_float32():
    x = jnp.bfloat16(np.full((300, 1), 1.0))      # a bfloat16 sum stops growing at 256
    any_row, mean, var = moments(x)
    assert any_row and mean == 1.0 and var == 0.0 and mean.dtype == jnp.float32
    assert normalise(jnp.bfloat16(X))[0].dtype == jnp.bfloat16
