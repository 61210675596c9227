"""Parts of a batch that are small enough for what is made of them to stay in the cache of a CPU."""
from collections.abc import Callable, Sequence

import chex
from jax import lax
import jax.numpy as jnp

IN_CACHE = 2**24    # bytes of what is made of a part: patches, or points and their products


def parts_in_cache(count: int, each: int) -> int:
    """The least number of equal parts of `count` examples of `each` bytes that fit `IN_CACHE`, or all one by one."""
    return next(parts for parts in range(1, count + 1) if count % parts == 0 and (
        count // parts * each <= IN_CACHE or parts == count))


def part_of(x: chex.Array, i: chex.Numeric, count: int) -> chex.Array:
    """The i-th of `count` equal parts of a batch.

    A slice of the whole, since a reshaped x would be computed once more from what it is made of.
    """
    return lax.dynamic_slice_in_dim(x, i * (len(x) // count), len(x) // count)


def sum_over_parts(fn: Callable, shape: Sequence[int], count: int, *batches: chex.Array) -> chex.Array:
    """The sum of fn(*parts), of this shape and float32, over `count` equal parts of the batches."""
    def add(total, i):
        return total + fn(*[part_of(x, i, count) for x in batches]), None

    return lax.scan(add, jnp.zeros(shape, jnp.float32), jnp.arange(count))[0]
