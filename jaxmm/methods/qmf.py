"""QMF: quality-aware multimodal fusion (Zhang et al., 2023).

It is a baseline of MLA (arXiv 2311.10707, table 1).
"""
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.batch import Batch, Logits
from jaxmm.config import MethodConfig, scalar
from jaxmm.errors import check_at_least
from jaxmm.losses.ranking import ranking_loss
from jaxmm.methods.common import (Method, finish_step, first_of_each, gradients,
                                  init_state, make_features, make_predict, step_key)
from jaxmm.methods.fusion import modality_loss
from jaxmm.model import Model
from jaxmm.state import history
from jaxmm.task import need_classes


@dataclass
class QMFConfig(MethodConfig):
    """Quality-aware fusion: logits weighted by energy (QMF, Zhang et al., 2023)."""
    name: str = "qmf"
    weight: float = scalar(0.1)     # of the ranking losses, >= 0; the paper takes 1 for images with text


def make_qmf(config: QMFConfig, model: Model) -> Method:
    """One linear layer per modality, fused by confidence that is ranked by difficulty.

    The loss is CE(z_f) + sum_m CE(z_m) + w sum_m rank_m, with z_f = sum_m sg(c_m) z_m and
    c_m = logsumexp(z_m) / 10; for rank_m see `jaxmm.losses.ranking`. The difficulty of an example
    for a modality is the sum of its training losses so far, this step included. It is kept in
    `state.extra["history"]` and min-max normalised over the examples seen with that modality.

    Raises:
      UserError: a negative weight, or a task that is not a classification.
    """
    check_at_least("method.weight", config.weight, 0)
    need_classes(model.task, "fusion by energy", "use late or concat")
    model = model._replace(head=heads.separate(model.task.size), fuse=fuse)

    def init(key, batch):
        return init_state(model, key, batch, lambda key, widths: {
            "history": {m: history.init(model.num_examples) for m in widths}})

    def updated(state, logits: Logits, batch: Batch):
        """Histories by modality with the losses of this step, once for each example."""
        first = first_of_each(model, batch["id"])
        return {m: history.update(h, batch["id"], model.task.loss(logits[m], batch["label"]),
                                  batch["present"][m] & first, axis_name=model.axis_name)
                for m, h in state.extra["history"].items()}

    def step(state, batch):
        batch = model.transform(step_key(state), batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            terms = {"fused": model.mean(model.task.loss(out.outputs["fused"], batch["label"]))}
            for m, h in updated(state, out.outputs, batch).items():
                terms[m] = modality_loss(model, out.outputs, batch, m)
                terms[f"ranking/{m}"] = config.weight * ranking_loss(*model.gather((
                    energy(out.outputs[m]), history.relative(h, batch["id"]), batch["present"][m])))
            return terms, out

        losses, out, grads = gradients(model, state.params, loss_fn)
        return finish_step(model, state, batch, losses, out, grads,
                           extra={"history": updated(state, out.outputs, batch)})

    def weights(state, outputs, present):
        del state
        return confidences({m: outputs[m] for m in model.encoders}, present)

    return Method(init, step, make_predict(model), make_features(model), weights=weights)


def energy(logits):
    """Confidence c [B] of logits z [B, C]: logsumexp(z) / 10."""
    return jax.nn.logsumexp(logits, axis=-1) / 10


def fuse(logits, present):
    """sum_m sg(c_m) z_m [B, C] over the modalities that are present."""
    confidence = confidences(logits, present)
    return sum(confidence[m][:, None] * z for m, z in logits.items())


def confidences(logits, present):
    """sg(c_m) [B] by modality, 0 where the modality is missing."""
    return {m: jnp.where(present[m], jax.lax.stop_gradient(energy(z)), 0.0) for m, z in logits.items()}
