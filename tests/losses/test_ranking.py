import jax
import numpy as np

from jaxmm.losses.ranking import ranking_loss

C = np.array([0.9, 0.2, 0.5], np.float32)
L = np.array([0.8, 0.3, 0.3], np.float32)


def test_three_examples_by_hand():
    """Pairs (0,1): harder and 0.7 more confident, margin 0.5: 0.2. (1,2): t = 0. (2,0): 0."""
    np.testing.assert_allclose(ranking_loss(C, L), 0.2 / 3, rtol=1e-5)
    # Only the pair that violates its margin has a gradient; difficulty has none.
    np.testing.assert_allclose(jax.grad(ranking_loss)(C, L), [1 / 3, -1 / 3, 0], rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(ranking_loss, 1)(C, L), 0)
    # Without example 1 only the pair (2, 0) counts; an easier example may be less confident too.
    np.testing.assert_allclose(ranking_loss(C, L, np.array([1, 0, 1])), 0)
    easier = np.array([0.1, 0.0, 1.0], np.float32)   # (2,0): 0.9 harder, 1.5 more confident
    np.testing.assert_allclose(ranking_loss(np.array([-0.5, 0, 1.0]), easier), 0.6 / 3, rtol=1e-5)
