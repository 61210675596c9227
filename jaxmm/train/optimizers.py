"""Optimizers and learning-rate schedules, from optax."""
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmm.config import EncoderConfig, OptimizerConfig
from jaxmm.errors import UserError, check_at_least, check_choice
from jaxmm.model import Optimizer
from jaxmm.train.plan import Epoch

ONE_CYCLE = 10**6       # steps of optax's schedule, onto which runs of any length are mapped
PLATEAU = "plateau"     # the schedule, and its part of the optimizer's state


def make_schedule(config: OptimizerConfig, epochs: int) -> Callable[[Epoch], chex.Array | float]:
    """The learning rate as a function of the place of a step within a task of `epochs` epochs.

    For "plateau" it is multiplied by a part of the optimizer's state, see `make_optimizer`.
    """
    cosine = optax.cosine_decay_schedule(config.learning_rate, epochs)
    one_cycle = optax.cosine_onecycle_schedule(ONE_CYCLE, 1.0)
    schedules = {
        "constant": lambda epoch: config.learning_rate,
        "step": lambda epoch: (config.learning_rate
                               * config.decay_rate ** (epoch.done // config.decay_epochs)),
        "cosine": lambda epoch: cosine(epoch.fraction),
        "one_cycle": lambda epoch: config.learning_rate * one_cycle(ONE_CYCLE * epoch.fraction / epochs),
        "plateau": lambda epoch: config.learning_rate,
    }
    check_choice("optimizer.schedule", config.schedule, schedules)
    if not 0 <= config.warmup_epochs <= epochs:
        raise UserError(f"optimizer.warmup_epochs={config.warmup_epochs}; expected between 0 and the "
                        f"{epochs} of train.epochs")
    schedule = schedules[config.schedule]
    if not config.warmup_epochs:
        return schedule
    return lambda epoch: schedule(epoch) * jnp.minimum(
        1, (epoch.done + (epoch.step + 1) / epoch.steps) / config.warmup_epochs)


def make_optimizer(config: OptimizerConfig, epochs: int,
                   epoch: Callable[[chex.Array], Epoch]) -> Optimizer:
    """The optimizer, with one state per parameter group.

    The learning rate follows `epoch(step)`, the place within the task's `epochs`. It starts again with
    every task, and does not depend on how often a method updates a group in a step. A group's factor in
    `scale` multiplies it. Clipping uses the global norm over all groups of one update. Weight decay is
    added to the gradient (for `sgd` before momentum), except for `adamw`, which decouples it. Groups
    that are not `due` keep parameters and state, and their gradients count as 0. With the schedule
    "plateau" the state has an additional part PLATEAU, whose "rate" multiplies the learning rate; see
    `update_plateau`.

    Raises:
      UserError: unknown optimizer or schedule, or an option out of range.
    """
    for name, least in (("learning_rate", 0), ("momentum", 0), ("weight_decay", 0),
                        ("clip_norm", 0), ("decay_epochs", 1), ("decay_rate", 1e-6), ("patience", 0)):
        check_at_least(f"optimizer.{name}", getattr(config, name), least)
    if config.momentum >= 1:
        raise UserError(f"optimizer.momentum={config.momentum}; expected a number in [0, 1): from 1 on "
                        "gradients accumulate without bound")
    decay = optax.add_decayed_weights(config.weight_decay, None if config.decay_vectors else are_matrices)
    directions = {
        "sgd": (decay, optax.trace(config.momentum, config.nesterov)),
        "rmsprop": (decay, optax.scale_by_rms()),
        "adagrad": (decay, optax.scale_by_rss()),
        "adadelta": (decay, optax.scale_by_adadelta()),
        "adam": (decay, optax.scale_by_adam()),
        "adamw": (optax.scale_by_adam(), decay),
    }
    check_choice("optimizer.name", config.name, directions)
    tx = optax.chain(*directions[config.name])
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    schedule = make_schedule(config, epochs)

    plateau = {PLATEAU: {"rate": 1.0, "best": -jnp.inf, "bad": 0}} if config.schedule == PLATEAU else {}

    def init(params):
        return {group: tx.init(p) for group, p in params.items()} | jax.tree.map(jnp.asarray, plateau)

    def update(grads, opt_state, params, step, scale=None, due=None):
        grads, _ = clip.update(grads, clip.init(grads))
        learning_rate = schedule(epoch(step))
        if plateau:
            learning_rate *= opt_state[PLATEAU]["rate"]
        new_params, new_opt_state = {}, {}
        for group, grad in grads.items():
            direction, new_opt_state[group] = tx.update(grad, opt_state[group], params[group])
            rate = learning_rate * (scale or {}).get(group, 1.0)
            updates = jax.tree.map(lambda d, rate=rate: -rate * d, direction)
            new_params[group] = optax.apply_updates(params[group], updates)
        return keep(due or {}, new_params, params), keep(due or {}, new_opt_state, opt_state)

    return Optimizer(init, update)


def by_encoder(optimizer: Optimizer, encoders: Mapping[str, EncoderConfig]) -> Optimizer:
    """The optimizer with the options of encoders, whose names are those of their parameter groups.

    The groups of frozen ones have no state, and keep their parameters: there is no decay either. The
    learning rate of the others is multiplied by their `rate`, as that of a group in PyTorch: with it what
    the whole update is made of, weight decay included.
    """
    still = {m for m, c in encoders.items() if c.frozen}
    rates = {m: c.rate for m, c in encoders.items() if c.rate != 1 and m not in still}
    if not still and not rates:
        return optimizer

    def learned(groups):
        return {group: tree for group, tree in groups.items() if group not in still}

    def update(grads, opt_state, params, step, scale=None, due=None):
        scale = dict(scale or {})
        scale |= {m: rate * scale.get(m, 1.0) for m, rate in rates.items()}
        return optimizer.update(learned(grads), opt_state, params, step, scale, due)

    return Optimizer(lambda params: optimizer.init(learned(params)), update)


def are_matrices(params) -> Any:
    """True for parameters of rank 2 or more: neither biases nor scales of norms."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def update_plateau(plateau: Mapping[str, chex.Array], score: float,
                   config: OptimizerConfig) -> dict[str, chex.Array]:
    """The state of the schedule "plateau" after an evaluation; a higher score is better.

    Like `ReduceLROnPlateau` of PyTorch with threshold 0: after more than `patience` evaluations in a
    row that are not better than the best one, the rate falls and the count restarts.
    """
    score = jnp.float32(score)
    better = score > plateau["best"]
    bad = jnp.where(better, 0, plateau["bad"] + 1)
    falls = bad > config.patience
    return {"rate": jnp.where(falls, plateau["rate"] * config.decay_rate, plateau["rate"]),
            "best": jnp.maximum(score, plateau["best"]), "bad": jnp.where(falls, 0, bad)}


def keep(due: Mapping[str, chex.Array], new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """`new` by group, but `old` for groups that are not due; those that `due` does not name are."""
    return {group: tree if group not in due else jax.tree.map(
        lambda x, y, d=due[group]: jnp.where(d, x, y), tree, old[group])
        for group, tree in new.items()}


def accumulate(optimizer: Optimizer, steps: int) -> Optimizer:
    """Updates once every `steps` steps, with the mean of their gradients.

    The sum of a group's gradients and the number of its steps are a part of its state. A step in which
    a group is not `due` does not count, and a group without any gradient is not updated. All updates
    happen in the last of `steps` steps. If a method updates a group several times within a step, as MLA
    does with the head, the first of these updates takes the sum of the earlier steps. The sum is kept
    across the ends of epochs and tasks.
    """
    check_at_least("train.accumulate", steps, 1)
    if steps == 1:
        return optimizer

    def init(params):
        zeros, inner = jax.tree.map(jnp.zeros_like, params), optimizer.init(params)
        return inner | {group: {"inner": inner[group], "sum": zeros[group], "count": jnp.int32(0),
                                "last": jnp.int32(-1)}  # step that was counted, or whose sum was taken, last
                        for group in params}

    def update(grads, opt_state, params, step, scale=None, due=None):
        begin = step // steps * steps
        here = {group: jnp.asarray((due or {}).get(group, True)) for group in grads}
        means, totals, counts, ready = {}, {}, {}, {}
        for group, grad in grads.items():
            state = opt_state[group]
            totals[group] = jax.tree.map(
                lambda x, g, h=here[group]: x + jnp.where(h, g, 0), state["sum"], grad)
            counts[group] = (jnp.where(state["last"] < begin, 0, state["count"])
                             + (here[group] & (state["last"] < step)).astype(jnp.int32))
            waiting = (begin <= state["last"]) & (state["last"] < step)
            ready[group] = ((step + 1) % steps == 0) & (here[group] | waiting)
            means[group] = jax.tree.map(
                lambda x, n=counts[group]: x / jnp.maximum(n, 1), totals[group])
        inner = {group: state if group == PLATEAU else state["inner"]
                 for group, state in opt_state.items()}
        new_params, new_inner = optimizer.update(means, inner, params, step, scale, ready)
        new_state = {}
        for group, total in totals.items():
            new_state[group] = {
                "inner": new_inner[group], "count": counts[group],
                "sum": jax.tree.map(lambda x, r=ready[group]: jnp.where(r, 0, x), total),
                "last": jnp.where(here[group] | ready[group], jnp.int32(step),
                                  opt_state[group]["last"])}
        return new_params, new_state

    return Optimizer(init, update)
