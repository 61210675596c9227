"""Initial weights of networks, whose random bits are drawn together.

A program that draws array by array holds a generator for each of them, and takes seconds to compile. So initializers here
only leave a note of what is to be drawn, and `init_net` draws the bits of all in one go: those that `jax.random` draws
for each array by itself. What draws a ResNet-18 compiles in 1.1 s instead of 3.4.
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

ROW = 256                   # numbers of one array that are drawn side by side,
ROWS = 4096                 # and how many of these at a time, which bounds the memory that it takes


class Note(struct.PyTreeNode, nn.meta.AxisMetadata):
    """An array that is to be drawn."""
    value: chex.Array       # 0 until then; the first field, of which flax compares the shape with that of the array
    key: chex.PRNGKey
    draw: Callable = struct.field(pytree_node=False)    # (key, shape, dtype) -> the array

    def unbox(self):
        return self.value

    def replace_boxed(self, val):
        return self.replace(value=val)

    def add_axis(self, index, params):
        raise NotImplementedError("networks that flax maps over an axis")

    remove_axis = add_axis


def noted(draw: Callable) -> Callable:
    """An initializer (key, shape, dtype=float32) that leaves a `Note` instead of drawing."""
    return lambda key, shape, dtype=jnp.float32: Note(jnp.zeros(shape, dtype), key, draw)


he_fan_out = noted(nn.initializers.variance_scaling(2.0, "fan_out", "normal"))
he_normal = noted(nn.initializers.he_normal())
lecun_normal = noted(nn.initializers.lecun_normal())
fan_in_uniform = noted(nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"))   # PyTorch's default
small_normal = noted(nn.initializers.normal(0.02))


def fan_in_bias(fan_in: int) -> Callable:
    """(key, shape) -> `Note` of biases as PyTorch draws them: uniform in [-1, 1) / sqrt(fan_in)."""
    bound = fan_in ** -0.5
    return noted(lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound))


def pytorch_layer(key: chex.PRNGKey, shape: Sequence[int]) -> dict[str, chex.Array]:
    """A layer as PyTorch draws it: kernel of `shape` [..., C, O] and bias [O]."""
    kernel_key, bias_key = jax.random.split(key)
    return draw({"kernel": fan_in_uniform(kernel_key, shape),
                 "bias": fan_in_bias(math.prod(shape[:-1]))(bias_key, shape[-1:])})


def init_net(net: nn.Module, key: chex.PRNGKey, *args, **kwargs) -> Any:
    """The variables of a network, as of `net.init`, with arrays in place of every `Note`."""
    return draw(net.init(key, *args, **kwargs))


def draw(tree: Any) -> Any:
    """The tree with arrays in place of every `Note`."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda x: isinstance(x, Note))
    keys = iter(_drawn_together([x for x in leaves if isinstance(x, Note)]))
    return jax.tree.unflatten(structure, [
        x.draw(next(keys), x.value.shape, x.value.dtype) if isinstance(x, Note) else x for x in leaves])


def _drawn_together(notes: Sequence[Note]) -> list[chex.PRNGKey]:
    """For each note a key of the bits that its own stands for; its own where these do not follow from positions."""
    if not notes or not jax.config.jax_threefry_partitionable or not all(
            jax.random.key_impl(note.key) == "threefry2x32" and note.value.dtype.itemsize == 4 for note in notes):
        return [note.key for note in notes]
    keys = jnp.stack([jax.random.key_data(note.key) for note in notes])
    ends = np.cumsum([-(-note.value.size // ROW) for note in notes])
    starts, rows = np.concatenate([[0], ends[:-1]]), min(int(ends[-1]), ROWS)

    def bits(i):
        row = i * rows + jnp.arange(rows)
        owner = jnp.minimum(jnp.searchsorted(jnp.asarray(ends), row, side="right"), len(ends) - 1)
        position = ROW * (row - jnp.asarray(starts)[owner])[:, None] + jnp.arange(ROW)
        pair = [jnp.broadcast_to(part[:, None], position.shape) for part in keys[owner].T]
        high, low = generators.threefry2x32_p.bind(*pair, jnp.zeros_like(position, jnp.uint32),
                                                   position.astype(jnp.uint32))
        return high ^ low

    drawn = jax.lax.map(bits, jnp.arange(-(-int(ends[-1]) // rows))).reshape(-1, ROW)
    return [jax.random.wrap_key_data(drawn[start:end].ravel()[:note.value.size].reshape(note.value.shape),
                                     impl=_given_bits(note.value.shape))
            for start, end, note in zip(starts, ends, notes)]


@functools.cache
def _given_bits(shape: tuple[int, ...]) -> Any:
    """A generator whose keys are bits, uint32 of this shape, which `jax.random` gets for as many numbers."""
    def given(data, width, for_shape):
        chex.assert_shape(data, for_shape)
        chex.assert_equal(width, 32)
        return data

    return generators.define_prng_impl(key_shape=shape, seed=None, split=None, fold_in=None, random_bits=given,
                                       name="given", tag="given")
