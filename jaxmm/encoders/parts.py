"""Parts of a batch that are small enough for what is made of them to stay in the cache of a CPU."""
import chex
from jax import lax

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
