"""CLS-ER: replay with two averages of the network as teachers (Arani et al., ICLR 2022)."""
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmm.config import scalar
from jaxmm.errors import check_at_least, check_probability, check_share
from jaxmm.keys import named_key
from jaxmm.losses.distillation import mean_squared_error
from jaxmm.methods import common, continual
from jaxmm.task import likelihood

AVERAGES = ("plastic", "stable")


@dataclass
class CLSERConfig(continual.MemoryConfig):
    """Replay that imitates a fast and a slow average of the network (CLS-ER)."""
    name: str = "cls_er"
    weight: float = scalar(0.15)    # w of the MSE to the logits of an average, >= 0
    r_plastic: float = scalar(0.9)  # probability in [0, 1] that a step moves the fast average,
    r_stable: float = scalar(0.6)   # and the slow one; it should be the lower
    alpha: float = scalar(0.999)    # of the averages in the long run, in [0, 1)
    working: bool = False           # predict by the network itself; off: by the slow average


def make_cls_er(config: CLSERConfig, model: common.Model) -> common.Method:
    """CE([z, z'], [y, y']) + w MSE(z', z*), of the fused head.

    z and z' are the logits of the current batch and of a replayed one, which go through the network together.
    z* are those of the average that now gives y' more probability, for each example and head. After a step each
    average moves with its probability: theta <- a theta + (1 - a) theta_now, a = min(1 - 1 / (step + 1),
    alpha), and batch statistics alike. With `config.lambda_` it acts on the head of each modality, too.

    Raises:
      UserError: an option out of range.
    """
    check_at_least("method.weight", config.weight, 0)
    check_probability("method.alpha", config.alpha)
    for name in AVERAGES:
        check_share(f"method.r_{name}", getattr(config, f"r_{name}"))
    model = continual.chosen_model(config, model)
    continual.check_memory(config, model)

    def init(key, batch):
        state = common.init_state(model, key, batch, lambda key, _: {
            "memory": continual.init_memory(config, model, key, batch)})
        return state._replace(extra=state.extra | {
            name: (state.params, state.batch_stats) for name in AVERAGES})

    def step(state, batch):
        batch = common.only(batch, model.encoders)
        memory, past, valid = continual.sample_past(config, model, state.extra["memory"], batch)
        key = common.step_key(state)
        past = model.transform(named_key(key, "replayed"), past)
        both = continual.concatenate(model.transform(key, batch), past)
        rows = len(batch["label"])
        counts = jnp.concatenate([jnp.ones(rows, bool), valid])
        taught = {name: model.run(*state.extra[name], past, train=False).outputs for name in AVERAGES}

        def target(head):
            """z* [B, K]."""
            plastic, stable = (taught[name][head] for name in AVERAGES)
            better = likelihood(model.task, stable, past["label"]) > likelihood(model.task, plastic, past["label"])
            return jnp.where(better[:, None], stable, plastic)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, both, train=True)
            terms = continual.by_head(config, model, lambda head: model.task.loss(
                out.outputs[head], both["label"]), both["present"], counts)
            terms |= continual.by_head(config, model, lambda head: config.weight * mean_squared_error(
                out.outputs[head][rows:], target(head)), past["present"], valid, "consistency/")
            return terms, out

        losses, out, grads = common.gradients(model, state.params, loss_fn)
        out = out._replace(outputs=jax.tree.map(lambda z: z[:rows], out.outputs))
        state, metrics = common.finish_step(
            model, state, batch, losses, out, grads, present=both["present"],
            extra=state.extra | {"memory": continual.remember(model, memory, batch)})
        a = jnp.minimum(1 - 1 / (state.step + 1), config.alpha)
        extra = {name: move(state.extra[name], (state.params, state.batch_stats), a, jax.random.bernoulli(
            named_key(common.own_key(key), name), getattr(config, f"r_{name}"))) for name in AVERAGES}
        return state._replace(extra=state.extra | extra), metrics

    def averaged(read):
        """read(state, batch) of the network that predicts."""
        if config.working:
            return read

        def read_average(state, batch):
            params, batch_stats = state.extra["stable"]
            return read(state._replace(params=params, batch_stats=batch_stats), batch)

        return read_average

    return continual.with_nme(config, model, common.Method(
        init, step, averaged(common.make_predict(model)), averaged(common.make_features(model))))


def move(average, now, a, due):
    """a average + (1 - a) now where it is due, otherwise the average as it is."""
    return jax.tree.map(lambda x, y: jnp.where(due, a * x + (1 - a) * y, x), average, now)
