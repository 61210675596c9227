"""MLA: multimodal learning with alternating unimodal adaptation (arXiv 2311.10707)."""
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.config import MethodConfig, dependent, scalar
from jaxmm.errors import check_above, check_choice
from jaxmm.heads.fusion import entropy_weighted, mean_logits
from jaxmm.methods.common import (Method, TrainState, anyone, apply_gradients, gradient_norm, gradients,
                                  head_progress, init_state, make_features, make_predict, step_key)
from jaxmm.methods.fusion import modality_loss
from jaxmm.model import Model
from jaxmm.state import rls
from jaxmm.task import need_classes


@dataclass
class MLAConfig(MethodConfig):
    """Alternating unimodal adaptation (arXiv 2311.10707)."""
    name: str = "mla"
    projection: str = "rls"         # of the head's gradient (eq. 3): "rls", or "none" as released
    features: str = dependent("current", projection="rls")      # whose mean feature enters P_t: the
                                    # "current" modality's (eq. 5), or the "previous" one's
    alpha: float = scalar(0.1, projection="rls", alpha_schedule="constant")     # of eq. 5, > 0; used by the
                                    # "constant" schedule
    alpha_schedule: str = dependent("constant", projection="rls")   # or "released": 0.1 ** (1 + batch / batches
                                    # per epoch)
    dynamic_fusion: bool = True     # fuse by entropy (eq. 6-8); off: mean of the logits


def make_mla(config: MLAConfig, model: Model) -> Method:
    """Alternating unimodal adaptation (section 3, algorithm 1).

    One linear head g(h) = h W + b, W [s, C], is shared by all modalities. A step makes one update
    per modality in a fixed order, each with its own forward pass. It changes the encoder of that
    modality and the head, and nothing else. The gradient of W is projected by the RLS matrix P
    (eq. 3-5) before the optimizer sees it; that of b is not. At test time the logits are fused by
    entropy (eq. 6-8).

    Examples may lack modalities; in unpaired data each row has one modality. An update uses the
    examples that have the modality, and is skipped if the batch has none.

    The default is the paper. The released code differs: it never projects, because it looks for a
    parameter under the wrong name (`config.projection="none"`), and its alpha decays
    (`config.alpha_schedule="released"`). Equation 5 takes the mean feature of the modality being
    trained; the paper's text takes the one before it (`config.features="previous"`).

    Raises:
      UserError: encoders of different widths, alpha <= 0, or an unknown option.
    """
    check_options(config)
    if config.dynamic_fusion:
        need_classes(model.task, "fusion by entropy", "set --config.method.dynamic_fusion=false")
    encoders = model.encoders
    model = model._replace(head=heads.shared(model.task.size, "mla shares one head, so encoders need"),
                           fuse=entropy_fused if config.dynamic_fusion else mean_logits)

    def init(key, batch):
        return init_state(model, key, batch, init_extra)

    def init_extra(key, widths):
        del key
        size = next(iter(widths.values()))
        # With hbar_{-1} = 0, P_0 is the identity for features="previous" too.
        return {"rls": rls.init(size), "previous": jnp.zeros(size)}

    def alpha(step: chex.Array) -> chex.Array | float:
        if config.alpha_schedule == "constant":
            return config.alpha
        epoch = model.epoch(step)
        return 0.1 ** (1 + epoch.step / epoch.steps)

    def update_modality(state: TrainState, batch, modality: str):
        """One iteration t of algorithm 1."""
        present = batch["present"][modality]

        def loss_fn(params):                                          # eq. 2
            out = model.run(params, state.batch_stats, batch, train=True, only=(modality,))
            return modality_loss(model, out.outputs, batch, modality), out

        losses, out, grads = gradients(model, state.params, loss_fn, groups=(modality, "head"))
        extra = update_projection(state, out.features[modality], present, modality)
        if config.projection == "rls":
            kernel = rls.project(extra["rls"], grads["head"]["kernel"])    # eq. 3
            grads["head"] = grads["head"] | {"kernel": kernel}
        due = anyone(model, present)
        # If no example has the modality its batch statistics stay by themselves; `extra` would not.
        extra = jax.tree.map(lambda new, old: jnp.where(due, new, old), extra, state.extra)
        state = apply_gradients(model, state, grads, due={modality: due, "head": due})._replace(
            batch_stats=state.batch_stats | {modality: out.batch_stats[modality]}, extra=extra)
        measured = {f"{name}/{modality}": jnp.where(due, x, jnp.nan)
                    for name, x in (losses | gradient_norm(model, grads)).items()}
        return state, due, measured | head_progress(model, {modality: out.outputs[modality]}, batch)

    def update_projection(state: TrainState, features, present, modality: str):
        """P_t of eq. 4-5 from the mean feature of this modality, or of the one before it."""
        if config.projection == "none":
            return state.extra
        alpha_t = alpha(state.step)
        if config.features == "current":
            # The very first update, t = 0, is not projected (eq. 3): its features do not enter P.
            after_first = (state.step > 0) | (modality != next(iter(encoders)))
            updated = rls.update(state.extra["rls"], features, alpha=alpha_t,
                                 weights=present & after_first, axis_name=model.axis_name)
            return state.extra | {"rls": updated}
        updated = rls.update(state.extra["rls"], state.extra["previous"][None], alpha=alpha_t)
        means = jax.vmap(lambda h: model.mean(h, present), 1)(features)
        return {"rls": updated, "previous": means}

    def step(state, batch):
        batch = model.transform(step_key(state), batch)
        due, metrics = {}, {}
        for m in encoders:                                            # eq. 1
            state, due[m], measured = update_modality(state, batch, m)
            metrics |= measured
        updates = jnp.maximum(sum(x.astype(jnp.int32) for x in due.values()), 1)
        # Means over the updates that were made: there is no loss of a modality that nobody has.
        means = {name: sum(jnp.where(due[m], metrics[f"{name}/{m}"], 0.0) for m in encoders) / updates
                 for name in ("loss", *["gradient_norm"] * model.gradient_norm)}
        return state._replace(step=state.step + 1), means | metrics

    def weights(state, outputs, present):
        del state
        return entropy_weighted({m: outputs[m] for m in encoders}, present)[1]

    return Method(init, step, make_predict(model), make_features(model),
                  weights=weights if config.dynamic_fusion else None)


def entropy_fused(logits, present) -> chex.Array:
    """Logits [B, C] fused by the entropy of each modality (eq. 6-8)."""
    return entropy_weighted(logits, present)[0]


def check_options(config: MLAConfig) -> None:
    """Raises UserError for an option that is unknown or out of range."""
    check_choice("method.projection", config.projection, ("rls", "none"))
    check_choice("method.features", config.features, ("current", "previous"))
    check_choice("method.alpha_schedule", config.alpha_schedule, ("constant", "released"))
    check_above("method.alpha", config.alpha, 0)
