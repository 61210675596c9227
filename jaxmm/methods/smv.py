"""SMV: examples are repeated for the modality that contributes little to them (Wei et al., CVPR 2024)."""
from collections.abc import Mapping
from dataclasses import dataclass

import chex
import jax.numpy as jnp

from jaxmm import heads, shapley
from jaxmm.config import scalar
from jaxmm.errors import check_at_least, check_choice
from jaxmm.methods.common import (Method, check_several, finish_step, first_of_each, gradients, init_state,
                                  make_features, make_predict, step_key)
from jaxmm.methods.fusion import FusedConfig, fused_loss, with_fused_head
from jaxmm.model import Model
from jaxmm.state import latest
from jaxmm.task import need_classes


@dataclass
class SMVConfig(FusedConfig):
    """Sample-level modality valuation (SMV, Wei et al., 2024)."""
    name: str = "smv"
    level: str = "sample"           # what is valued and repeated: each "sample", or a "modality" as a whole
    alpha: float = scalar(1.0, level="modality")   # of the level "modality": repeated share of the
                                    # examples by gap, >= 0
    warmup_epochs: int = 5          # epochs before the first example is repeated


def make_smv(config: SMVConfig, model: Model) -> Method:
    """A fused head that also learns from single modalities, the more of it the less they contribute.

    L = l(z_f, y) + mean_i sum_m n_m,i l(z({m})_i, y_i), where z({m}) is the fused output with the features of
    all other modalities 0, and n_m,i says how often example i is repeated for modality m: see `repeats`, or
    `shares` for the level "modality". It goes by `contributions`, which each step computes for its examples
    and keeps by example in `state.extra["values"]`.

    The paper values all examples after an epoch, and adds the repeated ones to the next; here they are valued
    when they are seen, and repeated at once: as often in expectation.

    Raises:
      UserError: fewer than two modalities or more than ten, an option out of range, an unknown fusion, or a
        task that is not a classification.

    References:
      Wei et al., "Enhancing multimodal cooperation via sample-level modality valuation", CVPR 2024.
    """
    check_choice("method.level", config.level, ("sample", "modality"))
    check_at_least("method.alpha", config.alpha, 0)
    check_at_least("method.warmup_epochs", config.warmup_epochs, 0)
    need_classes(model.task, "smv, which values modalities by right predictions,", "use opm or agm")
    check_several(model, "smv balances modalities against each other")
    subsets = shapley.subsets(list(model.encoders))[1:]
    model = with_fused_head(config, model)

    def init(key, batch):
        return init_state(model, key, batch, lambda key, widths: {
            "values": {m: latest.init(model.num_examples) for m in widths}})

    def step(state, batch):
        batch = model.transform(step_key(state), batch)
        active = model.epoch(state.step).done >= config.warmup_epochs
        first = first_of_each(model, batch["id"])

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            of_subset = heads.logits_by_subset(model.head, params["head"], out.features)
            z = {s: of_subset(s) for s in subsets}
            phi = contributions(z, batch["label"], batch["present"])
            values = {m: latest.update(v, batch["id"], phi[m], batch["present"][m] & first,
                                       axis_name=model.axis_name) for m, v in state.extra["values"].items()}
            n = repeats(phi) if config.level == "sample" else shares(values, config.alpha)
            terms = {"fused": fused_loss(model)(out.outputs, batch)}
            for m in model.encoders:
                weight = jnp.where(active & batch["present"][m], n[m], 0.0)
                terms[m] = model.mean(weight * model.task.loss(z[m,], batch["label"]))
            return terms, (out, values)

        losses, (out, values), grads = gradients(model, state.params, loss_fn)
        state, metrics = finish_step(model, state, batch, losses, out, grads, extra={"values": values})
        return state, metrics | {f"value/{m}": latest.mean(v) for m, v in values.items()}

    return Method(init, step, make_predict(model), make_features(model))


def contributions(z: Mapping[shapley.Subset, chex.Array], label: chex.Array,
                  present: Mapping[str, chex.Array]) -> dict[str, chex.Array]:
    """phi_m [B] by modality: its Shapley value in the game v(S) = |S| [argmax z(S) = y], with v(empty) = 0.

    |S| counts the modalities that an example has; phi of one that it lacks is 0. They add up to v(all).

    Args:
      z: logits [B, C] by subset of the modalities; the empty one may be left out.
      label: int [B].
      present: bool [B] by modality.
    """
    def value(s):
        size = sum(present[m].astype(jnp.float32) for m in s)
        return jnp.where(z[s].argmax(-1) == label, size, 0.0)

    return shapley.values({s: value(s) for s in z if s} | {(): 0.0})


def repeats(phi: Mapping[str, chex.Array]) -> dict[str, chex.Array]:
    """n_m [B] = max(0, ceil(2 (1 - phi_m))) by modality, from `contributions`.

    Of two modalities it is the paper's: 0 if phi_m >= 1, 1 at 1/2, 2 at 0 and 3 at -1/2.
    """
    # Values of up to ten modalities are multiples of 1/2520, but rounded.
    return {m: jnp.maximum(jnp.ceil(2 * (1 - x) - 1e-4), 0.0) for m, x in phi.items()}


def shares(values: Mapping[str, chex.Array], alpha: chex.Numeric) -> dict[str, chex.Array]:
    """n_m [] = clip(2/3 alpha (max_k phibar_k - phibar_m), 0, 1) by modality, of the level "modality".

    phibar_m is the mean of the values [N] of all examples seen with the modality, see `jaxmm.state.latest`.
    Without any, n_m is NaN.
    """
    means = {m: latest.mean(v) for m, v in values.items()}
    best = jnp.nanmax(jnp.stack(list(means.values())))
    return {m: jnp.clip(2 / 3 * alpha * (best - x), 0.0, 1.0) for m, x in means.items()}
