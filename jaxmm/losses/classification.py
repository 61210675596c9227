"""Losses of classification and distillation, averaged over the examples that count.

Every loss takes optional weights [B], 0 for examples that do not count (absent modality, padding),
and an optional `axis_name`. Under a mapped axis the value on one device is its share of the mean
over the whole batch: `pmean` of the loss is the loss of the whole batch and `pmean` of the gradient
is its gradient, however unevenly the examples that count lie on the devices.
"""
import chex
import jax
import jax.numpy as jnp
import optax


def weighted_mean(
    values: chex.Array, weights: chex.Array | None = None, axis_name: str | None = None
) -> chex.Array:
    """Mean of `values` [B] under `weights` [B] over the whole batch, in float32.

    It is 0, with zero gradient, if no example counts. The weights carry no gradient into the
    normalisation.
    """
    weights = jnp.ones_like(values) if weights is None else weights
    chex.assert_rank([values, weights], 1)
    chex.assert_equal_shape([values, weights])
    weights = weights.astype(jnp.float32)
    count = jnp.sum(weights)
    if axis_name is not None:
        # The mean, not the sum: `pmean` divides the sum of the numerators by the devices too.
        count = jax.lax.pmean(count, axis_name)
    count = jax.lax.stop_gradient(count)
    return jnp.sum(weights * values.astype(jnp.float32)) / jnp.where(count > 0, count, 1.0)


def cross_entropy(
    logits: chex.Array,
    labels: chex.Array,
    weights: chex.Array | None = None,
    axis_name: str | None = None,
) -> chex.Array:
    """Softmax cross-entropy (nats) of logits [B, C] with class numbers [B]."""
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_type(labels, int)
    values = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    return weighted_mean(values, weights, axis_name)


def mean_squared_error(
    a: chex.Array,
    b: chex.Array,
    weights: chex.Array | None = None,
    axis_name: str | None = None,
) -> chex.Array:
    """Mean over the features of the squared difference of a and b, both [B, ...]."""
    chex.assert_equal_shape([a, b])
    difference = a.astype(jnp.float32) - b.astype(jnp.float32)
    values = jnp.mean(difference ** 2, axis=tuple(range(1, a.ndim)))
    return weighted_mean(values, weights, axis_name)


def kl_divergence(
    student_logits: chex.Array,
    teacher_logits: chex.Array,
    temperature: chex.Numeric = 1.0,
    weights: chex.Array | None = None,
    axis_name: str | None = None,
) -> chex.Array:
    """KL(teacher || student) of softened predictions, times T^2 so that gradients keep their size.

    Args:
      student_logits: [B, C].
      teacher_logits: [B, C]; they carry no gradient.
      temperature: T > 0, divides both logits.
      weights: [B].
      axis_name: mapped axis of the devices.

    References:
      Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    chex.assert_rank([student_logits, teacher_logits], 2)
    chex.assert_equal_shape([student_logits, teacher_logits])
    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    student = jax.nn.log_softmax(student_logits.astype(jnp.float32) / temperature)
    teacher = jax.nn.log_softmax(teacher_logits.astype(jnp.float32) / temperature)
    values = jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
    return temperature ** 2 * weighted_mean(values, weights, axis_name)
