"""A-GEM: steps that do not raise the loss of a replayed batch (Chaudhry et al., ICLR 2019)."""
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxmm.keys import named_key
from jaxmm.methods import common, continual


@dataclass
class AGEMConfig(continual.MemoryConfig):
    """Gradients of which what opposes that of a replayed batch is taken away (A-GEM)."""
    name: str = "agem"


def make_agem(config: AGEMConfig, model: common.Model) -> common.Method:
    """Steps along g - (g.r / r.r) r if g.r < 0, and along g otherwise, over all parameters together.

    g is the gradient of CE(z, y) on the current batch and r that on a replayed one, of the fused head; with
    `config.lambda_` of the head of each modality, too. The memory is a reservoir.

    Raises:
      UserError: an option out of range.
    """
    model = continual.chosen_model(config, model)
    continual.check_memory(config, model)

    def init(key, batch):
        return common.init_state(model, key, batch, lambda key, _: {
            "memory": continual.init_memory(config, model, key, batch)})

    def gradient(state, batch_stats, batch, counts=None):
        def loss_fn(params):
            out = model.run(params, batch_stats, batch, train=True)
            return continual.by_head(config, model, lambda head: model.task.loss(
                out.outputs[head], batch["label"]), batch["present"], counts), out

        return common.gradients(model, state.params, loss_fn)

    def step(state, batch):
        batch = common.only(batch, model.encoders)
        memory, past, valid = continual.sample_past(config, model, state.extra["memory"], batch)
        key = common.step_key(state)
        now = model.transform(key, batch)
        past = model.transform(named_key(key, "replayed"), past)
        losses, out, grads = gradient(state, state.batch_stats, now)
        past_losses, again, reference = gradient(state, out.batch_stats, past, valid)
        losses |= {"replayed_loss": past_losses["loss"]}
        return common.finish_step(
            model, state, batch, losses, out._replace(batch_stats=again.batch_stats), project(grads, reference),
            extra=state.extra | {"memory": continual.remember(model, memory, batch)},
            present=continual.concatenate(now["present"], past["present"]))

    return continual.with_nme(config, model, common.Method(
        init, step, common.make_predict(model), common.make_features(model)))


def project(grads, reference):
    """g - min(g.r, 0) / r.r r, of two trees of the same form; g where r is 0."""
    along = optax.tree.vdot(grads, reference)
    square = optax.tree.vdot(reference, reference)
    share = jnp.minimum(along, 0) / jnp.where(square > 0, square, 1.0)
    return jax.tree.map(lambda g, r: g - share * r, grads, reference)
