"""Exchanges of information between the stages of several encoders.

The parameters of an exchange are the parameter group "exchange" of a model, by stage.
"""
from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.heads import concatenated_init, in_order, linear, linear_init
from jaxmm.keys import named_key


class Exchange(NamedTuple):
    """An exchange after some of the stages, as pure functions.

    `init(key, channels by modality) -> params, stats` and `apply(params, stats, maps, present, *,
    train, mean, alone=None) -> maps, stats` are for one stage. Maps are [B, ..., C] and `present` is
    bool [B], both by modality. `mean(values [B], present)` is the mean over the global batch. `alone`,
    bool [] by modality, says which modalities get no information from the others.
    """
    after: tuple[int, ...]      # numbers of the stages
    init: Callable
    apply: Callable


def mmtm(after: tuple[int, ...]) -> Exchange:
    """Multimodal transfer module (Joze et al., 2020), as Wu et al. (2022) train it.

    With q_m the mean of the maps of modality m over positions, e = relu(W [q_1, ..., q_M] + b) has
    half as many units as there are channels, and the maps are multiplied by the gates
    sigmoid(V_m e + d_m). For an absent modality q is its running mean over all training passes. The
    gates of a modality that is `alone` are their running mean, this pass included, as constants.
    """

    def init(key, channels: Mapping[str, int]):
        half = sum(channels.values()) // 2
        params = {"squeeze": concatenated_init(named_key(key, "squeeze"), in_order(channels), half),
                  "gate": {m: linear_init(named_key(key, f"gate/{m}"), half, channels[m])
                           for m in channels}}
        return params, {m: {"mean": jnp.zeros(c), "gate": jnp.zeros(c), "passes": jnp.zeros(())}
                        for m, c in channels.items()}

    def apply(params, stats, maps, present, *, train, mean, alone=None):
        squeezes = {m: squeeze(maps[m]) for m in sorted(maps)}
        heard = [jnp.where(present[m][:, None], q, stats[m]["mean"]) for m, q in squeezes.items()]
        e = jax.nn.relu(linear(params["squeeze"], jnp.concatenate(heard, axis=-1)))
        gates = {m: jax.nn.sigmoid(linear(params["gate"][m], e)) for m in maps}
        if train:
            stats = {m: running_means(stats[m], {"mean": squeezes[m], "gate": gates[m]},
                                      present[m], mean) for m in maps}
        if alone:
            gates = {m: jnp.where(alone[m], stats[m]["gate"], gate) for m, gate in gates.items()}
        return {m: x * gates[m].reshape(x.shape[0], *[1] * (x.ndim - 2), -1).astype(x.dtype)
                for m, x in maps.items()}, stats

    return Exchange(after, init, apply)


def squeeze(maps: chex.Array) -> chex.Array:
    """Mean [B, C] of [B, ..., C] over positions, in float32."""
    return maps.astype(jnp.float32).mean(axis=tuple(range(1, maps.ndim - 1)))


def running_means(stats, values: Mapping[str, chex.Array], present: chex.Array, mean: Callable):
    """The running means of `values` [B, C] over all training passes, each over its present examples.

    No gradient flows into the values.
    """
    there = mean(jnp.ones(present.shape[0]), present)     # 0 if no example is
    passes = stats["passes"] + there
    new = {"passes": passes}
    for name, x in values.items():
        now = jax.vmap(lambda column: mean(column, present), 1)(jax.lax.stop_gradient(x))
        new[name] = stats[name] + there * (now - stats[name]) / jnp.maximum(passes, 1.0)
    return new
