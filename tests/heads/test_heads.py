import jax
import numpy as np

from jaxmm import heads

FEATURES = {"b": np.array([[1.0, 2.0]], np.float32), "a": np.array([[3.0]], np.float32)}


def test_concat_by_hand():
    params = {"kernel": {"a": np.array([[1.0, 0.0]]), "b": np.array([[0.0, 1.0], [1.0, -1.0]])},
              "bias": np.array([2.0, 4.0])}
    logits = heads.concat(2).apply(params, FEATURES)
    np.testing.assert_allclose(logits["a"], [[3 + 1, 0 + 2]])
    np.testing.assert_allclose(logits["b"], [[2 + 1, 1 - 2 + 2]])
    np.testing.assert_allclose(logits["fused"], [[7, 3]])


def test_separate_by_hand():
    params = {"a": {"kernel": np.array([[1.0, 2.0]]), "bias": np.array([1.0, 0.0])},
              "b": {"kernel": np.array([[1.0, 0.0], [0.0, 1.0]]), "bias": np.array([0.0, 5.0])}}
    logits = heads.separate(2).apply(params, FEATURES)
    np.testing.assert_allclose(logits["a"], [[4, 6]])
    np.testing.assert_allclose(logits["b"], [[1, 7]])
    np.testing.assert_allclose(logits["fused"], [[5, 13]])


def test_concat_starts_as_one_layer_over_the_whole_width():
    """The slices stack, by sorted modality, to one Glorot-normal kernel of the summed width."""
    params = heads.concat(30).init(jax.random.key(0), {"b": 120, "a": 50})
    whole = heads.linear_init(jax.random.key(0), 170, 30)["kernel"]
    np.testing.assert_array_equal(np.concatenate([params["kernel"]["a"], params["kernel"]["b"]]),
                                  whole)
    np.testing.assert_allclose(whole.std(), (2 / (170 + 30)) ** 0.5, rtol=0.05)
    assert params["kernel"]["a"].shape == (50, 30) and not params["bias"].any()
