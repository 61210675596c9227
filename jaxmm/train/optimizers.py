"""Optimizers and learning-rate schedules, from optax."""
import jax
import optax

from jaxmm.config import OptimizerConfig
from jaxmm.errors import UserError
from jaxmm.methods.common import Optimizer


def make_schedule(config: OptimizerConfig, steps_per_epoch: int, num_steps: int) -> optax.Schedule:
    """Learning rate as a function of the step of the program."""
    if config.schedule == "constant":
        return optax.constant_schedule(config.learning_rate)
    if config.schedule == "step":
        return optax.exponential_decay(config.learning_rate, config.decay_epochs * steps_per_epoch,
                                       config.decay_rate, staircase=True)
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(config.learning_rate, num_steps)
    raise UserError(f"optimizer.schedule={config.schedule!r} is unknown; "
                    "expected constant, step or cosine")


def make_optimizer(config: OptimizerConfig, steps_per_epoch: int, num_steps: int) -> Optimizer:
    """The optimizer, with one state per parameter group.

    The learning rate follows the step of the program, not the number of updates, as some methods
    update a group several times in a step. Clipping takes the global norm over all groups of one
    update. `sgd` adds weight decay to the gradient before momentum; `adamw` decouples it.

    Raises:
      UserError: unknown optimizer or schedule, or an option out of range.
    """
    for name, value in (("learning_rate", config.learning_rate),
                        ("weight_decay", config.weight_decay), ("clip_norm", config.clip_norm)):
        if not 0 <= value < float("inf"):
            raise UserError(f"optimizer.{name}={value}; expected a number of at least 0")
    decay = optax.add_decayed_weights(config.weight_decay)
    directions = {
        "sgd": (decay, optax.trace(config.momentum)),
        "adam": (decay, optax.scale_by_adam()),
        "adamw": (optax.scale_by_adam(), decay),
    }
    if config.name not in directions:
        raise UserError(f"optimizer.name={config.name!r} is unknown; "
                        f"expected one of {', '.join(directions)}")
    tx = optax.chain(*directions[config.name])
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    schedule = make_schedule(config, steps_per_epoch, num_steps)

    def init(params):
        return {group: tx.init(p) for group, p in params.items()}

    def update(grads, opt_state, params, step):
        grads, _ = clip.update(grads, clip.init(grads))
        new_params, new_opt_state = {}, {}
        for group, grad in grads.items():
            direction, new_opt_state[group] = tx.update(grad, opt_state[group], params[group])
            updates = jax.tree.map(lambda d: -schedule(step) * d, direction)
            new_params[group] = optax.apply_updates(params[group], updates)
        return new_params, new_opt_state

    return Optimizer(init, update)
