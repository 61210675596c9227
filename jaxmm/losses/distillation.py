"""Losses [B] between the outputs or features of two networks for the same examples."""
import chex
import jax
import jax.numpy as jnp


def mean_squared_error(a: chex.Array, b: chex.Array) -> chex.Array:
    """Squared difference of a and b, both [B, ...], averaged over all axes but the first: [B]."""
    chex.assert_equal_shape([a, b])
    difference = a.astype(jnp.float32) - b.astype(jnp.float32)
    return jnp.mean(difference ** 2, axis=tuple(range(1, a.ndim)))


def kl_divergence(student_logits: chex.Array, teacher_logits: chex.Array,
                  temperature: chex.Numeric = 1.0) -> chex.Array:
    """T^2 KL(teacher || student) [B] in nats of softened predictions; T^2 keeps the size of gradients.

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
