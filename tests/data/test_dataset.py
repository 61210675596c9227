import numpy as np

from jaxmm.batch import make_batch
from jaxmm.data.dataset import statistics


def test_statistics_by_rank():
    """Vectors by feature, channels by channel, matrices and all else as one."""
    rng = np.random.default_rng(0)
    inputs = {"vector": rng.normal(3, 2, size=(50, 4)), "matrix": rng.normal(size=(50, 3, 5)),
              "image": rng.integers(0, 255, (50, 3, 5, 2)).astype(np.uint8),
              "frames": rng.normal(size=(50, 2, 3, 5, 2)), "constant": np.ones((50, 2))}
    found = statistics(make_batch(inputs, np.zeros(50)))
    axes = {"vector": 0, "matrix": None, "image": (0, 1, 2), "frames": (0, 1, 2, 3)}
    for m, axis in axes.items():
        mean, std = found[m]
        np.testing.assert_allclose(mean, inputs[m].astype(float).mean(axis), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(std, inputs[m].astype(float).std(axis), rtol=1e-5)
    np.testing.assert_array_equal(found["constant"][1], 1)


def test_missing_rows_do_not_count():
    x = np.array([[1.0], [3.0], [np.nan]])
    batch = make_batch({"sound": x}, np.zeros(3), present={"sound": [True, True, False]})
    mean, std = statistics(batch)["sound"]
    np.testing.assert_allclose([mean[0], std[0]], [2, 1])
