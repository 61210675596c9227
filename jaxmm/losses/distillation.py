"""Losses between what two networks, or two states of one, say of the same examples: [B]."""
import chex
import jax
import jax.numpy as jnp


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
