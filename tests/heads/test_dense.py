import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from jaxmm.heads import dense


def one_hot(classes, count):
    return jnp.eye(count)[np.array(classes)]


def test_confusion_by_hand():
    """[[2, 1], [0, 3]] has the intersections over unions 2/3 and 3/4; void pixels are left out."""
    labels = np.array([[[0, 0, 0, -1], [1, 1, 1, -1]]])
    predicted = [[[0, 0, 1, 0], [1, 1, 1, 1]]]
    found = np.asarray(dense.confusion(one_hot(predicted, 2), labels))
    np.testing.assert_array_equal(found, [[[2, 1], [0, 3]]])
    assert found.dtype == np.int32
    right = np.diagonal(found[0])
    np.testing.assert_allclose(np.mean(right / (found[0].sum(0) + found[0].sum(1) - right)), 0.70833, atol=1e-5)


def test_confusion_is_that_of_scikit_learn_of_each_image():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(-1, 5, (3, 6, 8)), rng.normal(size=(3, 6, 8, 5)).astype(np.float32)
    found = jax.jit(dense.confusion)(logits, labels)
    for matrix, y, z in zip(found, labels, logits):
        known, predicted = y[y >= 0], z.argmax(-1)[y >= 0]
        np.testing.assert_array_equal(matrix, confusion_matrix(known, predicted, labels=range(5)))
        right = np.diagonal(matrix)
        np.testing.assert_allclose(right / (matrix.sum(0) + matrix.sum(1) - right),
                                   jaccard_score(known, predicted, labels=range(5), average=None), rtol=1e-6)


def test_logits_are_resized_between_the_centres_of_pixels():
    """Twice the size in one axis: a row at -1/4, 1/4, 3/4 and 5/4 of the rows before, the ends repeated."""
    logits = jnp.array([0.0, 4.0]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(dense.resized(logits, (4, 1))[0, :, 0, 0], [0, 1, 3, 4])
    np.testing.assert_array_equal(dense.resized(logits, (2, 1)), logits)
    two = jnp.concatenate([logits, 4.0 - 1.5 * logits], -1)     # at the rows: 0 < 4, 4 > -2
    np.testing.assert_array_equal(dense.classes(two, (4, 1))[0, :, 0], [1, 1, 0, 0])
    labels = np.array([1, 0, 0, -1]).reshape(1, 4, 1)
    np.testing.assert_array_equal(dense.confusion(two, labels), [[[1, 1], [0, 1]]])


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_a_prediction_at_four_times_the_size_and_side_outputs_at_their_own(dtype):
    """At the start, where a map is constant so are its logits but for the padding at the edges."""
    head = dense.dense(3)
    params = head.init(jax.random.key(0), {"fused": 4, "side_8": 6})
    maps = {"fused": jnp.ones((2, 8, 10, 4), dtype), "side_8": jnp.ones((2, 4, 5, 6), dtype)}
    logits = head.apply(params, maps)
    assert {name: z.shape for name, z in logits.items()} == {"fused": (2, 32, 40, 3), "side_8": (2, 4, 5, 3)}
    assert all(z.dtype == np.float32 for z in logits.values())
    for name in maps:
        kernel, bias = params["out"][name]["kernel"], params["out"][name]["bias"]
        z = logits[name]
        np.testing.assert_allclose(z[0, z.shape[1] // 2, z.shape[2] // 2], kernel.sum((0, 1, 2)) + bias, rtol=1e-4)
    assert head.last(params) == [("out", "fused"), ("out", "side_8")]
