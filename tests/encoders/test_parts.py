import jax.numpy as jnp
import numpy as np

from jaxmm.encoders import parts


def test_parts_are_equal_and_as_few_as_fit():
    assert parts.parts_in_cache(5, parts.IN_CACHE // 2) == 5
    assert parts.parts_in_cache(12, parts.IN_CACHE // 5) == 3
    assert parts.parts_in_cache(12, parts.IN_CACHE // 12) == 1
    assert parts.parts_in_cache(7, parts.IN_CACHE + 1) == 7
    np.testing.assert_array_equal(parts.part_of(jnp.arange(12), 2, 4), [6, 7, 8])


def test_sums_over_parts_are_those_over_the_whole():
    x, y = jnp.arange(12.0).reshape(6, 2), jnp.arange(6.0)
    for count in 1, 3, 6:
        found = parts.sum_over_parts(lambda x, y: x.T @ y, (2,), count, x, y)
        np.testing.assert_array_equal(found, [110, 125])
