"""Temperature scaling: one number that makes the confidence of a classifier match its accuracy.

References:
  Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.
"""
import math

import chex
import jax
import jax.numpy as jnp

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_STEPS = 32     # each halves the interval of log T: enough for float32


@jax.jit     # a loop that is not within a program is compiled at every call
def fit_temperature(
    logits: chex.Array, labels: chex.Array, weights: chex.Array | None = None
) -> chex.Array:
    """Temperature T in [0.05, 20] that minimises the negative log-likelihood of softmax(z / T).

    The likelihood is convex in 1 / T, so bisection on the sign of its slope finds the minimum. It
    starts at T = 1 and stays there while the slope is zero, as it is without a row that counts.

    Args:
      logits: [N, C], finite.
      labels: int [N], in [0, C).
      weights: [N], >= 0; rows of weight 0 do not count.

    Returns:
      T, a float32 scalar.
    """
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_type(labels, int)
    weights = jnp.ones(labels.shape[0]) if weights is None else weights
    chex.assert_equal_shape([labels, weights])
    logits = logits.astype(jnp.float32)
    margins = logits - jnp.take_along_axis(logits, labels[:, None], axis=-1)
    terms = weights.astype(jnp.float32)[:, None] * margins

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        # Slope of the loss in beta = 1 / T: sum_i w_i sum_c p_ic (z_ic - z_iy). Its sign is taken
        # in log space, where the probabilities of confident rows do not underflow to 0.
        log_p = jax.nn.log_softmax(jnp.exp(middle) * margins)
        _, sign = jax.nn.logsumexp(log_p, b=terms, return_sign=True)
        return jnp.where(sign < 0, middle, low), jnp.where(sign > 0, middle, high)

    log_beta = -math.log(MAX_TEMPERATURE), -math.log(MIN_TEMPERATURE)
    low, high = jax.lax.fori_loop(0, _STEPS, halve, tuple(map(jnp.float32, log_beta)))
    return jnp.clip(jnp.exp(-(low + high) / 2), MIN_TEMPERATURE, MAX_TEMPERATURE)
