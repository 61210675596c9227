"""ReconBoost: boosting over modalities, one in each stage (arXiv 2405.09321)."""
import functools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.config import MethodConfig, scalar
from jaxmm.errors import check_at_least
from jaxmm.losses.distillation import mean_squared_error
from jaxmm.methods.common import (Method, anyone, check_several, finish_step, gradients, init_state, make_features,
                                  make_joint, make_predict, renew_optimizer, step_key)
from jaxmm.methods.fusion import fused_loss
from jaxmm.methods.rebalance import by_layer
from jaxmm.methods.taught import unimodal_encoders, unimodal_models, with_encoders
from jaxmm.model import Model
from jaxmm.task import likelihood, need_classes


@dataclass
class ReconBoostConfig(MethodConfig):
    """Linear heads, summed; one modality a stage learns what the others get wrong (arXiv 2405.09321)."""
    name: str = "reconboost"
    stage_epochs: int = 4           # of a stage in which one modality is trained, >= 1
    joint_epochs: int = 4           # and in which all are trained then, >= 0
    w1: float = scalar(5.0)         # of the cross-entropy, >= 0
    w2: float = scalar(1.0)         # of what the others know of it, >= 0
    alpha: float = scalar(0.5, agreement=True)     # weight of agreeing with the modality's last stage, >= 0
    agreement: bool = True          # off, as released, where that term has no gradient; spares a copy
    teachers: str = ""              # unimodal models, whose encoders are the start; see TaughtConfig


def make_reconboost(config: ReconBoostConfig, model: Model) -> Method:
    """Stage s trains modality m = s mod M, then CE(sum_m z_m) trains all.

    For the loss of a stage see `boosting_loss`. With `config.agreement` it has the additional term
    alpha MSE(p_m, p_m*), where p_m* is the prediction of encoder and layer of m as its last stage left them,
    joint epochs included; the first stage of a modality is without. Encoders start as those of unimodal
    models, under a new head. In a stage nothing of the other modalities changes. The state of the optimizer
    starts anew whenever a stage begins, or its joint epochs.

    Raises:
      UserError: fewer than two modalities, an option out of range, or a task that is not a classification.
    """
    check_at_least("method.stage_epochs", config.stage_epochs, 1)
    for name in ("joint_epochs", "w1", "w2", "alpha"):
        check_at_least(f"method.{name}", getattr(config, name), 0)
    check_several(model, "reconboost lets one modality learn what the others get wrong")
    need_classes(model.task, "reconboost, which weighs by probabilities of classes,", "use late or sum")
    model = model._replace(head=heads.separate(model.task.size), optimizer=by_layer(model.optimizer))
    names, period = list(model.encoders), config.stage_epochs + config.joint_epochs

    def init(key, batch):
        state = init_state(model, key, batch)
        return state._replace(extra={"last": (state.params, state.batch_stats)}) if config.agreement else state

    def teach(state, models):
        return with_encoders(state, *unimodal_encoders(models))

    def stage(m, state, batch):
        batch = model.transform(step_key(state), batch)
        there = batch["present"][m]

        def disagreement(z):
            last = model.run(*state.extra["last"], batch, train=False, only=(m,)).outputs[m]
            term = model.mean(mean_squared_error(jax.nn.softmax(z), jax.nn.softmax(last)), there)
            return jnp.where(model.epoch(state.step).done >= len(names) * period, config.alpha * term, 0.0)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=(m,))
            others = sum(z for k, z in out.outputs.items() if k not in (m, "fused"))
            known = likelihood(model.task, others, batch["label"])
            losses = boosting_loss(model.task.loss(out.outputs[m], batch["label"]), known, config.w1, config.w2,
                                   model.task.size)
            terms = {m: model.mean(losses, there)}
            return terms | ({"agreement": disagreement(out.outputs[m])} if config.agreement else {}), out

        due = {f"head/{k}": anyone(model, there) & (k == m) for k in names}
        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn, (m, "head")), due=due)

    def phase(at):
        number, epoch = divmod(at.epoch, period)
        return f"stage_{names[number % len(names)]}" if epoch < config.stage_epochs else "joint"

    def end_epoch(state, features_of):
        del features_of
        number, epoch = divmod(int(model.epoch(state.step - 1).done), period)
        if config.agreement and epoch == period - 1:
            state = state._replace(extra={"last": replaced(state, names[number % len(names)])})
        return renew_optimizer(model, state) if epoch + 1 in (config.stage_epochs, period) else state

    def replaced(state, m):
        """The parameters and batch statistics of last stages, with those that modality m has now."""
        params, batch_stats = state.extra["last"]
        head = params["head"] | {m: state.params["head"][m]}
        return params | {m: state.params[m], "head": head}, batch_stats | {m: state.batch_stats[m]}

    return Method(init, {f"stage_{m}": functools.partial(stage, m) for m in names}
                  | {"joint": make_joint(model, fused_loss(model)).step},
                  make_predict(model), make_features(model), phase=phase, end_epoch=end_epoch,
                  teachers=unimodal_models(model), teach=teach)


def boosting_loss(losses: chex.Array, known: chex.Array, w1: chex.Numeric, w2: chex.Numeric, num_classes: int
                  ) -> chex.Array:
    """(w1 - w2 p_J[y]) / C CE(z_m, y) [B], with the probability p_J[y] that the other modalities give the label.

    Args:
      losses: CE(z_m, y) [B].
      known: p_J[y] [B], which carries no gradient.
      w1, w2: weights.
      num_classes: C.
    """
    return (w1 - w2 * jax.lax.stop_gradient(known)) / num_classes * losses
