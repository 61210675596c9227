"""Canonical correlations: how far two views of the same examples vary together.

With S the covariances of views x and y, L_x L_x^T = S_xx + r I and

    T = L_x^-1 S_xy L_y^-T = U diag(rho) V^T,

the correlations are rho and the directions L_x^-T U and L_y^-T V. Cholesky factors and singular values have
finite gradients where those of eigenvectors divide by zero: at views that agree, and at units that never
vary.

References:
  Hotelling, "Relations between two sets of variates", Biometrika, 1936.
  Andrew, Arora, Bilmes and Livescu, "Deep canonical correlation analysis", ICML 2013.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

IMPUTE = ("mean", "pairs")      # what covariances do about examples that lack a view


class Moments(NamedTuple):
    """Sums over examples, from which means and covariances of two views x [d] and y [e] follow.

    Each view is followed by a 1, and all of it is 0 where an example lacks it. So the last row and column
    of a sum hold sums of the values, and its corner counts the examples it is over.
    """
    count: chex.Array       # [], examples that a covariance is a mean over
    xx: chex.Array          # [d + 1, d + 1]
    yy: chex.Array          # [e + 1, e + 1]
    xy: chex.Array          # [d + 1, e + 1], over examples that have both


class Covariances(NamedTuple):
    """Means and covariances of two views x [d] and y [e]."""
    mean_x: chex.Array      # [d]
    mean_y: chex.Array      # [e]
    xx: chex.Array          # [d, d]
    yy: chex.Array          # [e, e]
    xy: chex.Array          # [d, e]


def moments(x: chex.Array, y: chex.Array, has_x: chex.Array, has_y: chex.Array,
            impute: str = "mean") -> Moments:
    """The moments of views x [B, d] and y [B, e], which the examples has_x, has_y bool [B] have.

    With `impute` "mean" the covariances that follow are those after what is missing was filled with the
    mean of its view; all B examples count, those without either view too. With "pairs" they are those of
    the examples that have both views.
    """
    chex.assert_rank([x, y, has_x, has_y], [2, 2, 1, 1])
    chex.assert_equal_shape_prefix([x, y, has_x, has_y], 1)
    count = len(x)
    if impute == "pairs":
        has_x = has_y = has_x & has_y
        count = has_x.sum()
    x, y = _followed_by_one(x, has_x), _followed_by_one(y, has_y)
    return Moments(jnp.asarray(count, jnp.float32), _product(x.T, x), _product(y.T, y), _product(x.T, y))


def covariances(m: Moments) -> Covariances:
    """Means over the examples that have a view, and covariances around them, divided by count - 1.

    Without an example they are 0.
    """
    mean_x, mean_y = (sums[-1, :-1] / jnp.maximum(sums[-1, -1], 1.0) for sums in (m.xx, m.yy))
    degrees = jnp.maximum(m.count - 1.0, 1.0)

    def centred(sums, mean_a, mean_b):
        """Sum of (a - mean_a)(b - mean_b)^T."""
        a, b, both = sums[:-1, -1], sums[-1, :-1], sums[-1, -1]
        return (sums[:-1, :-1] - jnp.outer(mean_a, b) - jnp.outer(a, mean_b)
                + both * jnp.outer(mean_a, mean_b)) / degrees

    return Covariances(mean_x, mean_y, centred(m.xx, mean_x, mean_x), centred(m.yy, mean_y, mean_y),
                       centred(m.xy, mean_x, mean_y))


def correlations(c: Covariances, r: float) -> chex.Array:
    """The canonical correlations [min(d, e)], descending, with r added to the variances."""
    return jnp.linalg.svd(_whitened(c, r)[0], compute_uv=False)


def directions(c: Covariances, r: float, k: int) -> tuple[chex.Array, chex.Array, chex.Array]:
    """(correlations [k], directions of x [d, k], of y [e, k]): the k largest.

    Variates x A have the variance A^T (S_xx + r I) A = I. Of the two signs of a pair of directions that is
    taken which makes the largest entry of the first one positive.
    """
    whitened, root_x, root_y = _whitened(c, r)
    u, rho, vt = jnp.linalg.svd(whitened, full_matrices=False)
    a = solve_triangular(root_x.T, u[:, :k])
    b = solve_triangular(root_y.T, vt.T[:, :k])
    largest = jnp.take_along_axis(a, jnp.abs(a).argmax(0)[None], 0)
    signs = jnp.where(largest < 0, -1.0, 1.0)
    return rho[:k], signs * a, signs * b


def correlation_loss(x: chex.Array, y: chex.Array, has_x: chex.Array, has_y: chex.Array, r: float, *,
                     impute: str = "mean", reduce: Callable[[Any], Any] = lambda sums: sums) -> chex.Array:
    """Minus the sum of the canonical correlations of two views, a scalar; 0 if no example has both.

    Args:
      x: [B, d].
      y: [B, e] of the same examples.
      has_x: bool [B]: which of them have x.
      has_y: bool [B].
      r: > 0, added to the variances.
      impute: see `moments`.
      reduce: sums a tree over the devices that share the batch; nothing by default.
    """
    x, y = _near_zero(x, has_x, reduce), _near_zero(y, has_y, reduce)
    return -jnp.sum(correlations(covariances(reduce(moments(x, y, has_x, has_y, impute))), r))


def _whitened(c: Covariances, r: float) -> tuple[chex.Array, chex.Array, chex.Array]:
    """(T [d, e], L_x [d, d], L_y [e, e])."""
    root_x, root_y = (jnp.linalg.cholesky(s + r * jnp.eye(len(s))) for s in (c.xx, c.yy))
    half = solve_triangular(root_x, c.xy, lower=True)
    return solve_triangular(root_y, half.T, lower=True).T, root_x, root_y


def _followed_by_one(x: chex.Array, has_x: chex.Array) -> chex.Array:
    """[B, d + 1] in float32: x and a 1, all 0 where it is missing."""
    return jnp.pad(jnp.where(has_x[:, None], x.astype(jnp.float32), 0.0), ((0, 0), (0, 1))).at[:, -1].set(
        has_x.astype(jnp.float32))


def _near_zero(x: chex.Array, has_x: chex.Array, reduce) -> chex.Array:
    """x minus its mean. Covariances do not depend on it, but sums of squares lose digits far from zero."""
    total, count = reduce((jnp.sum(jnp.where(has_x[:, None], x.astype(jnp.float32), 0.0), 0), has_x.sum()))
    return x - jax.lax.stop_gradient(total / jnp.maximum(count, 1))


def _product(a: chex.Array, b: chex.Array) -> chex.Array:
    # Accelerators would otherwise round the factors to 10 bits or fewer.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
