"""Optimizers and learning-rate schedules, from optax."""
from collections.abc import Callable

import chex
import jax
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
