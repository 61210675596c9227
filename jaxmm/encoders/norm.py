"""Batch normalisation over the rows that count."""
import functools
from collections.abc import Callable

import chex
from flax import linen as nn
from jax import lax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, 2015) of [B, ..., C] with a mask over the rows.

    Mean and variance are those of the rows in `mask` bool [B] (all by default), over all devices of
    `axis_name` taken together, however unevenly the rows are spread over them. (flax's own layer
    averages the means of the devices.) If no row counts, the running statistics are used and stay as
    they are. Statistics are float32; the result is in the type of the input.
    """
    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        scale = self.param("scale", self.scale_init, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train:
            any_row, batch_mean, batch_var = moments(x, mask, self.axis_name)
            mean = jnp.where(any_row, batch_mean, mean)
            var = jnp.where(any_row, batch_var, var)
            for running, new in (running_mean, mean), (running_var, var):
                running.value += (1 - self.momentum) * lax.stop_gradient(new - running.value)
        factor = scale * lax.rsqrt(var + self.epsilon)
        return (x.astype(jnp.float32) * factor + (bias - mean * factor)).astype(x.dtype)


def batch_norm(axis_name: str | None, train: bool, mask: chex.Array | None) -> Callable[..., Callable]:
    """norm(**options) -> x -> x: a new `BatchNorm` with these options in a network that is applied so."""
    def norm(**options):
        return functools.partial(BatchNorm(axis_name, **options), train=train, mask=mask)

    return norm


def moments(x: chex.Array, mask: chex.Array | None = None, axis_name: str | None = None):
    """Whether any row of x [B, ..., C] counts, and mean and variance [C] of those that do."""
    chex.assert_type(mask if mask is not None else True, bool)
    x = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    positions = x[0, ..., 0].size
    if mask is None:
        weight, rows = 1.0, jnp.float32(x.shape[0])
    else:
        weight = mask.astype(jnp.float32).reshape(-1, *[1] * (x.ndim - 1))
        rows = weight.sum()
    sums = rows, (x * weight).sum(axes), (x * x * weight).sum(axes)
    if axis_name is not None:
        sums = lax.psum(sums, axis_name)
    rows, total, square = sums
    count = jnp.maximum(rows, 1) * positions
    mean = total / count
    return rows > 0, mean, jnp.maximum(square / count - mean**2, 0)
