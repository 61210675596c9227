"""Initial weights of networks, whose random numbers are drawn together.

A program that draws array by array holds a generator for each of them, and takes seconds to compile. So the
initializers here only note what is to be drawn, and `init_net` draws all of it at once: up to rounding the numbers that
`jax.random` draws for each array by itself. What draws a ResNet-18 compiles in 0.9 s instead of 3.4.
"""
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import chex
from flax import linen as nn
from flax import struct
import jax
from jax.extend import random as generators
import jax.numpy as jnp
import numpy as np

CUT = 0.87962566103423978   # standard deviation of a normal distribution that is cut off at -2 and 2
ROW = 256                   # numbers of one array that are drawn side by side,
ROWS = 4096                 # and how many of these at a time, which bounds the memory that it takes

# By name: (key, shape, dtype) -> numbers, and the factor, in float32, that makes their variance v.
LAWS = {"normal": (jax.random.normal, np.sqrt),
        "cut_normal": (lambda key, shape, dtype: jax.random.truncated_normal(key, -2, 2, shape, dtype),
                       lambda v: np.sqrt(v) / np.float32(CUT)),
        "uniform": (lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -1), lambda v: np.sqrt(3 * v))}


class Note(struct.PyTreeNode, nn.meta.AxisMetadata):
    """An array that is to be drawn."""
    value: chex.Array       # 0 until then; the first field, of which flax compares the shape with that of the array
    key: chex.PRNGKey
    law: str = struct.field(pytree_node=False)
    factor: float = struct.field(pytree_node=False)     # of the numbers of this law

    def unbox(self):
        return self.value

    def replace_boxed(self, val):
        return self.replace(value=val)

    def add_axis(self, index, params):
        raise NotImplementedError("networks that flax maps over an axis")

    remove_axis = add_axis


def normal(deviation: float) -> Callable:
    """(key, shape) -> `Note` of normal numbers."""
    return functools.partial(_note, "normal", deviation)


def uniform(bound: float) -> Callable:
    """(key, shape) -> `Note` of numbers that are uniform in [-bound, bound)."""
    return functools.partial(_note, "uniform", bound)


def variance_scaling(scale: float, fan: str, law: str) -> Callable:
    """(key, shape [..., C, O]) -> `Note` of numbers whose variance is scale / fan.

    Args:
      fan: "in" or "out", the number of inputs or outputs of a unit.
      law: of `LAWS`.
    """
    def note(key, shape, dtype=jnp.float32):
        units = {"in": math.prod(shape[:-1]), "out": math.prod(shape[:-2]) * shape[-1]}[fan]
        return _note(law, float(LAWS[law][1](np.float32(scale / units))), key, shape, dtype)

    return note


def fan_in_bias(fan_in: int) -> Callable:
    """(key, shape) -> `Note` of biases as PyTorch draws them: uniform in [-1, 1) / sqrt(fan_in)."""
    return uniform(fan_in ** -0.5)


def _note(law, factor, key, shape, dtype=jnp.float32):
    return Note(jnp.zeros(shape, dtype), key, law, factor)


he_fan_out = variance_scaling(2, "out", "normal")
he_fan_in = variance_scaling(2, "in", "cut_normal")     # flax's he_normal
lecun = variance_scaling(1, "in", "cut_normal")         # flax's default
fan_in_uniform = variance_scaling(1 / 3, "in", "uniform")   # PyTorch's default


def init_net(net: nn.Module, key: chex.PRNGKey, *args, **kwargs) -> Any:
    """The variables of a network, as of `net.init`, with arrays in place of every `Note`."""
    return draw(net.init(key, *args, **kwargs))


def draw(tree: Any) -> Any:
    """The tree with arrays in place of every `Note`."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda x: isinstance(x, Note))
    kinds = [isinstance(x, Note) and (x.law, x.value.dtype) for x in leaves]
    for kind in dict.fromkeys(filter(None, kinds)):
        places = [i for i, other in enumerate(kinds) if other == kind]
        for i, x in zip(places, _draw_together([leaves[i] for i in places], *kind), strict=True):
            leaves[i] = x
    return jax.tree.unflatten(structure, leaves)


def _draw_together(notes: Sequence[Note], name: str, dtype: jnp.dtype) -> list[chex.Array]:
    law, _ = LAWS[name]
    # In others the bits of a number do not follow from its position in an array, or are not 32.
    if (jax.random.key_impl(notes[0].key) != "threefry2x32" or not jax.config.jax_threefry_partitionable
            or dtype.itemsize != 4):
        return [law(note.key, note.value.shape, dtype) * note.factor for note in notes]
    keys = jnp.stack([jax.random.key_data(note.key) for note in notes])
    factors = np.array([note.factor for note in notes], np.float32)
    ends = np.cumsum([-(-note.value.size // ROW) for note in notes])
    starts, rows = np.concatenate([[0], ends[:-1]]), min(int(ends[-1]), ROWS)

    def numbers(i):
        row = i * rows + jnp.arange(rows)
        owner = jnp.minimum(jnp.searchsorted(jnp.asarray(ends), row, side="right"), len(ends) - 1)
        position = ROW * (row - jnp.asarray(starts)[owner])[:, None] + jnp.arange(ROW)
        pair = [jnp.broadcast_to(part[:, None], position.shape) for part in keys[owner].T]
        high, low = generators.threefry2x32_p.bind(*pair, jnp.zeros_like(position, jnp.uint32),
                                                   position.astype(jnp.uint32))
        given = jax.random.wrap_key_data(high ^ low, impl=_given_bits(position.shape))
        return law(given, position.shape, dtype) * jnp.asarray(factors)[owner][:, None]

    drawn = jax.lax.map(numbers, jnp.arange(-(-int(ends[-1]) // rows))).reshape(-1, ROW)
    return [drawn[start:end].ravel()[:note.value.size].reshape(note.value.shape)
            for start, end, note in zip(starts, ends, notes)]


@functools.cache
def _given_bits(shape: tuple[int, ...]) -> Any:
    """A generator whose keys are bits, uint32 of this shape, which `jax.random` gets for as many numbers."""
    def none(*args):
        raise NotImplementedError("keys of given bits are used once")

    def given(data, width, for_shape):
        chex.assert_shape(data, for_shape)
        chex.assert_equal(width, 32)
        return data

    return generators.define_prng_impl(key_shape=shape, seed=none, split=none, fold_in=none, random_bits=given,
                                       name="given", tag="given")
