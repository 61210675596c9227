"""DER++: dark experience replay, of logits and of labels (Buzzega et al., NeurIPS 2020)."""
from dataclasses import dataclass

import jax.numpy as jnp

from jaxmm.config import scalar
from jaxmm.errors import check_at_least
from jaxmm.keys import named_key
from jaxmm.losses.distillation import mean_squared_error
from jaxmm.methods import common, continual


@dataclass
class DERConfig(continual.MemoryConfig):
    """Dark experience replay (DER++); with beta = 0, DER."""
    name: str = "derpp"
    alpha: float = scalar(0.5)      # weight of the MSE to the stored logits, >= 0
    beta: float = scalar(0.5)       # weight of the CE of replayed examples, >= 0


def make_derpp(config: DERConfig, model: common.Model) -> common.Method:
    """CE(z, y) + alpha MSE(z'_1, z*_1) + beta CE(z'_2, y'_2), of the fused head.

    1 and 2 are two samples of the memory, augmented afresh; z* [B, K] are the logits when they entered it.
    With `config.lambda_` it acts on the head of each modality, too, each with its own z*.
    """
    check_at_least("method.alpha", config.alpha, 0)
    check_at_least("method.beta", config.beta, 0)
    model = continual.chosen_model(config, model)
    continual.check_memory(config, model)

    def init(key, batch):
        return common.init_state(model, key, batch, lambda key, _: {
            "memory": continual.init_memory(config, model, key, batch, logits={
                head: jnp.zeros(model.task.size) for head in continual.heads_of(config, model)})})

    def step(state, batch):
        batch = common.only(batch, model.encoders)
        memory, old, valid = continual.sample_past(config, model, state.extra["memory"], batch)
        memory, taught, _ = continual.sample_past(config, model, memory, batch)
        key = common.step_key(state)
        now = model.transform(key, batch)
        old = model.transform(named_key(key, "replayed"), old)
        taught = model.transform(named_key(key, "replayed labels"), taught)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, now, train=True)
            dark = model.run(params, out.batch_stats, old, train=True)
            past = model.run(params, dark.batch_stats, taught, train=True)
            terms = continual.by_head(config, model, lambda head: model.task.loss(
                out.outputs[head], now["label"]), now["present"])
            terms |= continual.by_head(config, model, lambda head: config.alpha * mean_squared_error(
                dark.outputs[head], old["logits"][head]), old["present"], valid, "dark/")
            terms |= continual.by_head(config, model, lambda head: config.beta * model.task.loss(
                past.outputs[head], taught["label"]), taught["present"], valid, "replayed/")
            return terms, out._replace(batch_stats=past.batch_stats)

        losses, out, grads = common.gradients(model, state.params, loss_fn)
        memory = continual.remember(model, memory, batch | {"logits": {
            head: out.outputs[head] for head in continual.heads_of(config, model)}})
        return common.finish_step(
            model, state, batch, losses, out, grads, extra=state.extra | {"memory": memory},
            present={m: jnp.concatenate([b["present"][m] for b in (now, old, taught)]) for m in model.encoders})

    return continual.with_nme(config, model, common.Method(
        init, step, common.make_predict(model), common.make_features(model)))
