"""OGM-GE: on-the-fly gradient modulation with generalisation enhancement (Peng et al., 2022).

It is a baseline of MLA (arXiv 2311.10707, table 1) and UMT (arXiv 2305.01233, table 1).
"""
from collections.abc import Mapping
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.batch import Batch, Logits
from jaxmm.config import MethodConfig, scalar
from jaxmm.errors import check_at_least
from jaxmm.keys import named_key
from jaxmm.methods.common import (Method, anyone, check_several, finish_step, gradients, init_state,
                                  make_features, make_predict, own_key, step_key)
from jaxmm.model import Model
from jaxmm.task import likelihood


@dataclass
class OGMConfig(MethodConfig):
    """On-the-fly gradient modulation (OGM-GE, Peng et al., 2022)."""
    name: str = "ogm_ge"
    alpha: float = scalar(0.8)      # strength of the modulation, >= 0
    noise: bool = True              # generalisation enhancement: noise on the encoders' gradients
    epochs: int = 50                # first epochs, in which gradients are modulated


def make_ogm_ge(config: OGMConfig, model: Model) -> Method:
    """`concat` whose encoders learn more slowly the further their modality is ahead.

    In the first `config.epochs` epochs the gradients of the encoders are scaled by k_m, see
    `coefficients`, and noise is added, see `modulate`.

    Raises:
      UserError: fewer than two modalities, or an option out of range.
    """
    check_at_least("method.alpha", config.alpha, 0)
    check_at_least("method.epochs", config.epochs, 0)
    check_several(model, "ogm_ge balances modalities against each other")
    model = model._replace(head=heads.concat(model.task.size))

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        key = step_key(state)
        batch = model.transform(key, batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            return model.mean(model.task.loss(out.outputs["fused"], batch["label"])), out

        losses, out, grads = gradients(model, state.params, loss_fn)
        slowed = coefficients(advantages(model, out.outputs, batch), config.alpha)
        active = model.epoch(state.step).done < config.epochs
        grads = modulate_encoders(own_key(key), grads, slowed, active, noise=config.noise)
        state, metrics = finish_step(model, state, batch, losses, out, grads)
        return state, metrics | {f"coefficient/{m}": jnp.where(active, k, 1.0)
                                 for m, k in slowed.items()}

    return Method(init, step, make_predict(model), make_features(model))


def coefficients(rho: Mapping[str, chex.Array], alpha: float) -> dict[str, chex.Array]:
    """k_m in (0, 1] by modality: 1 - tanh(alpha rho_m) where rho_m > 1, otherwise 1; see `advantages`."""
    return {m: jnp.where(x > 1, 1 - jnp.tanh(alpha * x), 1.0) for m, x in rho.items()}


def advantages(model: Model, logits: Logits, batch: Batch) -> dict[str, chex.Array]:
    """rho_m >= 0 by modality: s_m over the mean s of the other modalities.

    s_m is the mean probability of the label (`jaxmm.task.likelihood`) in the modality's readout, over the
    examples of the global batch that have it. Modalities that no example has are left out; their rho is 1,
    and so is that of one which is left alone.
    """
    there = {m: anyone(model, present) for m, present in batch["present"].items()}
    scores = {m: model.mean(likelihood(model.task, logits[m], batch["label"]), present)
              for m, present in batch["present"].items()}       # 0 if no example has the modality
    total, count = sum(scores.values()), sum(x.astype(jnp.int32) for x in there.values())
    result = {}
    for m, s in scores.items():
        others = (total - s) / jnp.maximum(count - 1, 1)
        result[m] = jnp.where(there[m] & (count > 1), s / jnp.maximum(others, 1e-8), 1.0)
    return result


def modulate_encoders(key: chex.PRNGKey, grads: Mapping, slowed: Mapping[str, chex.Array],
                      active: chex.Array, *, noise: bool) -> dict:
    """Gradients by parameter group with those of the encoders modulated by `slowed`, if `active` bool []."""
    def of_encoder(m, k):
        return jax.tree.map(lambda new, old: jnp.where(active, new, old),
                            modulate(named_key(key, m), grads[m], k, noise=noise), grads[m])

    return {**grads} | {m: of_encoder(m, k) for m, k in slowed.items()}


def modulate(key: chex.PRNGKey, grads: Mapping, coefficient: chex.Array, *, noise: bool):
    """k g for the kernels of an encoder, plus a draw from N(0, std(g)^2) for each with `noise`.

    The kernels are those of the convolutions, or all of rank 2 or more in an encoder without any.
    Other gradients, such as those of biases, stay as they are.
    """
    rank = 4 if any(g.ndim >= 4 for g in jax.tree.leaves(grads)) else 2

    def of_leaf(path, g):
        if g.ndim < rank:
            return g
        drawn = jax.random.normal(named_key(key, jax.tree_util.keystr(path)), g.shape, g.dtype)
        return coefficient * g + (jnp.std(g) * drawn if noise else 0.0)

    return jax.tree_util.tree_map_with_path(of_leaf, grads)
