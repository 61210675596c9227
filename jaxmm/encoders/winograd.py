"""Convolutions of 3 x 3 and stride 1 by 16 products where the definition has 36.

F(2 x 2, 3 x 3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308), section
4.1: a tile of 2 x 2 outputs is A^T [(G k G^T) * (B^T d B)] A for the tile d of 4 x 4 inputs around it. Channels are
summed within the brackets, so each of the 16 points of a tile is a product of matrices; the gradients are too. What
is multiplied takes four times the memory of inputs and outputs, so it is made for one part of the batch at a time.
"""
import chex
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jaxmm.encoders.parts import part_of, parts_in_cache, sum_over_parts

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
BOTH = np.kron(G, G)    # takes k [9] to G k G^T [16]


@jax.custom_vjp
def convolve(x: chex.Array, kernel: chex.Array) -> chex.Array:
    """Convolves x [B, H, W, C] with kernel [3, 3, C, O], padded by one: [B, H, W, O], all float32.

    By F(2 x 2, 3 x 3) of Lavin and Gray; its rounding is a little larger than that of the definition.
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_type([x, kernel], jnp.float32)
    chex.assert_shape(kernel, (3, 3, x.shape[-1], None))
    factors = (BOTH @ kernel.reshape(9, -1)).reshape(16, *kernel.shape[2:])
    count = count_parts(x, kernel)

    def part(i):
        # Barriers, here and below: sums are made once, not within products, and not for each of their rows again.
        points = lax.optimization_barrier(_input_points(part_of(x, i, count)))
        products = points.reshape(16, -1, points.shape[-1]) @ factors
        return _outputs(lax.optimization_barrier(products.reshape(*points.shape[:-1], -1)))[:, :x.shape[1], :x.shape[2]]

    return lax.map(part, jnp.arange(count)).reshape(*x.shape[:-1], -1)


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(residuals, g):
    x, kernel = residuals
    return convolve(g, kernel[::-1, ::-1].swapaxes(2, 3)), _kernel_gradient(x, kernel, g)


convolve.defvjp(_forward, _backward)


def _kernel_gradient(x, kernel, g):
    def products(x, g):
        points = lax.optimization_barrier((_input_points(x), _output_gradient_points(g)))
        inputs, gradients = (p.reshape(16, -1, p.shape[-1]) for p in points)
        return inputs.swapaxes(1, 2) @ gradients

    total = sum_over_parts(products, (16, *kernel.shape[2:]), count_parts(x, kernel), x, g)
    return (BOTH.T @ total.reshape(16, -1)).reshape(kernel.shape)


def tiles(x: chex.Array) -> int:
    """How many an example of x [B, H, W, C] has."""
    chex.assert_rank(x, 4)
    return -(-x.shape[1] // 2) * -(-x.shape[2] // 2)


def count_parts(x: chex.Array, kernel: chex.Array) -> int:
    """In how many parts a batch x [B, H, W, C] is convolved with kernel [3, 3, C, O]."""
    return parts_in_cache(len(x), 16 * tiles(x) * sum(kernel.shape[2:]) * x.dtype.itemsize)


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
