"""Convolutions of 3 x 3 and stride 1 by 16 products where the definition has 36.

F(2 x 2, 3 x 3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308), section
4.1: a tile of 2 x 2 outputs is A^T [(G k G^T) * (B^T d B)] A for the tile d of 4 x 4 inputs around it. Channels are
summed within the brackets, so each of the 16 points of a tile is a product of matrices; the gradients are too. What is
multiplied takes four times the memory of inputs and outputs, so it is made for a part of the batch that stays in the cache.
"""
import chex
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

IN_CACHE = 2**24        # bytes of the factors and the product that are made at a time
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
BOTH = np.kron(G, G)    # takes k [9] to G k G^T [16]


@jax.custom_vjp
def convolve(x: chex.Array, kernel: chex.Array) -> chex.Array:
    """Convolves x [B, H, W, C] with kernel [3, 3, C, O], padded by one: [B, H, W, O]."""
    chex.assert_rank([x, kernel], 4)
    chex.assert_type([x, kernel], jnp.float32)
    chex.assert_shape(kernel, (3, 3, x.shape[-1], None))
    return _multiply(x, _kernel_points(kernel))


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(residuals, g):
    x, kernel = residuals
    # One after the other: side by side they would share the cache.
    kernel_gradient, g = lax.optimization_barrier((_kernel_gradient(x, g), g))
    return _multiply(g, _kernel_points(kernel[::-1, ::-1]).swapaxes(1, 2)), kernel_gradient


convolve.defvjp(_forward, _backward)


def _multiply(x, factors):
    """x [B, H, W, C] convolved with the kernel whose points are factors [16, C, O]."""
    def part(x):
        points = lax.optimization_barrier(_input_points(x))
        products = points.reshape(16, -1, points.shape[-1]) @ factors
        return _outputs(lax.optimization_barrier(products.reshape(*points.shape[:-1], -1)))[:, :x.shape[1], :x.shape[2]]

    count = _parts_of(x, sum(factors.shape[1:]))
    return lax.map(lambda i: part(part_of(x, i, count)), jnp.arange(count)).reshape(*x.shape[:-1], -1)


def _kernel_gradient(x, g):
    """[3, 3, C, O], from x [B, H, W, C] and the gradient g [B, H, W, O] of the result."""
    def add(total, i):
        points = _input_points(part_of(x, i, count)), _output_gradient_points(part_of(g, i, count))
        inputs, gradients = (p.reshape(16, -1, p.shape[-1]) for p in lax.optimization_barrier(points))
        return total + inputs.swapaxes(1, 2) @ gradients, None

    count = _parts_of(x, x.shape[-1] + g.shape[-1])
    total, _ = lax.scan(add, jnp.zeros((16, x.shape[-1], g.shape[-1])), jnp.arange(count))
    return (BOTH.T @ total.reshape(16, -1)).reshape(3, 3, *total.shape[1:])


def _kernel_points(kernel):
    """G k G^T of kernel [3, 3, C, O]: [16, C, O]."""
    return (BOTH @ kernel.reshape(9, -1)).reshape(16, *kernel.shape[2:])


def _input_points(x):
    """B^T d B of the tiles of x [B, H, W, C], padded by one: [4, 4, B, H / 2, W / 2, C]."""
    def points(d):
        return jnp.stack([d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]])

    x = _pairs(x, padding=1)
    height, width = x.shape[1] - 1, x.shape[3] - 1
    x = points([x[:, :, :, j // 2:j // 2 + width, j % 2] for j in range(4)])
    return points([x[:, :, i // 2:i // 2 + height, i % 2] for i in range(4)])


def _output_gradient_points(g):
    """A g A^T of the tiles of g [B, H, W, O]: [4, 4, B, H / 2, W / 2, O]."""
    def points(g):
        return jnp.stack([g[0], g[0] + g[1], g[0] - g[1], -g[1]])

    g = _pairs(g)
    g = points([g[:, :, :, :, j] for j in range(2)])
    return points([g[:, :, :, i] for i in range(2)])


def _outputs(products):
    """A^T m A of products [4, 4, B, H, W, O], tile beside tile: [B, 2 * H, 2 * W, O]."""
    def sums(m, axis):
        return jnp.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]], axis)

    batch, height, width, channels = products.shape[2:]
    return sums(sums(products, 3), 4).reshape(batch, 2 * height, 2 * width, channels)


def _pairs(x, padding=0):
    """[B, H, W, C] with zeros around it, and more to make it even: [B, H / 2, 2, W / 2, 2, C]."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, [(0, 0), *((padding, padding + size % 2) for size in (height, width)), (0, 0)])
    return x.reshape(batch, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels)


def _parts_of(x, channels):
    """Into how many parts the batch of x goes for points of so many channels."""
    return parts_in_cache(len(x), 16 * tiles(x) // len(x) * channels * x.dtype.itemsize)


def tiles(x: chex.Array) -> int:
    """Their number in x [B, H, W, C]."""
    return len(x) * -(-x.shape[1] // 2) * -(-x.shape[2] // 2)


def parts_in_cache(count: int, each: int) -> int:
    """The least number of equal parts of `count` examples of `each` bytes that fit `IN_CACHE`, or all one by one."""
    return next(parts for parts in range(1, count + 1) if count % parts == 0 and (
        count // parts * each <= IN_CACHE or parts == count))


def part_of(x: chex.Array, i: chex.Numeric, count: int) -> chex.Array:
    """The i-th of `count` parts of a batch.

    A slice of the whole, since a reshaped x would be computed once more from what it is made of.
    """
    return lax.dynamic_slice_in_dim(x, i * (len(x) // count), len(x) // count)
