"""Exchanges of information between the stages of several encoders.

The parameters of an exchange are the parameter group "exchange" of a model, by stage.
"""
from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxmm.encoders.conv3d import Conv3D
from jaxmm.encoders.draws import init_net, pytorch_layer
from jaxmm.encoders.norm import BatchNorm
from jaxmm.errors import UserError
from jaxmm.heads import concatenated_init, in_order, linear, linear_init
from jaxmm.keys import named_key


CONNECTION = 64     # channels between the two convolutions of a `Connection`


class Exchange(NamedTuple):
    """An exchange after some of the stages, as pure functions.

    `init(key, shapes of maps by modality) -> params, stats` and `apply(params, stats, maps, present, *,
    train, mean, alone=None) -> maps, stats` are for one stage. Maps are [B, ..., C] (see `seen`) and `present`
    is bool [B], both by modality. `mean(values [B], present)` is the mean over the global batch. `alone`,
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

    def init(key, shapes: Mapping[str, tuple[int, ...]]):
        channels = {m: shape[-1] for m, shape in shapes.items()}
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
        return {m: times_gate(x, gates[m]) for m, x in maps.items()}, stats

    return Exchange(after, init, apply)


class Connection(nn.Module):
    """Maps [B, T, ..., C] -> [B, frames, 1, 1, features]: their means over all but time, two convolutions in it."""
    features: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, frames: int, *, train: bool, mask=None):
        def layer(x, features, stride):
            x = BatchNorm(self.axis_name)(Conv3D(features, (5, 1), (stride, 1))(x), train=train, mask=mask)
            return jax.nn.relu(x)

        stride = x.shape[1] // frames
        x = x.mean(axis=tuple(range(2, x.ndim - 1)), dtype=jnp.float32).astype(x.dtype)[:, :, None, None]
        return layer(layer(x, CONNECTION, 1), self.features, stride)


def lateral_add(after: tuple[int, ...], main: str, axis_name: str | None = None) -> Exchange:
    """What other modalities see is added to the maps [B, T, H, W, C] of `main` (AVSlowFast, arXiv 2001.08740).

    It is the same at all places of a frame, see `Connection`, and 0 of an absent modality. Nothing is added if
    `main` is `alone`; batch statistics move nevertheless. Maps of the others are [B, k T, ..., C].
    """

    def init(key, shapes: Mapping[str, tuple[int, ...]]):
        params, stats, frames = {}, {}, shapes[main][1]
        if len(shapes[main]) != 5:
            raise UserError(f"what others see is added to clips, and the encoder of {main} does not see motion; "
                            f"choose another of --config.encoders.{main}.name, or of --config.method.main")
        for m, shape in shapes.items():
            if m == main:
                continue
            if len(shape) < 3 or shape[1] % frames:
                raise UserError(f"what {m} hears or sees has the shape {list(shape[1:])} where {main} has {frames} "
                                "frames; expected times, a multiple of these, before all else")
            variables = init_net(Connection(shapes[main][-1]), named_key(key, m), jnp.zeros((1, *shape[1:])), frames,
                                 train=False)
            params[m], stats[m] = variables["params"], variables["batch_stats"]
        return params, stats

    def apply(params, stats, maps, present, *, train, mean, alone=None):
        del mean
        x, new = maps[main], {}
        for m in params:
            added, new[m] = connect(params[m], stats[m], maps[m], x, train=train, mask=present[m],
                                    axis_name=axis_name)
            x = add(x, added, present[m] & (True if alone is None else ~jnp.asarray(alone[main])))
        return maps | {main: x}, new

    return Exchange(after, init, apply)


def connect(params, stats, x: chex.Array, to: chex.Array, *, train: bool, mask: chex.Array | None = None,
            axis_name: str | None = None) -> tuple[chex.Array, chex.ArrayTree]:
    """(what a `Connection` makes of maps x, like the maps `to` [B, T, H, W, C] but [B, T, 1, 1, C]; new stats)."""
    added, updated = Connection(to.shape[-1], axis_name).apply(
        {"params": params, "batch_stats": stats}, x, to.shape[1], train=train, mask=mask, mutable=["batch_stats"])
    return added, updated["batch_stats"]


def add(x: chex.Array, added: chex.Array, there: chex.Array) -> chex.Array:
    """The maps x [B, T, H, W, C] with what is `added` [B, T, 1, 1, C] to those of which `there` [B] holds."""
    return x + jnp.where(over_positions(there, x), added, 0)


REDUCTION = 16      # channels to one hidden unit of a squeeze and excitation


def se_add(after: tuple[int, ...], main: str) -> Exchange:
    """The maps of `main` get those of the others added, each weighted by channel (ESANet, arXiv 2011.06961).

    x_main <- SE(x_main) + sum_m SE_m(x_m), with SE(x) = x sigmoid(V relu(W q + b) + d) of the mean q of x over
    positions and c / 16 hidden units; the others go on as they are. 0 is added of an absent modality, and of all
    others if `main` is `alone`. Maps of all modalities have one size.
    """

    def init(key, shapes: Mapping[str, tuple[int, ...]]):
        for m, shape in shapes.items():
            if shape[1:] != shapes[main][1:]:
                raise UserError(f"what {m} sees has the shape {list(shape[1:])} where {main} has "
                                f"{list(shapes[main][1:])}, to which it is added; give both inputs of one size, and "
                                "the same --config.encoders.MODALITY.name and width")
        channels = shapes[main][-1]
        hidden = max(channels // REDUCTION, 1)
        return {m: {"squeeze": pytorch_layer(named_key(key, f"{m}/squeeze"), (channels, hidden)),
                    "excite": pytorch_layer(named_key(key, f"{m}/excite"), (hidden, channels))} for m in shapes}, {}

    def apply(params, stats, maps, present, *, train, mean, alone=None):
        del train, mean

        def weighted(m):
            hidden = jax.nn.relu(linear(params[m]["squeeze"], squeeze(maps[m])))
            gate = jax.nn.sigmoid(linear(params[m]["excite"], hidden))
            there = present[m] & (True if alone is None or m == main else ~jnp.asarray(alone[main]))
            return jnp.where(over_positions(there, maps[m]), times_gate(maps[m], gate), 0)

        return maps | {main: sum(map(weighted, maps))}, stats

    return Exchange(after, init, apply)


def seen(x: chex.Array | tuple[chex.Array, ...]) -> chex.Array:
    """The map of a stage's output that exchanges see: of several pathways the first."""
    return x[0] if isinstance(x, tuple) else x


def with_seen(x: chex.Array | tuple[chex.Array, ...], new: chex.Array) -> chex.Array | tuple[chex.Array, ...]:
    """The output of a stage with another map in the place of `seen`."""
    return (new, *x[1:]) if isinstance(x, tuple) else new


def over_positions(values: chex.Array, maps: chex.Array) -> chex.Array:
    """Values [B] or [B, C] in a shape that goes with maps [B, ..., C]."""
    return values.reshape(values.shape[0], *[1] * (maps.ndim - 2), -1)       # whose B may be a symbol


def times_gate(maps: chex.Array, gate: chex.Array) -> chex.Array:
    """Maps [B, ..., C] times a gate [B, C], in the type of the maps."""
    return maps * over_positions(gate, maps).astype(maps.dtype)


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
