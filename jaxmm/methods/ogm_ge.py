"""OGM-GE: on-the-fly gradient modulation with generalisation enhancement (Peng et al., 2022).

As the baseline of MLA (arXiv 2311.10707, table 1) and UMT (arXiv 2305.01233, table 1).
"""
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.batch import Batch, Logits
from jaxmm.config import OGMConfig
from jaxmm.errors import UserError, check_at_least
from jaxmm.losses.classification import cross_entropy, weighted_mean
from jaxmm.methods.common import (Components, Method, finish_step, gradients, identity, init_state,
                                  make_features, make_predict, own_key, pmean, step_key)


def make_ogm_ge(config: OGMConfig, components: Components, *,
                axis_name: str | None = None) -> Method:
    """`concat` whose encoders learn more slowly the further their modality is ahead.

    Raises:
      UserError: fewer than two modalities, or an option out of range.
    """
    check_at_least("method.alpha", config.alpha, 0)
    check_at_least("method.epochs", config.epochs, 0)
    if len(components.encoders) < 2:
        raise UserError("ogm_ge balances modalities against each other and needs two or more; "
                        "use unimodal")
    head = heads.concat(components.num_classes)

    def init(key, batch):
        return init_state(components, head, key, batch)

    def step(state, batch):
        key = step_key(state)
        batch = components.transform(key, batch)
        loss, out, grads = gradients(
            components, head, state, batch,
            lambda out: cross_entropy(out.logits["fused"], batch["label"], axis_name=axis_name),
            axis_name=axis_name)
        coefficients = modulation(out.logits, batch, config.alpha, axis_name)
        active = components.epoch(state.step).done < config.epochs
        for i, (m, k) in enumerate(coefficients.items()):
            modulated = modulate(jax.random.fold_in(own_key(key), i), grads[m], k,
                                 noise=config.noise)
            grads[m] = jax.tree.map(lambda new, old: jnp.where(active, new, old),
                                    modulated, grads[m])
        state, metrics = finish_step(components, state, batch, loss, out, grads,
                                     axis_name=axis_name)
        return state, metrics | {f"coefficient/{m}": jnp.where(active, k, 1.0)
                                 for m, k in coefficients.items()}

    return Method(init, step, make_predict(components, head), make_features(components), identity)


def modulation(logits: Logits, batch: Batch, alpha: float,
               axis_name: str | None = None) -> dict[str, chex.Array]:
    """k_m in (0, 1] by modality: 1 - tanh(alpha rho_m) where rho_m > 1, otherwise 1.

    rho_m compares s_m, the mean probability of the true class in the readout of the modality over
    the global batch, with the mean of the others.
    """
    scores = {}
    for m, present in batch["present"].items():
        p = jnp.take_along_axis(jax.nn.softmax(logits[m]), batch["label"][:, None], axis=1)[:, 0]
        scores[m] = pmean(weighted_mean(p, present, axis_name), axis_name)
    total = sum(scores.values())
    result = {}
    for m, s in scores.items():
        others = (total - s) / (len(scores) - 1)
        rho = s / jnp.maximum(others, 1e-8)
        result[m] = jnp.where(rho > 1, 1 - jnp.tanh(alpha * rho), 1.0)
    return result


def modulate(key: chex.PRNGKey, grads: Mapping, coefficient: chex.Array, *, noise: bool):
    """k g for the kernels of an encoder and, with `noise`, plus N(0, std(g)^2) for each.

    The kernels are those of the convolutions; in an encoder without any, all of rank 2 or more.
    """
    leaves, structure = jax.tree.flatten(grads)
    rank = 4 if any(g.ndim >= 4 for g in leaves) else 2
    for i, g in enumerate(leaves):
        if g.ndim >= rank:
            leaves[i] = coefficient * g
            if noise:
                noise_key = jax.random.fold_in(key, i)
                leaves[i] += jnp.std(g) * jax.random.normal(noise_key, g.shape, g.dtype)
    return jax.tree.unflatten(structure, leaves)
