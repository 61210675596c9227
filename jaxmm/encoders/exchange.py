"""What happens between the stages of several encoders.

The parameters of an exchange are the group "exchange" of a model, by stage.
"""
from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.heads import concatenated_init, in_order, linear, linear_init
from jaxmm.keys import named_key


class Exchange(NamedTuple):
    """An exchange behind some stages, as pure functions.

    `init(key, channels by modality) -> params, stats` and `apply(params, stats, maps, present, *,
    train, mean) -> maps, stats` are of one stage. Maps are [B, ..., C] by modality, `present` bool
    [B] by modality, `mean(values [B], present)` that over the global batch.
    """
    after: tuple[int, ...]      # numbers of the stages
    init: Callable
    apply: Callable


def mmtm(after: tuple[int, ...]) -> Exchange:
    """Multimodal transfer module (Joze et al., 2020), as Wu et al. (2022) train it.

    With q_m the mean of the maps of modality m over positions, e = relu(W [q_1, ..., q_M] + b) of
    half the summed channels, and every map is multiplied by its gate sigmoid(V_m e + d_m). An absent
    modality enters as the running mean of its q over all training passes.
    """

    def init(key, channels: Mapping[str, int]):
        half = sum(channels.values()) // 2
        params = {"squeeze": concatenated_init(named_key(key, "squeeze"), in_order(channels), half),
                  "gate": {m: linear_init(named_key(key, f"gate/{m}"), half, channels[m])
                           for m in channels}}
        return params, {m: {"mean": jnp.zeros(c), "passes": jnp.zeros(())}
                        for m, c in channels.items()}

    def apply(params, stats, maps, present, *, train, mean):
        squeezes, new_stats = [], {}
        for m in sorted(maps):
            q = squeeze(maps[m])
            squeezes.append(jnp.where(present[m][:, None], q, stats[m]["mean"]))
            new_stats[m] = running_mean(stats[m], q, present[m], mean) if train else stats[m]
        e = jax.nn.relu(linear(params["squeeze"], jnp.concatenate(squeezes, axis=-1)))
        gates = {m: jax.nn.sigmoid(linear(params["gate"][m], e)) for m in maps}
        return {m: x * gates[m].reshape(len(x), *[1] * (x.ndim - 2), -1).astype(x.dtype)
                for m, x in maps.items()}, new_stats

    return Exchange(after, init, apply)


def squeeze(maps: chex.Array) -> chex.Array:
    """Mean [B, C] of [B, ..., C] over positions, in float32."""
    return maps.astype(jnp.float32).mean(axis=tuple(range(1, maps.ndim - 1)))


def running_mean(stats, q: chex.Array, present: chex.Array, mean: Callable):
    """The mean of all training passes so far, each that of the examples that are present."""
    there = mean(jnp.ones(len(q)), present)     # 0 if no example is
    passes = stats["passes"] + there
    now = jax.vmap(lambda values: mean(values, present), 1)(jax.lax.stop_gradient(q))
    return {"mean": stats["mean"] + there * (now - stats["mean"]) / jnp.maximum(passes, 1.0),
            "passes": passes}
