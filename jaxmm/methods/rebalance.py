"""Balanced training of encoders that exchange: re-balancing steps, at random or guided (Wu et al., 2022).

In a re-balancing step on modality m the gates of m are their running mean. So z_m depends on m alone,
and its loss has no gradient in the exchange or in another encoder.

References:
  Wu et al., "Characterizing and overcoming the greedy nature of learning in multi-modal deep neural
  networks", ICML 2022.
"""
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.config import scalar
from jaxmm.errors import check_at_least, check_choice
from jaxmm.keys import named_key
from jaxmm.methods.common import (Method, finish_step, gradients, init_state, make_features,
                                  make_predict, own_key, step_key)
from jaxmm.methods.fusion import late_loss
from jaxmm.methods.mmtm import MMTMConfig, exchanging_model, make_squeezes
from jaxmm.model import Model, Optimizer


@dataclass
class RebalanceConfig(MMTMConfig):
    """MMTM with re-balancing steps on modalities drawn at random."""
    name: str = "mmtm_random"
    warmup_epochs: int = 1          # first epochs, which have regular steps only
    updates: str = "all"            # what a re-balancing step on m trains: "all", or m's "own" encoder
                                    # and linear layer


@dataclass
class GuidedConfig(RebalanceConfig):
    """MMTM with re-balancing steps where one modality learns much more slowly than the others."""
    name: str = "mmtm_guided"
    bound: float = scalar(0.01)     # difference of the speeds up to which nothing is done, >= 0
    steps: int = 5                  # consecutive re-balancing steps, >= 1


class SpeedState(NamedTuple):
    """How fast parameters have learned, and which steps come next."""
    main: dict[str, chex.Array]     # float32 []: M of the encoder and linear layer of a modality
    bypass: dict[str, chex.Array]   # float32 []: M of the exchange's layers for a modality
    left: chex.Array                # int32 []: re-balancing steps left
    slow: chex.Array                # int32 []: the number of the modality that they re-balance


def make_mmtm_random(config: RebalanceConfig, model: Model) -> Method:
    """After the warm-up each step is, with equal probability, regular or re-balances one of the M.

    Raises:
      UserError: an option out of range, or encoders that cannot exchange.
    """

    def choose(state, key):
        draws = [jax.random.uniform(named_key(key, name)) for name in (*model.encoders, "")]
        return jnp.argmax(jnp.stack(draws)), model.epoch(state.step).done >= config.warmup_epochs

    return make_rebalanced(config, model, lambda key, widths: (), choose,
                           lambda state, grads, regular: state.extra)


def make_mmtm_guided(config: GuidedConfig, model: Model) -> Method:
    """Re-balances the modality that learns fastest from the others, relative to itself.

    The conditional learning speed of m is s_m = log10(M_bypass / M_main). M is the sum over all
    regular steps of mu = sum |g|^2 / sum |theta|^2 of a group of parameters. The group "main" is the
    encoder and linear layer of m; "bypass" is the layers of its gates and the layers that all gates
    share. If the speeds differ by more than `config.bound` after a regular step (past the warm-up),
    the next `config.steps` steps re-balance the modality with the largest speed.

    Raises:
      UserError: an option out of range, or encoders that cannot exchange.
    """
    check_at_least("method.bound", config.bound, 0)
    check_at_least("method.steps", config.steps, 1)

    def init(key, widths):
        del key
        zeros = {m: jnp.zeros(()) for m in widths}
        return {"speeds": SpeedState(zeros, dict(zeros), jnp.int32(0), jnp.int32(0))}

    def choose(state, key):
        del key
        return state.extra["speeds"].slow, state.extra["speeds"].left > 0

    def follow(state, grads, regular):
        active = model.epoch(state.step).done >= config.warmup_epochs
        speeds = state.extra["speeds"]
        measured = measure(speeds, state.params, grads)
        return {"speeds": jax.tree.map(lambda new, old: jnp.where(regular, new, old),
                                       guide(measured, active, config.bound, config.steps),
                                       speeds._replace(left=speeds.left - 1))}

    return make_rebalanced(config, model, init, choose, follow)


