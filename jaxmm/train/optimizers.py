"""Optimizers and learning-rate schedules, from optax."""
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmm.config import OptimizerConfig
from jaxmm.errors import UserError, check_at_least, check_choice
from jaxmm.methods.common import Optimizer


def make_schedule(config: OptimizerConfig, epochs: int) -> optax.Schedule:
    """Learning rate as a function of the epochs done, of `epochs` in all."""
    if config.schedule == "constant":
        return optax.constant_schedule(config.learning_rate)
    if config.schedule == "step":
        return optax.exponential_decay(config.learning_rate, config.decay_epochs,
                                       config.decay_rate, staircase=True)
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(config.learning_rate, epochs)
    raise UserError(f"optimizer.schedule={config.schedule!r}; expected constant, step or cosine")


def make_optimizer(config: OptimizerConfig, epochs: int,
                   epoch: Callable[[chex.Array], chex.Array]) -> Optimizer:
    """The optimizer, with one state per parameter group.

    The learning rate follows `epoch(step)`, the epochs done within the task, of `epochs`: it starts
    anew with every task, and does not depend on how often a method updates a group in a step; a
    group's factor in `scale` multiplies it. Clipping takes the global norm over all groups of one
    update. `sgd` adds weight decay to the gradient before momentum; `adamw` decouples it.

    Raises:
      UserError: unknown optimizer or schedule, or an option out of range.
    """
    for name, least in (("learning_rate", 0), ("momentum", 0), ("weight_decay", 0),
                        ("clip_norm", 0), ("decay_epochs", 1), ("decay_rate", 1e-6)):
        check_at_least(f"optimizer.{name}", getattr(config, name), least)
    if config.momentum >= 1:
        raise UserError(f"optimizer.momentum={config.momentum}; expected a number in [0, 1): from 1 on "
                        "all gradients add up for ever")
    decay = optax.add_decayed_weights(config.weight_decay)
    directions = {
        "sgd": (decay, optax.trace(config.momentum)),
        "adam": (decay, optax.scale_by_adam()),
        "adamw": (optax.scale_by_adam(), decay),
    }
    check_choice("optimizer.name", config.name, directions)
    tx = optax.chain(*directions[config.name])
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    schedule = make_schedule(config, epochs)

    def init(params):
        return {group: tx.init(p) for group, p in params.items()}

    def update(grads, opt_state, params, step, scale=None):
        grads, _ = clip.update(grads, clip.init(grads))
        learning_rate = schedule(epoch(step))
        new_params, new_opt_state = {}, {}
        for group, grad in grads.items():
            direction, new_opt_state[group] = tx.update(grad, opt_state[group], params[group])
            rate = learning_rate * (scale or {}).get(group, 1.0)
            updates = jax.tree.map(lambda d, rate=rate: -rate * d, direction)
            new_params[group] = optax.apply_updates(params[group], updates)
        return new_params, new_opt_state

    return Optimizer(init, update)


def accumulate(optimizer: Optimizer, steps: int) -> Optimizer:
    """Updates once in so many steps, with the mean of their gradients.

    The sum of a group's gradients is a part of its state. The updates that a method makes within
    a step all come in the last of `steps`: where there are several for a group, as for the head of
    MLA, the first one takes what came before. At the end of an epoch or task the sum is kept for
    the next one.
    """
    check_at_least("train.accumulate", steps, 1)
    if steps == 1:
        return optimizer

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return {group: {"inner": inner, "sum": zeros[group]}
                for group, inner in optimizer.init(params).items()}

    def update(grads, opt_state, params, step, scale=None):
        total = {group: jax.tree.map(jnp.add, opt_state[group]["sum"], grad)
                 for group, grad in grads.items()}
        means = jax.tree.map(lambda x: x / steps, total)
        inner = {group: state["inner"] for group, state in opt_state.items()}
        new_params, new_inner = optimizer.update(means, inner, params, step, scale)
        due = (step + 1) % steps == 0

        def choose(new, old):
            return jax.tree.map(lambda x, y: jnp.where(due, x, y), new, old)

        old_params = {group: params[group] for group in grads}
        return choose(new_params, old_params), {
            group: {"inner": choose(new_inner[group], inner[group]),
                    "sum": choose(jax.tree.map(jnp.zeros_like, total[group]), total[group])}
            for group in grads}

    return Optimizer(init, update)
