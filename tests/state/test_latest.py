import jax
import numpy as np

from jaxmm.state import latest


def test_the_newest_value_of_each_example_stays():
    values = latest.init(5)
    assert np.isnan(latest.mean(values))
    for ids, new, counts in (([3, 1, 0], [1.5, -0.5, 9.0], [True, True, False]),
                             ([1, 1, 2], [0.5, 7.0, -2.0], [True, False, True])):
        values = latest.update(values, np.array(ids), np.array(new), np.array(counts))
    np.testing.assert_array_equal(values, [-np.inf, 0.5, -2, 1.5, -np.inf])
    assert latest.mean(values) == 0


def test_values_of_all_devices_are_taken():
    ids, counts = np.array([[3, 1], [2, 1]]), np.array([[True, True], [True, False]])
    found = jax.vmap(lambda *rows: latest.update(latest.init(4), *rows, axis_name="devices"),
                     axis_name="devices")(ids, np.float32([[0.1, 0.2], [0.3, 0.4]]), counts)
    np.testing.assert_allclose(found, [[-np.inf, 0.2, 0.3, 0.1]] * 2, rtol=1e-6)
