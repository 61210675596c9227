"""G2D: gradient-guided distillation, with the weaker modalities trained first (arXiv 2506.21514)."""
import functools
from collections.abc import Mapping
from dataclasses import dataclass

import chex
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.config import MethodConfig, scalar
from jaxmm.errors import check_at_least, check_share
from jaxmm.heads.fusion import mean_logits
from jaxmm.losses.distillation import kl_divergence, mean_squared_error
from jaxmm.methods.common import (Method, check_several, finish_step, gradients, init_state, make_features,
                                  make_predict, step_key)
from jaxmm.methods.taught import unimodal_models, unimodal_networks
from jaxmm.model import Model
from jaxmm.task import likelihood, need_classes


@dataclass
class G2DConfig(MethodConfig):
    """Distils from unimodal teachers, and trains the weaker modalities first (G2D, arXiv 2506.21514)."""
    name: str = "g2d"
    alpha: float = scalar(1.0)      # weight of the features' distillation, >= 0
    beta: float = scalar(1.0)       # weight of the predictions' distillation, >= 0
    temperature: float = 1.0        # T of the predictions' distillation, > 0
    tau: float = 0.5                # share of the epochs, in [0, 1], that begin without the strongest encoder
    teachers: str = ""              # see TaughtConfig


def make_g2d(config: G2DConfig, model: Model) -> Method:
    """CE(z_f) + sum_m [alpha MSE(h_m, h_m*) + beta T^2 KL(p_m* || p_f)], where z_f = mean_m z_m.

    h_m* and p_m* are those of a teacher trained on m alone, for the same augmented input. In the first
    share `config.tau` of the epochs the encoder of the strongest modality is frozen: neither parameters nor
    state of the optimizer nor batch statistics change. The strongest is the one to whose labels its teacher gives the
    largest mean probability, over all training rows that have it, without augmentation.

    Raises:
      UserError: fewer than two modalities, an option out of range, or a task that is not a classification.
    """
    check_at_least("method.alpha", config.alpha, 0)
    check_at_least("method.beta", config.beta, 0)
    check_at_least("method.temperature", config.temperature, 1e-3)
    check_share("method.tau", config.tau)
    check_several(model, "g2d trains the weaker modalities before the strongest")
    need_classes(model.task, "g2d, which distils predictions,", "use umt")
    model = model._replace(head=heads.separate(model.task.size), fuse=mean_logits)

    def init(key, batch):
        state = init_state(model, key, batch)
        return state._replace(extra={"teacher": (state.params, state.batch_stats),
                                     "confidence": {m: jnp.zeros(2) for m in model.encoders}})

    def teach(state, models):
        return state._replace(extra=state.extra | {"teacher": unimodal_networks(models)})

    def survey(state, batch):
        batch = model.transform(None, batch)
        out = model.run(*state.extra["teacher"], batch, train=False)

        def measure(m):
            """The sum of the labels' probabilities, and their number."""
            there = batch["present"][m].astype(jnp.float32)
            return model.sum(jnp.stack([jnp.sum(there * likelihood(model.task, out.outputs[m], batch["label"])),
                                        jnp.sum(there)]))

        confidence = {m: sums + measure(m) for m, sums in state.extra["confidence"].items()}
        return state._replace(extra=state.extra | {"confidence": confidence})

    def step(state, batch, groups=None):
        batch = model.transform(step_key(state), batch)
        teacher = model.run(*state.extra["teacher"], batch, train=False)

        def mean(m, values):
            return model.mean(values, batch["present"][m])

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=groups or True)
            z = out.outputs["fused"]
            features = sum(mean(m, mean_squared_error(out.features[m], h)) for m, h in teacher.features.items())
            labels = sum(mean(m, kl_divergence(z, teacher.outputs[m], config.temperature)) for m in model.encoders)
            return {"fused": model.mean(model.task.loss(z, batch["label"])),
                    "features": config.alpha * features, "labels": config.beta * labels}, out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn, groups))

    def without(strongest):
        return functools.partial(step, groups=[*(m for m in model.encoders if m != strongest), "head"])

    def phase(at):
        early = at.epoch < config.tau * model.epoch(at.step).epochs
        return f"without_{find_strongest(at.extra()['confidence'])}" if early else "all"

    return Method(init, {"all": step} | {f"without_{m}": without(m) for m in model.encoders},
                  make_predict(model), make_features(model), phase=phase,
                  survey=survey if config.tau else None,
                  teachers=unimodal_models(model), teach=teach, distils=True)


def find_strongest(confidence: Mapping[str, chex.Array]) -> str:
    """The modality of the largest mean, from (sum, count) [2] by modality; the first one of equals."""
    means = {m: float(total) / max(float(count), 1.0) for m, (total, count) in confidence.items()}
    return max(means, key=lambda m: means[m])
