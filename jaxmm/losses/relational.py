"""Relational distillation: one representation learns the distances or angles within another.

Only distances and angles between the examples of a batch are compared, so the two representations
may differ in size, scale and orientation.

References:
  Park et al., "Relational knowledge distillation", CVPR 2019, equations 4-8.
  SAMM, arXiv 2405.02766, which aligns the modalities by the distance-wise loss.
"""
import chex
import jax
import jax.numpy as jnp
import optax

from jaxmm.losses import norm, normalize


def distance_loss(
    student: chex.Array, teacher: chex.Array, weights: chex.Array | None = None
) -> chex.Array:
    """Difference of the pairwise distances of L2-normalised rows, a scalar.

    The distances of each side are divided by the mean of its positive ones. The loss is the mean
    smooth L1 (delta 1) over all B x B pairs. It is 0 if all rows are equal on both sides.

    Args:
      student: [B, d].
      teacher: [B, d'] of the same examples; it carries no gradient.
      weights: [B], 0 for rows that do not count: their pairs are left out of every mean.
    """
    weights = _check(student, teacher, weights)
    pairs = weights[:, None] * weights[None, :]

    def relation(x):
        distances = norm(_differences(normalize(x)))
        return distances / _mean(distances, pairs * (distances > 0), default=1.0)

    student, teacher = relation(student), relation(jax.lax.stop_gradient(teacher))
    return _mean(optax.huber_loss(student, teacher), pairs)


def angle_loss(
    student: chex.Array, teacher: chex.Array, weights: chex.Array | None = None
) -> chex.Array:
    """Difference of the cosines of the angles that the examples form, a scalar.

    The loss is the mean smooth L1 (delta 1) between the cosines of the angles at j, over all ordered
    triples (i, j, k) of distinct rows. It is 0 for fewer than three rows. The cosine is 0 where row j
    equals i or k. Memory grows as B^2 d + B^3.

    Args:
      student: [B, d].
      teacher: [B, d'] of the same examples; it carries no gradient.
      weights: [B], 0 for rows that do not count: their triples are left out.
    """
    weights = _check(student, teacher, weights)
    distinct = 1.0 - jnp.eye(len(weights))
    pairs = weights[:, None] * distinct                     # [j, i]: i is not the middle point j
    triples = weights[:, None, None] * pairs.T[:, :, None] * pairs.T[:, None, :] * distinct

    def relation(x):
        directions = normalize(_differences(x))
        return jnp.einsum(
            "jid,jkd->jik", directions, directions, precision=jax.lax.Precision.HIGHEST)

    student, teacher = relation(student), relation(jax.lax.stop_gradient(teacher))
    return _mean(optax.huber_loss(student, teacher), triples)


def _check(student, teacher, weights) -> chex.Array:
    """Asserts the shapes of the arguments; returns the weights [B], ones by default."""
    chex.assert_rank([student, teacher], 2)
    chex.assert_equal_shape_prefix([student, teacher], 1)
    weights = jnp.ones(student.shape[0]) if weights is None else weights
    chex.assert_shape(weights, (student.shape[0],))
    return weights.astype(jnp.float32)


def _differences(x: chex.Array) -> chex.Array:
    """Differences of all pairs of rows [B, B, d], 0 for rows that agree to float32 rounding.

    Compiled code may round the two sides of x - x differently (fused multiply-add). That rounding
    noise is not a distance, and the gradient of its direction would be huge.
    """
    x = x.astype(jnp.float32)
    differences = x[:, None, :] - x[None, :, :]
    square = jnp.sum(x ** 2, axis=-1)
    rounding = jnp.finfo(jnp.float32).eps ** 2 * (square[:, None] + square[None, :])
    same = jnp.sum(differences ** 2, axis=-1) <= rounding
    return jnp.where(same[..., None], 0.0, differences)


def _mean(x: chex.Array, weights: chex.Array, default: float = 0.0) -> chex.Array:
    """Mean under `weights`, `default` if all are 0."""
    total = jnp.sum(weights)
    return jnp.where(total > 0, jnp.sum(weights * x) / jnp.where(total > 0, total, 1.0), default)
