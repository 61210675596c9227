"""LFM: aligns the modalities first, and fits the labels later (NeurIPS 2024)."""
import itertools
from dataclasses import dataclass

import chex
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.config import MethodConfig, scalar
from jaxmm.errors import check_above, check_choice
from jaxmm.heads.fusion import mean_logits
from jaxmm.losses import weighted_mean
from jaxmm.losses.alignment import contrastive_loss, divergence_from_mean
from jaxmm.methods.common import (Method, check_several, finish_step, gradients, init_state, make_features,
                                  make_predict, step_key)
from jaxmm.methods.fusion import fused_loss
from jaxmm.model import Model
from jaxmm.task import need_classes

EPOCHS = 200        # of the released curve: (epoch, weight of the labels)
CURVE = ((0, .205), (20, .301), (50, .437), (70, .484), (100, .539), (130, .672), (150, .821), (170, .969),
         (199, .916))


@dataclass
class LFMConfig(MethodConfig):
    """Alignment of the modalities whose weight gives way to that of the labels (LFM)."""
    name: str = "lfm"
    align: str = "js"               # of predictions, "js" as released; or "contrastive", of features
    temperature: float = scalar(0.4, align="contrastive")   # of "contrastive", > 0


def make_lfm(config: LFMConfig, model: Model) -> Method:
    """w(e) CE(z_f) + (1 - w(e)) L_align, one linear layer for each modality and z_f the mean of their logits.

    w(e) is the curve that the released code has fitted over 200 epochs, stretched to the epochs of the run.
    L_align is the divergence of the predictions from their mean, over the examples that have several
    modalities; or, as the paper has it without all the details, the mean over pairs of modalities of a
    contrastive loss of the features. The released code has both terms twice: its learning rate is half of
    what is the same here.

    Raises:
      UserError: fewer than two modalities, an unknown alignment, a temperature <= 0; for "js" a task that is
        not a classification, for "contrastive" features of several sizes.
    """
    check_several(model, "lfm aligns modalities with each other")
    check_choice("method.align", config.align, ("js", "contrastive"))
    check_above("method.temperature", config.temperature, 0)
    if config.align == "js":
        need_classes(model.task, "alignment of predictions", "set --config.method.align=contrastive")
    model = model._replace(head=heads.separate(model.task.size), fuse=mean_logits)

    def init(key, batch):
        return init_state(model, key, batch, check_widths)

    def check_widths(key, widths):
        del key
        if config.align == "contrastive":
            heads.common_width(widths, "a contrastive loss needs")
        return ()

    def alignment(out, batch):
        if config.align == "js":
            logits = {m: out.outputs[m] for m in model.encoders}
            several = sum(batch["present"][m].astype(jnp.int32) for m in logits) > 1
            return model.mean(divergence_from_mean(logits, batch["present"]), several)
        features, present = model.gather((out.features, batch["present"]))
        pairs = list(itertools.combinations(features, 2))
        both = {(m, n): present[m] & present[n] for m, n in pairs}
        losses = [contrastive_loss(features[m], features[n], both[m, n], config.temperature)
                  for m, n in pairs]
        return weighted_mean(jnp.stack(losses), jnp.stack([both[pair].any() for pair in pairs]))

    def step(state, batch):
        batch = model.transform(step_key(state), batch)
        weight = label_weight(model.epoch(state.step))

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            return {"fused": weight * fused_loss(model)(out.outputs, batch),
                    "alignment": (1 - weight) * alignment(out, batch)}, out

        state, metrics = finish_step(model, state, batch, *gradients(model, state.params, loss_fn))
        return state, metrics | {"label_weight": weight}

    return Method(init, step, make_predict(model), make_features(model))


def label_weight(epoch) -> chex.Array:
    """w(e) in (0, 1) at the place of a step, a `jaxmm.train.plan.Epoch`: one value for each epoch."""
    at, weights = zip(*CURVE, strict=True)
    return jnp.interp(epoch.done * (EPOCHS / epoch.epochs), jnp.array(at), jnp.array(weights))
