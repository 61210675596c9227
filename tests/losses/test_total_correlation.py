"""The bound of TCMax by hand, and against the mean over every tuple."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.losses.total_correlation import log_mean_exp, log_mean_exp_of_sums, true_logits

RNG = np.random.default_rng(0)


def bound(parts, label, present=None):
    present = present or {m: np.ones(len(label), bool) for m in parts}
    return log_mean_exp_of_sums(parts, present) - jnp.mean(true_logits(sum(parts.values()), label))


@pytest.mark.parametrize("count, t, expected", [
    (2, 1, -0.7598), (2, 30, -np.log(4)), (3, 1, -1.1397), (2, 0, 0)])
def test_two_examples_by_hand(count, t, expected):
    """Each modality says t for the class of the example: the limit is minus the total correlation."""
    parts = {m: t * np.eye(2, dtype=np.float32) for m in "abc"[:count]}
    np.testing.assert_allclose(bound(parts, np.array([0, 1])), expected, atol=1e-4)


def test_a_constant_changes_nothing_however_large():
    parts = {m: RNG.normal(size=(4, 3)).astype(np.float32) for m in "ab"}
    label = np.array([0, 2, 1, 1])
    expected = bound(parts, label)
    np.testing.assert_allclose(bound({m: z + 100 for m, z in parts.items()}, label), expected, rtol=1e-4)
    large = {m: 1e4 * z for m, z in parts.items()}
    value, grads = jax.value_and_grad(lambda z: bound(z, label))(large)
    assert np.isfinite(value) and np.isfinite(grads["a"]).all()


@pytest.mark.parametrize("missing", [False, True])
def test_sums_are_those_over_every_tuple(missing):
    """And their gradients; the rows that lack a modality are in no tuple, and one that all lack in each."""
    parts = {m: RNG.normal(size=(4, 3)).astype(np.float32) for m in "abc"}
    present = {m: np.ones(4, bool) for m in "abc"}
    if missing:
        present |= {"a": np.array([True, False, True, False]), "b": np.zeros(4, bool)}
        parts["b"][:] = parts["b"][0]

    def of_tuples(parts):
        rows = [np.flatnonzero(present[m] if present[m].any() else ~present[m]) for m in parts]
        return log_mean_exp(jnp.stack([sum(z[j] for z, j in zip(parts.values(), tuple_))
                                       for tuple_ in itertools.product(*rows)]))

    found, grads = jax.value_and_grad(log_mean_exp_of_sums)(parts, present)
    expected, wanted = jax.value_and_grad(of_tuples)(parts)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for m in parts:
        np.testing.assert_allclose(grads[m], wanted[m], rtol=1e-4, atol=1e-6)
