"""Contrastive losses by hand."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.losses.contrastive import contrast

EYE, ALL = jnp.eye(2), jnp.ones(2, bool)


@pytest.mark.parametrize("alike, divide, expected", [
    (False, None, 0.3133), (True, None, 0.8133), (False, 2, 0.1566), (True, 2, 0.8133)])
def test_two_rows_in_two_modalities(alike, divide, expected):
    """g_a = g_v = (1, 0), (0, 1) at temperature 1, of two labels or of one; divided by the rows, as released."""
    positive = jnp.ones((2, 2), bool) if alike else EYE > 0
    np.testing.assert_allclose(contrast(EYE, EYE, positive, ALL, 1.0, divide=divide).mean(), expected, atol=5e-5)


def test_one_positive_and_one_negative():
    """f = (1, 0); one that is not valid is neither, and without a positive there is no loss."""
    def loss(f, valid):
        return contrast(f, EYE, jnp.array([[True, False]]), jnp.array(valid), 1.0)[0]

    np.testing.assert_allclose(loss(EYE[:1], [True, True]), 0.3133, atol=5e-5)
    np.testing.assert_allclose(loss(EYE[:1], [True, False]), 0, atol=1e-7)
    assert loss(EYE[:1], [False, True]) == 0
    np.testing.assert_array_equal(jax.grad(loss)(EYE[:1], [False, False]), 0)
