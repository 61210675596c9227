"""What a product of experts needs to know: a temperature and a weight for each head, and the prior of the classes.

The temperatures are fitted on validation data, and so are the weights if that is asked for. The product itself
is `jaxmm.heads.fusion.product_of_experts`.
"""
from collections.abc import Collection, Mapping
from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from jaxmm.metrics import log_softmax
from jaxmm.state.calibration import fit_temperature

MAX_WEIGHT = 10.0


class Experts(NamedTuple):
    """By head, float32 scalars; and the prior."""
    temperature: dict[str, chex.Array]
    weight: dict[str, chex.Array]
    log_prior: chex.Array           # float32 [C]


def init(heads: Collection[str], log_prior: chex.Array) -> Experts:
    """Temperatures and weights of 1."""
    return Experts({h: jnp.ones(()) for h in heads}, {h: jnp.ones(()) for h in heads},
                   jnp.asarray(log_prior, jnp.float32))


def fit(experts: Experts, logits: Mapping[str, chex.Array], labels: chex.Array,
        present: Mapping[str, chex.Array], weighted: bool) -> Experts:
    """Temperatures that minimise the negative log-likelihood of each head, see `fit_temperature`, then, if
    `weighted`, the weights in [0, 10] that minimise that of the product.

    Args:
      experts: with the prior.
      logits: [N, C] by head.
      labels: int [N].
      present: bool [N] by head, the rows where it takes part.
      weighted: otherwise weights are 1.
    """
    temperature = {h: fit_temperature(jnp.asarray(logits[h]), jnp.asarray(labels), jnp.asarray(present[h]))
                   for h in experts.weight}
    weights = dict.fromkeys(experts.weight, 1.0)
    if weighted:
        scaled = {h: logits[h] / np.float64(temperature[h]) for h in experts.weight}
        weights = fit_weights(scaled, np.asarray(experts.log_prior, np.float64), labels, present)
    return Experts(temperature, {h: jnp.float32(w) for h, w in weights.items()}, experts.log_prior)


def fit_weights(logits: Mapping[str, np.ndarray], log_prior: np.ndarray, labels: np.ndarray,
                present: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Weights w in [0, 10] by head that minimise the mean negative log-likelihood of
    softmax(log prior + sum_m w_m (log p_m - log prior)), which is convex in w; in float64, from w = 1.
    """
    from scipy import optimize      # slow to import, and the first step does not need it
    said = np.stack([np.where(present[h][:, None], log_softmax(z) - log_prior, 0.0) for h, z in logits.items()])
    rows = np.arange(len(labels))

    def loss(weights):
        log_p = log_softmax(log_prior + np.tensordot(weights, said, 1))
        expected = np.einsum("nc,mnc->mn", np.exp(log_p), said)
        return -log_p[rows, labels].mean(), (expected - said[:, rows, labels]).mean(axis=1)

    found = optimize.minimize(loss, np.ones(len(said)), jac=True, method="L-BFGS-B",
                              bounds=[(0.0, MAX_WEIGHT)] * len(said))
    return dict(zip(logits, map(float, found.x)))
