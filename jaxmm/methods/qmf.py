"""QMF: quality-aware multimodal fusion (Zhang et al., 2023).

As the baseline of MLA (arXiv 2311.10707, table 1).
"""
import jax
import jax.numpy as jnp
import optax

from jaxmm import heads
from jaxmm.batch import Batch, Logits
from jaxmm.config import QMFConfig
from jaxmm.errors import check_at_least
from jaxmm.losses.classification import cross_entropy
from jaxmm.losses.ranking import ranking_loss
from jaxmm.methods.common import (Components, Method, finish_step, gradients, identity, init_state,
                                  make_features, make_predict, step_key)
from jaxmm.state import history


def make_qmf(config: QMFConfig, components: Components, *, axis_name: str | None = None) -> Method:
    """One linear layer per modality, fused by confidence that is ranked by difficulty.

    The loss is CE(z_f) + sum_m CE(z_m) + w sum_m rank_m, with z_f = sum_m sg(c_m) z_m and
    c_m = logsumexp(z_m) / 10. How hard an example is for a modality is the sum of its losses so far,
    those of this step included, in `state.extra["history"]`.

    Raises:
      UserError: a negative weight.
    """
    check_at_least("method.weight", config.weight, 0)
    head = heads.separate(components.num_classes)

    def init(key, batch):
        return init_state(components, head, key, batch, lambda key, widths: {
            "history": {m: history.init(components.num_examples) for m in widths}})

    def updated(state, logits: Logits, batch: Batch):
        """Histories by modality with the losses of this step."""
        return {m: history.update(
            h, batch["id"], optax.softmax_cross_entropy_with_integer_labels(
                logits[m], batch["label"]), batch["present"][m], axis_name=axis_name)
            for m, h in state.extra["history"].items()}

    def step(state, batch):
        batch = components.transform(step_key(state), batch)

        def loss_fn(out):
            histories = updated(state, out.logits, batch)
            loss = cross_entropy(out.logits["fused"], batch["label"], axis_name=axis_name)
            for m, h in histories.items():
                z, present = out.logits[m], batch["present"][m]
                loss += cross_entropy(z, batch["label"], present, axis_name)
                loss += config.weight * ranking_loss(
                    energy(z), history.relative(h, batch["id"]), present, axis_name)
            return loss

        loss, out, grads = gradients(components, head, state, batch, loss_fn, fuse=fuse,
                                     axis_name=axis_name)
        return finish_step(components, state, batch, loss, out, grads, axis_name=axis_name,
                           extra={"history": updated(state, out.logits, batch)})

    return Method(init, step, make_predict(components, head, fuse), make_features(components),
                  identity)


def energy(logits):
    """Confidence [B] of logits [B, C]: logsumexp(z) / 10."""
    return jax.nn.logsumexp(logits, axis=-1) / 10


def fuse(logits, present):
    """sum_m sg(c_m) z_m [B, C] over the modalities that are present."""
    return sum(jnp.where(present[m], jax.lax.stop_gradient(energy(z)), 0.0)[:, None] * z
               for m, z in logits.items())
