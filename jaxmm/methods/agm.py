"""AGM: adaptive gradient modulation of what each modality contributes to the logits (Li et al., 2023)."""
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm import heads, shapley
from jaxmm.config import scalar
from jaxmm.errors import check_at_least
from jaxmm.methods.common import (Method, anyone, check_several, finish_step, gradients, init_state,
                                  make_features, make_predict, scale_gradient, step_key)
from jaxmm.methods.fusion import FusedConfig, with_fused_head
from jaxmm.model import Model


@dataclass
class AGMConfig(FusedConfig):
    """Adaptive gradient modulation (AGM, Li et al., 2023)."""
    name: str = "agm"
    alpha: float = scalar(3.0)      # strength of the modulation, >= 0
    epochs: int = 20                # first epochs, in which gradients are modulated


class Scores(NamedTuple):
    """The losses s_m of the modalities' shares of the logits, each by modality."""
    last: dict[str, chex.Array]     # float32 [], of the last step whose batch had the modality
    mean: dict[str, chex.Array]     # float32 [], over all such steps
    steps: dict[str, chex.Array]    # int32 [], how many these were


def make_agm(config: AGMConfig, model: Model) -> Method:
    """A fused head that slows the modality whose loss is smaller beside the others' than it usually is.

    The fused logits z_f are the sum of the modalities' Shapley values phi_m in the game S -> z(S), with
    z(empty) = 0. In the first `config.epochs` epochs the gradient of each is scaled by kappa_m, see
    `coefficients`: L = l(sum_m scale(phi_m, kappa_m), y). In the head `concat`, phi_m is the readout z_m.

    Raises:
      UserError: fewer than two modalities or more than ten, an option out of range, or an unknown fusion.

    References:
      Li et al., "Boosting multi-modal model performance with adaptive gradient modulation", ICCV 2023.
    """
    check_at_least("method.alpha", config.alpha, 0)
    check_at_least("method.epochs", config.epochs, 0)
    check_several(model, "agm balances modalities against each other")
    subsets = shapley.subsets(list(model.encoders))[1:]
    model = with_fused_head(config, model)

    def init(key, batch):
        return init_state(model, key, batch, lambda key, widths: {"scores": init_scores(widths)})

    def step(state, batch):
        batch = model.transform(step_key(state), batch)
        active = model.epoch(state.step).done < config.epochs
        known = state.extra["scores"]

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            z = heads.logits_by_subset(model.head, params["head"], out.features)
            phi = shapley.values({(): 0.0} | {s: z(s) for s in subsets})
            scores = update(model, known, phi, batch)
            kappa = {m: jnp.where(active, k, 1.0)
                     for m, k in coefficients(scores, known, config.alpha).items()}
            fused = sum(scale_gradient(x, kappa[m]) for m, x in phi.items())
            return model.mean(model.task.loss(fused, batch["label"])), (out, scores, kappa)

        losses, (out, scores, kappa), grads = gradients(model, state.params, loss_fn)
        state, metrics = finish_step(model, state, batch, losses, out, grads, extra={"scores": scores})
        return state, metrics | {f"coefficient/{m}": k for m, k in kappa.items()}

    return Method(init, step, make_predict(model), make_features(model))


def init_scores(modalities) -> Scores:
    """The scores of these modalities before the first step."""
    def each(dtype):
        return {m: jnp.zeros((), dtype) for m in modalities}

    return Scores(each(jnp.float32), each(jnp.float32), each(jnp.int32))


def update(model: Model, scores: Scores, phi: Mapping[str, chex.Array], batch) -> Scores:
    """The scores after a step with the shares `phi` [B, K] by modality.

    s_m is the mean loss of phi_m over the examples of the global batch that have the modality. That of a
    modality which none has stays as it was.
    """
    last, mean, steps = {}, {}, {}
    for m, z in phi.items():
        there = anyone(model, batch["present"][m])
        s = jax.lax.stop_gradient(model.mean(model.task.loss(z, batch["label"]), batch["present"][m]))
        last[m] = jnp.where(there, s, scores.last[m])
        steps[m] = scores.steps[m] + there
        mean[m] = jnp.where(there, scores.mean[m] + (s - scores.mean[m]) / jnp.maximum(steps[m], 1),
                            scores.mean[m])
    return Scores(last, mean, steps)


def coefficients(scores: Scores, before: Scores, alpha: chex.Numeric) -> dict[str, chex.Array]:
    """kappa_m = exp(alpha min(rbar_m - r_m, 10)), float32 [] by modality.

    r_m is the ratio of this step, from its `scores`; rbar_m is that of the means over all steps before it.
    """
    now, usual = ratios(scores.last, scores.steps), ratios(before.mean, before.steps)
    return {m: jnp.exp(alpha * jnp.minimum(usual[m] - now[m], 10.0)) for m in now}


def ratios(scores: Mapping[str, chex.Array], steps: Mapping[str, chex.Array]) -> dict[str, chex.Array]:
    """r_m = exp(mean_{k != m} (s_k - s_m)) over modalities with a step so far; 1 for others, or one alone."""
    known = {m: n > 0 for m, n in steps.items()}
    count = sum(x.astype(jnp.int32) for x in known.values())
    total = sum(jnp.where(known[m], s, 0.0) for m, s in scores.items())
    result = {}
    for m, s in scores.items():
        gap = (total - s) / jnp.maximum(count - 1, 1) - s
        # Beyond 80, exp would be infinite, and the difference of two of them no number.
        result[m] = jnp.where(known[m] & (count > 1), jnp.exp(jnp.minimum(gap, 80.0)), 1.0)
    return result
