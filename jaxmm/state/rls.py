"""Recursive least squares: the projection that keeps a shared head from forgetting.

The head's kernel gradient is multiplied by a matrix P that shrinks every direction the features
have taken before, so that learning from one modality leaves the outputs of the others alone.

References:
  Zhang et al., "Multimodal representation learning by alternating unimodal adaptation", 2023,
  arXiv 2311.10707, section 3.2, equations 3-5.
"""
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

# Smallest eigenvalue of P, relative to its largest entry: what float32 can still tell from zero
# after the rounding of many updates.
FLOOR = 16 * float(jnp.finfo(jnp.float32).eps)

# Accelerators would otherwise round the factors of a float32 product to 10 bits or fewer.
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class RLSState(NamedTuple):
    """State of the recursion."""
    projection: chex.Array  # [s, s] float32: P, symmetric positive definite


def init(dim: int) -> RLSState:
    """P = I for features of size `dim`: nothing seen yet, nothing projected out."""
    return RLSState(projection=jnp.eye(dim, dtype=jnp.float32))


def project(state: RLSState, kernel_gradient: chex.Array) -> chex.Array:
    """Projected gradient P G of the head's kernel, [s, C] like `kernel_gradient` (eq. 3)."""
    chex.assert_shape(kernel_gradient, (state.projection.shape[0], None))
    projected = _matmul(state.projection, kernel_gradient.astype(jnp.float32))
    return projected.astype(kernel_gradient.dtype)


def update(
    state: RLSState,
    features: chex.Array,
    *,
    alpha: chex.Numeric,
    weights: chex.Array | None = None,
    axis_name: str | None = None,
) -> RLSState:
    """One step of the recursion on the mean feature of a batch (eq. 4-5).

    With h the mean feature, k = P h and P <- P - k k^T / (alpha + h^T k), which after n updates is
    P = (I + sum_i h_i h_i^T / alpha)^-1. In float32 the eigenvalues along directions seen often
    would sink below the rounding errors of the others and turn negative; they stop at
    `FLOOR * max(diag(P))` instead, which changes P by nothing larger.

    Args:
      state: the state before.
      features: [B, s] features of the examples.
      alpha: > 0; the smaller, the more one batch takes out of its direction.
      weights: [B] weight of each example in the mean, 0 for those that do not count. If none of
        the whole batch counts, the state stays as it is.
      axis_name: mapped axis of the devices that hold the rest of the batch, if any.

    Returns:
      The state after, the same on every device.
    """
    p = state.projection
    chex.assert_shape(features, (None, p.shape[0]))
    h = _mean_feature(features, weights, axis_name)

    k = _matmul(p, h)
    square = jnp.maximum(_matmul(h, h), jnp.finfo(jnp.float32).tiny)
    floor = FLOOR * jnp.max(jnp.diag(p))
    # What rounding took from P along h below the floor is given back first, ...
    lift = jnp.maximum(floor - _matmul(h, k) / square, 0.0)
    k = k + lift * h
    energy = _matmul(h, k)
    # ... and where the update would take all of P along h, it leaves the floor: P becomes a convex
    # combination of itself and a matrix whose eigenvalues are no smaller than its own or the floor.
    kept = lift + floor * energy / (alpha + energy)
    p = p - jnp.outer(k, k) / (alpha + energy) + jnp.outer(h, h) * (kept / square)
    return RLSState(projection=(p + p.T) / 2)


def _mean_feature(features, weights, axis_name) -> chex.Array:
    """Weighted mean feature [s] over the batch of all devices; zero if no example counts."""
    weights = jnp.ones(features.shape[0]) if weights is None else weights
    chex.assert_shape(weights, (features.shape[0],))
    weights = weights.astype(jnp.float32)
    total, count = _matmul(weights, features.astype(jnp.float32)), jnp.sum(weights)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.where(count > 0, count, 1.0)
