"""Online EWC: what earlier tasks need of the weights is held in place (Schwarz et al., ICML 2018).

References:
  Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017.
  Schwarz et al., "Progress & compress", ICML 2018, section 4.
"""
from dataclasses import dataclass
from math import gcd

import jax
import jax.numpy as jnp

from jaxmm.config import scalar
from jaxmm.errors import UserError, check_at_least, check_choice, check_share, suggest
from jaxmm.methods import common, continual
from jaxmm.model import names_of
from jaxmm.task import likelihood

CHUNK = 8       # examples whose gradients are in memory at once


@dataclass
class EWCConfig(continual.SGDConfig):
    """Elastic weight consolidation, online (EWC)."""
    name: str = "ewc"
    lam: float = scalar(1.0)        # weight of the penalty, >= 0
    lam_of: str = ""                # parameter groups with another weight, as audio=10,head=0
    gamma: float = scalar(1.0)      # what is left of the Fisher information when a task ends, in [0, 1]
    fisher: str = "label"           # of the labels: "label", or "weighted" by their probability, as mammoth


def make_ewc(config: EWCConfig, model: common.Model) -> common.Method:
    """CE + sum_g lam_g sum F_g (theta_g - theta_g*)^2 over the parameter groups g, without stored examples.

    After a task theta* <- theta, and F <- gamma F + mean over its examples of (d log p_y / d theta)^2, in
    evaluation mode and without augmentation; with fisher="weighted" each square is multiplied by p_y. p_y is
    the probability that the fused head gives the label. With `config.lambda_` the loss acts on the head of each
    modality, too, and so does the gradient whose square is taken. Batch statistics are not held.

    Raises:
      UserError: an option out of range, or a weight of a group that there is not.
    """
    check_at_least("method.lam", config.lam, 0)
    check_share("method.gamma", config.gamma)
    check_choice("method.fisher", config.fisher, ("label", "weighted"))
    model = continual.chosen_model(config, model)
    weights = read_weights(config.lam_of, (*model.encoders, "head"))

    def init(key, batch):
        state = common.init_state(model, key, batch)
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        return state._replace(extra={"anchor": state.params, "fisher": zeros, "sum": zeros,
                                     "count": jnp.zeros(())})

    def loss_of(outputs, batch):
        return continual.by_head(config, model, lambda head: model.task.loss(
            outputs[head], batch["label"]), batch["present"])

    def step(state, batch):
        batch = model.transform(common.step_key(state), batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            held = penalty(params, state.extra["anchor"], state.extra["fisher"], {
                group: weights.get(group, config.lam) for group in params})
            return loss_of(out.outputs, batch) | {"penalty": held}, out

        return common.finish_step(model, state, batch, *common.gradients(model, state.params, loss_fn))

    # A row by itself is the whole of its batch, which no other device has a part of.
    alone = model._replace(axis_name=None)

    def squares(state, row):
        """(d loss / d theta)^2 of one example, times p_y if it is weighted; 0 if it does not count."""
        row = jax.tree.map(lambda x: x[None], row)

        def loss_fn(params):
            outputs = alone.run(params, state.batch_stats, row, train=False).outputs
            terms = continual.by_head(config, alone, lambda head: model.task.loss(
                outputs[head], row["label"]), row["present"])
            return sum(terms.values()), likelihood(model.task, outputs["fused"], row["label"])[0]

        (_, p), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        counts = continual.counted(row)[0]
        factor = p if config.fisher == "weighted" else 1.0
        return jax.tree.map(lambda g: jnp.where(counts, factor * g ** 2, 0.0), grads)

    def visit(state, batch):
        batch = model.transform(None, common.only(batch, model.encoders))
        rows = len(batch["label"])
        chunks = jax.tree.map(lambda x: x.reshape(-1, gcd(rows, CHUNK), *x.shape[1:]), batch)

        def add(total, chunk):
            found = jax.vmap(lambda row: squares(state, row))(chunk)
            return jax.tree.map(lambda x, y: x + y.sum(0), total, found), None

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        total, _ = jax.lax.scan(add, zeros, chunks)
        count = continual.counted(batch).sum(dtype=jnp.float32)
        total, count = model.sum((total, count))
        return state._replace(extra=state.extra | {
            "sum": jax.tree.map(jnp.add, state.extra["sum"], total), "count": state.extra["count"] + count})

    def end_task(state):
        extra = state.extra
        fisher = jax.tree.map(lambda f, s: config.gamma * f + s / jnp.maximum(extra["count"], 1),
                              extra["fisher"], extra["sum"])
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        return state._replace(extra={"anchor": state.params, "fisher": fisher, "sum": zeros,
                                     "count": jnp.zeros(())})

    return common.Method(init, step, common.make_predict(model), common.make_features(model), visit=visit,
                         end_task=end_task)


def penalty(params, anchor, fisher, weights):
    """sum_g lam_g sum F_g (theta_g - theta_g*)^2, a scalar, over the groups of `weights`."""
    return sum(weights[group] * jnp.sum(f * (x - old) ** 2) for group in weights for x, old, f in zip(
        *map(jax.tree.leaves, (params[group], anchor[group], fisher[group]))))


def read_weights(text: str, groups) -> dict[str, float]:
    """The weights by group of "GROUP=WEIGHT,GROUP=WEIGHT".

    Raises:
      UserError: a group that there is not, or a weight that is not a number of at least 0.
    """
    weights = {}
    for pair in names_of(text):
        group, _, value = pair.partition("=")
        if group not in groups:
            raise UserError(f"method.lam_of={text}: there is no parameter group {group!r}{suggest(group, groups)}")
        try:
            weights[group] = float(value)
        except ValueError as error:
            raise UserError(f"method.lam_of={text}: {value!r} of {group} is not a number; expected "
                            "GROUP=WEIGHT, separated by commas") from error
        check_at_least(f"method.lam_of: {group}", weights[group], 0)
    return weights
