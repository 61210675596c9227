"""A bound on the total correlation of the modalities and the label (TCMax), for logits of pairs of both.

Donsker and Varadhan: for any function z of inputs and class, with the expectation E over joint draws and Q
over draws of each modality and of the class (uniform) by itself,

    TC(x_1, ..., x_M, y) >= E z(x_1 .. x_M)[y] - log Q exp z(x_1 .. x_M)[y].

References:
  TCMax, arXiv 2602.13015.
"""
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp


def true_logits(logits: chex.Array, label: chex.Array) -> chex.Array:
    """The logit [B] of the true class int [B], in float32."""
    chex.assert_rank([logits, label], [2, 1])
    return jnp.take_along_axis(logits.astype(jnp.float32), label[:, None], axis=1)[:, 0]


def log_mean_exp(logits: chex.Array) -> chex.Array:
    """log mean exp z over rows and classes, a scalar, of the logits [N, C] of N tuples."""
    chex.assert_rank(logits, 2)
    return jax.nn.logsumexp(logits.astype(jnp.float32)) - jnp.log(logits.size)


def log_mean_exp_of_sums(parts: Mapping[str, chex.Array], present: Mapping[str, chex.Array]) -> chex.Array:
    """`log_mean_exp` over all tuples of examples, one for each modality, of logits that are a sum over them.

    log mean_c prod_m mean_j exp z_m,j[c], for the mean over tuples is a product of means.

    Args:
      parts: [B, C] by modality, which add up to the logits.
      present: bool [B] by modality. The mean over a modality is over the examples that have it; over all if
        none has, whose part is what the head makes of nothing.
    """
    chex.assert_rank(list(parts.values()), 2)
    total = sum(_log_mean_exp_of_rows(z.astype(jnp.float32), present[m]) for m, z in parts.items())
    return log_mean_exp(total[None])


def _log_mean_exp_of_rows(z, present):
    """log mean exp z [C] over the rows [B, C] that count."""
    counts = present | ~present.any()
    return jax.nn.logsumexp(jnp.where(counts[:, None], z, -jnp.inf), axis=0) - jnp.log(counts.sum())
