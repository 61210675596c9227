"""Heads: features of the modalities -> logits.

A head returns logits [B, C] for every modality (its unimodal readout) and for "fused". A modality
that an example lacks has zero features.
"""
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.batch import Logits

Features = Mapping[str, chex.Array]


class Head(NamedTuple):
    init: Callable[[chex.PRNGKey, Mapping[str, int]], Any]   # (key, widths by modality) -> params
    apply: Callable[[Any, Features], Logits]                 # (params, features) -> logits


def linear_init(key: chex.PRNGKey, fan_in: int, fan_out: int) -> dict[str, chex.Array]:
    """A linear layer: kernel [fan_in, fan_out] of Glorot's normal distribution, bias 0."""
    kernel = jax.nn.initializers.glorot_normal()(key, (fan_in, fan_out))
    return {"kernel": kernel, "bias": jnp.zeros(fan_out)}


def linear(params: Mapping[str, chex.Array], features: chex.Array) -> chex.Array:
    """features [B, s] -> [B, C], in float32."""
    chex.assert_rank([features, params["kernel"]], 2)
    return features.astype(jnp.float32) @ params["kernel"] + params["bias"]


def separate(num_classes: int) -> Head:
    """One linear layer per modality; fused is the sum of their logits (baseline `sum`)."""

    def init(key, widths):
        keys = jax.random.split(key, len(widths))
        return {m: linear_init(k, widths[m], num_classes) for k, m in zip(keys, sorted(widths))}

    def apply(params, features):
        logits = {m: linear(params[m], h) for m, h in features.items()}
        return logits | {"fused": sum(logits.values())}

    return Head(init, apply)


def concat(num_classes: int) -> Head:
    """One linear layer on the concatenated features; its slices are the unimodal readouts.

    The readout of modality m is h_m W[m] + b / M, so that the readouts add up to fused.
    """

    def init(key, widths):
        layer = linear_init(key, sum(widths.values()), num_classes)
        ends = [sum(widths[k] for k in sorted(widths)[:i + 1]) for i in range(len(widths))]
        slices = jnp.split(layer["kernel"], ends[:-1])
        return {"kernel": dict(zip(sorted(widths), slices)), "bias": layer["bias"]}

    def apply(params, features):
        share = params["bias"] / len(features)
        logits = {m: linear({"kernel": params["kernel"][m], "bias": share}, h)
                  for m, h in features.items()}
        return logits | {"fused": sum(logits.values())}

    return Head(init, apply)
