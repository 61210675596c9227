import itertools

import jax
import numpy as np
import pytest

from jaxmm.methods.imagination import hide

NAMES = ("flow", "image", "sound")


def given(present, probability=0.5, seed=0, ids=None):
    """[M, B] of what `hide` leaves of the masks [M, B]."""
    ids = np.arange(present.shape[1]) if ids is None else ids
    masks = jax.jit(hide)(jax.random.key(seed), ids, dict(zip(NAMES, present)), probability)
    return np.stack([masks[m] for m in NAMES[:len(present)]])


def test_what_is_hidden_of_what():
    """Each of n is kept with 1 - p, or as the one of n that is left where all were drawn."""
    patterns = np.array(list(itertools.product([False, True], repeat=3))).T
    present = np.repeat(patterns, 4000, axis=1)
    for p in (0.3, 0.8):
        kept = given(present, p)
        assert not (kept & ~present).any()
        np.testing.assert_array_equal(kept.any(0), present.any(0))
        for pattern, rows in list(zip(patterns.T, np.split(kept, 8, axis=1)))[1:]:
            n = pattern.sum()
            np.testing.assert_allclose(rows[pattern].mean(1), 1 - p + p**n / n, atol=0.03)
            assert rows[pattern].all(0).mean() == pytest.approx((1 - p)**n if n > 1 else 1, abs=0.03)
    np.testing.assert_array_equal(given(present, 0.0), present)
    np.testing.assert_array_equal(given(present, 1.0).sum(0), present.any(0))


def test_draws_follow_from_key_name_and_id_alone():
    """Not from the place in the batch, nor from which others there are, unless nothing would be left."""
    present = np.ones((3, 200), bool)
    kept, order = given(present), np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(given(present, ids=order), kept[:, order])
    assert 100 < (given(present, seed=1) != kept).sum() < 500
    assert (kept[0] != kept[1]).any() and (kept[1] != kept[2]).any()
    np.testing.assert_array_equal(given(present[:2]).all(0), kept[:2].all(0))