def make_rebalanced(config: RebalanceConfig, model: Model, init_extra: Callable, choose: Callable,
                    follow: Callable) -> Method:
    """`mmtm` in which some steps re-balance a modality.

    Args:
      config: its `updates` says what a re-balancing step trains.
      model: without a head.
      init_extra: (key, widths) -> the method's own state.
      choose: (state, key) -> (number of a modality, or M for none; whether to re-balance it now).
      follow: (state, gradients, whether the step was regular) -> the method's own state after it.

    Raises:
      UserError: an option out of range, or encoders that cannot exchange (see `exchanging_model`).
    """
    check_at_least("method.warmup_epochs", config.warmup_epochs, 0)
    check_choice("method.updates", config.updates, ("all", "own"))
    model, names = exchanging_model(config, model), list(model.encoders)
    loss_of = late_loss(model)
    if config.updates == "own":
        model = model._replace(optimizer=by_layer(model.optimizer))

    def init(key, batch):
        return init_state(model, key, batch, init_extra)

    def step(state, batch):
        key = step_key(state)
        batch = model.transform(key, batch)
        number, time = choose(state, own_key(key))
        alone = {m: time & (number == i) for i, m in enumerate(names)}

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True, alone=alone)
            return loss_of(out.outputs, batch), out

        losses, out, grads = gradients(model, state.params, loss_fn)
        regular = ~jnp.any(jnp.stack(list(alone.values())))
        due = {"exchange": regular} | {m: regular | alone[m] for m in names}
        due |= {f"head/{m}": due[m] for m in names}
        state, metrics = finish_step(
            model, state, batch, losses, out, grads, extra=follow(state, grads, regular),
            due=due if config.updates == "own" else None)
        return state, metrics | {f"alone/{m}": x.astype(jnp.float32) for m, x in alone.items()}

    return Method(init, step, make_predict(model), make_features(model),
                  squeezes=make_squeezes(model), from_features=False)


def speed(grads, params) -> chex.Array:
    """mu = sum |g|^2 / sum |theta|^2, float32 [], over a tree of parameters and their gradients."""
    square = [sum(jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree))
              for tree in (grads, params)]
    return square[0] / jnp.maximum(square[1], jnp.finfo(jnp.float32).tiny)


def measure(speeds: SpeedState, params: Mapping, grads: Mapping) -> SpeedState:
    """The state with mu of a regular step added to M; `params` are those before its update."""

    def main(tree, m):
        return tree[m], tree["head"][m]

    def bypass(tree, m):
        return [(stage["squeeze"], stage["gate"][m]) for stage in tree["exchange"].values()]

    def add(total, part):
        return {m: x + speed(part(grads, m), part(params, m)) for m, x in total.items()}

    return speeds._replace(main=add(speeds.main, main), bypass=add(speeds.bypass, bypass))


def guide(speeds: SpeedState, active: chex.Array, bound: float, steps: int) -> SpeedState:
    """The state after a regular step: re-balancing comes next if `active` and the speeds differ too much."""
    s = jnp.stack([jnp.log10(speeds.bypass[m]) - jnp.log10(speeds.main[m]) for m in speeds.main])
    due = active & (s.max() - s.min() > bound)
    return speeds._replace(left=jnp.where(due, steps, 0).astype(jnp.int32),
                           slow=jnp.argmax(s).astype(jnp.int32))


def by_layer(optimizer: Optimizer) -> Optimizer:
    """The optimizer with each modality's layer of the head as a separate group "head/MODALITY"."""

    def split(tree):
        return {k: x for k, x in tree.items() if k != "head"} | {
            f"head/{m}": x for m, x in tree.get("head", {}).items()}

    def join(tree):
        layers = {k.removeprefix("head/"): x for k, x in tree.items() if k.startswith("head/")}
        return {k: x for k, x in tree.items() if not k.startswith("head/")} | {"head": layers}

    def update(grads, opt_state, params, step, scale=None, due=None):
        return tuple(map(join, optimizer.update(split(grads), split(opt_state), split(params), step,
                                                scale, due)))

    return Optimizer(lambda params: join(optimizer.init(split(params))), update)
