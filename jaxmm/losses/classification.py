"""Losses of classification and distillation, per example [B], and their mean."""
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax


def weighted_mean(values: chex.Array, weights: chex.Array | None = None,
                  reduce: Callable = lambda sums: sums) -> chex.Array:
    """Mean of `values` [B] under `weights` [B] in float32.

    It is 0, with zero gradient, if no example counts. The weights carry no gradient into the
    normalisation.

    Args:
      values: [B].
      weights: [B], 0 for examples that do not count (absent modality, padding); 1 by default.
      reduce: sums the pair (weighted values, weights) over the devices that share the batch.
    """
    weights = jnp.ones_like(values) if weights is None else weights
    chex.assert_rank([values, weights], 1)
    chex.assert_equal_shape([values, weights])
    weights = weights.astype(jnp.float32)
    total, count = reduce((jnp.sum(weights * values.astype(jnp.float32)), jnp.sum(weights)))
    count = jax.lax.stop_gradient(count)
    return total / jnp.where(count > 0, count, 1.0)


def cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Softmax cross-entropy (nats) [B] of logits [B, C] with class numbers [B]."""
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_type(labels, int)
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def mean_squared_error(a: chex.Array, b: chex.Array) -> chex.Array:
    """Mean over the features [B] of the squared difference of a and b, both [B, ...]."""
    chex.assert_equal_shape([a, b])
    difference = a.astype(jnp.float32) - b.astype(jnp.float32)
    return jnp.mean(difference ** 2, axis=tuple(range(1, a.ndim)))


def kl_divergence(student_logits: chex.Array, teacher_logits: chex.Array,
                  temperature: chex.Numeric = 1.0) -> chex.Array:
    """KL(teacher || student) [B] of softened predictions, times T^2 to keep the size of gradients.

    Args:
      student_logits: [B, C].
      teacher_logits: [B, C]; they carry no gradient.
      temperature: T > 0, divides both logits.

    References:
      Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    chex.assert_rank([student_logits, teacher_logits], 2)
    chex.assert_equal_shape([student_logits, teacher_logits])
    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    student = jax.nn.log_softmax(student_logits.astype(jnp.float32) / temperature)
    teacher = jax.nn.log_softmax(teacher_logits.astype(jnp.float32) / temperature)
    return temperature ** 2 * jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
