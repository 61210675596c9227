"""Heads: features [B, s] of the modalities -> logits [B, C].

A head returns logits for every modality (its unimodal readout) and for "fused". The features of a
modality that an example lacks are zero. Modalities are in the order of the data set; in heads that
are not symmetric the first one conditions the others.
"""
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.batch import Logits
from jaxmm.errors import UserError, check_above, check_at_least
from jaxmm.keys import draw_by_name, named_key
from jaxmm.losses import normalize

Features = Mapping[str, chex.Array]     # [B, s] by modality
CUT = 0.87962566103423978   # standard deviation of a normal distribution that is cut off at -2 and 2


class Head(NamedTuple):
    """Logits from features, as pure functions."""
    init: Callable[[chex.PRNGKey, Mapping[str, int]], Any]   # (key, widths by modality) -> params
    apply: Callable[[Any, Features], Logits]                 # (params, features) -> logits
    parts: Callable[[Any, Features], Logits] | None = None
    # of an additive head: (params, features) -> [B, C] by modality, of which each depends on the features of
    # its modality alone, and which add up to the fused logits
    last: Callable[[Any], list[tuple[str, ...]]] = lambda params: [()]
    # params -> where in them the linear layers are that put out logits: {"kernel", "bias"}


def linear_init(key: chex.PRNGKey, fan_in: int, fan_out: int) -> dict[str, chex.Array]:
    """A linear layer: kernel [fan_in, fan_out] by Glorot's normal initializer, bias [fan_out] of 0."""
    kernel = jax.nn.initializers.glorot_normal()(key, (fan_in, fan_out))
    return {"kernel": kernel, "bias": jnp.zeros(fan_out)}


def first_rows(key: chex.PRNGKey, rows: int, fan_in: int, fan_out: int) -> chex.Array:
    """The first rows [rows, fan_out] of the kernel of `linear_init`, to the bit, without drawing all of it."""
    variance = jnp.float32(2 / (fan_in + fan_out))
    deviation = jnp.sqrt(variance) / jnp.float32(CUT)
    return jax.random.truncated_normal(key, -2, 2, (rows, fan_out)) * deviation


def slices_init(key: chex.PRNGKey, widths: Mapping[str, int], fan_out: int) -> dict[str, chex.Array]:
    """The kernel of a linear layer on concatenated features, as a slice [width, fan_out] by modality.

    Each slice is drawn from a key of its modality's name, so it does not depend on the order.
    """
    fan_in = sum(widths.values())
    return draw_by_name(lambda key, width: first_rows(key, width, fan_in, fan_out), key, widths)


def concatenated_init(key: chex.PRNGKey, widths: Mapping[str, int], fan_out: int
                      ) -> dict[str, chex.Array]:
    """A linear layer on features that are concatenated in the order of `widths`; see `linear_init`."""
    kernels = slices_init(key, widths, fan_out)
    return {"kernel": jnp.concatenate(list(kernels.values())), "bias": jnp.zeros(fan_out)}


def in_order(widths: Mapping[str, int]) -> dict[str, int]:
    """The widths in the order of `concatenate`: alphabetical by modality."""
    return {m: widths[m] for m in sorted(widths)}


def linear(params: Mapping[str, chex.Array], features: chex.Array) -> chex.Array:
    """Features [B, s] -> [B, C] by a linear layer, in float32."""
    chex.assert_rank([features, params["kernel"]], 2)
    return features.astype(jnp.float32) @ params["kernel"] + params["bias"]


def common_width(widths: Mapping[str, int], who: str) -> int:
    """The width of the features of all modalities.

    Raises:
      UserError: they differ; `who` needs that, as the message begins.
    """
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{m} {s}" for m, s in widths.items())
        raise UserError(f"{who} features of one size; found {found}; set --config.encoders.MODALITY.features "
                        "to the same number")
    return next(iter(widths.values()))


def separate(num_outputs: int) -> Head:
    """One linear layer per modality; fused is the sum of their logits (baseline `sum` of MLA)."""

    def init(key, widths):
        return draw_by_name(lambda key, width: linear_init(key, width, num_outputs), key, widths)

    def parts(params, features):
        return {m: linear(params[m], h) for m, h in features.items()}

    return Head(init, summed(parts), parts, last=lambda params: [(m,) for m in params])


def concat(num_outputs: int) -> Head:
    """One linear layer on the concatenated features; its slices are the unimodal readouts.

    The readout of modality m is h_m W[m] + b / M; fused is their sum (baseline `concat` of MLA).
    """

    def init(key, widths):
        return {"kernel": slices_init(key, widths, num_outputs), "bias": jnp.zeros(num_outputs)}

    def parts(params, features):
        share = params["bias"] / len(features)
        return {m: linear({"kernel": params["kernel"][m], "bias": share}, h)
                for m, h in features.items()}

    return Head(init, summed(parts), parts)


def shared(num_outputs: int, who: str = "a shared head needs") -> Head:
    """One linear layer that all modalities share; fused is the sum of their logits.

    Raises:
      UserError: encoders of different widths; `who` needs that, as the message begins.
    """

    def init(key, widths):
        return linear_init(key, common_width(widths, who), num_outputs)

    def parts(params, features):
        return {m: linear(params, h) for m, h in features.items()}

    return Head(init, summed(parts), parts)


def cosine(num_outputs: int, scale: chex.Numeric = 10.0) -> Head:
    """scale cos(h_m, W_m[:, c]) for each modality, without biases; fused is their sum (MMCosine).

    So no modality can outweigh another by the size of its features or weights: no logit is above the scale.
    Features of 0, as those of a modality that an example lacks, have logits 0.

    Raises:
      UserError: a scale <= 0.

    References:
      MMCosine, arXiv 2303.05338.
    """
    check_above("method.scale", scale, 0)

    def init(key, widths):
        return {m: linear_init(named_key(key, m), widths[m], num_outputs)["kernel"] for m in widths}

    def parts(params, features):
        return {m: scale * (normalize(h) @ normalize(params[m].T).T) for m, h in features.items()}

    return Head(init, summed(parts), parts, last=lambda params: [])     # the size of weights counts for nothing


def film(num_outputs: int) -> Head:
    """Feature-wise linear modulation (Perez et al., 2018) by the first modality.

    [gamma, beta] = split(h_first W + b) and h_f = gamma * h_other + beta. The h_f of the other
    modalities are concatenated and enter one linear layer. A readout sets all other features to 0.
    """

    def init(key, widths):
        first, *others = widths
        modulation = {m: linear_init(named_key(key, f"modulation/{m}"), widths[first], 2 * widths[m])
                      for m in others}
        return {"modulation": modulation, "out": concatenated_init(
            named_key(key, "out"), {m: widths[m] for m in others}, num_outputs)}

    def fuse(params, features):
        first, *others = features
        parts = []
        for m in others:
            gamma, beta = jnp.split(linear(params["modulation"][m], features[first]), 2, axis=-1)
            parts.append(gamma * features[m] + beta)
        return linear(params["out"], jnp.concatenate(parts, axis=-1))

    return Head(init, with_readouts(fuse), last=lambda params: [("out",)])


def gated(num_outputs: int) -> Head:
    """Gating by the first modality (Kiela et al., 2018; the papers' BiGated).

    h_f = sigmoid(h_first W_x + b_x) * (h_other W_y + b_y), of the width of the first modality. The
    h_f of the other modalities are concatenated and enter one linear layer. A readout sets all
    other features to 0.
    """

    def init(key, widths):
        first, *others = widths
        size = widths[first]
        values = {m: linear_init(named_key(key, f"value/{m}"), widths[m], size) for m in others}
        return {"gate": linear_init(named_key(key, "gate"), size, size), "value": values,
                "out": concatenated_init(named_key(key, "out"), dict.fromkeys(others, size), num_outputs)}

    def fuse(params, features):
        first, *others = features
        gate = jax.nn.sigmoid(linear(params["gate"], features[first]))
        parts = [gate * linear(params["value"][m], features[m]) for m in others]
        return linear(params["out"], jnp.concatenate(parts, axis=-1))

    return Head(init, with_readouts(fuse), last=lambda params: [("out",)])


def mlp(num_outputs: int, hidden: int = 1024) -> Head:
    """Two layers on the concatenated features with a ReLU between (UMT, arXiv 2305.01233).

    A readout sets all other features to 0.

    Raises:
      UserError: `hidden`, the number of hidden units, is below 1.
    """
    check_at_least("method.hidden", hidden, 1)

    def init(key, widths):
        hidden_key, out_key = jax.random.split(key)
        return {"hidden": concatenated_init(hidden_key, in_order(widths), hidden),
                "out": linear_init(out_key, hidden, num_outputs)}

    def fuse(params, features):
        units = jax.nn.relu(linear(params["hidden"], concatenate(features)))
        return linear(params["out"], units)

    return Head(init, with_readouts(fuse), last=lambda params: [("out",)])


def attention(num_outputs: int) -> Head:
    """One linear layer on the features after attention among the modalities (UMT, arXiv 2305.01233).

    The features of an example are M tokens x [M, s] that attend to each other without parameters:
    softmax(x x^T / sqrt(s)) x, concatenated. A readout sets all other features to 0, and so is a modality
    that an example lacks: its token, with score 0, still takes its share of the attention.

    Raises:
      UserError: encoders of different widths.
    """

    def init(key, widths):
        common_width(widths, "attention needs")
        return concatenated_init(key, in_order(widths), num_outputs)

    def fuse(params, features):
        tokens = jnp.stack([features[m] for m in sorted(features)], axis=1).astype(jnp.float32)
        scores = jnp.einsum("bms,bns->bmn", tokens, tokens) / jnp.sqrt(tokens.shape[-1])
        attended = jnp.einsum("bmn,bns->bms", jax.nn.softmax(scores), tokens)
        return linear(params, attended.reshape(attended.shape[0], -1))

    return Head(init, with_readouts(fuse))


def concatenate(features: Features) -> chex.Array:
    """Features [B, sum of widths], in alphabetical order of their modalities."""
    return jnp.concatenate([features[m] for m in sorted(features)], axis=-1)


def summed(parts: Callable[[Any, Features], Logits]) -> Callable[[Any, Features], Logits]:
    """`apply` of an additive head from the parts of its fused logits, which are its readouts."""

    def apply(params, features):
        logits = parts(params, features)
        return logits | {"fused": sum(logits.values())}

    return apply


def with_readouts(fuse: Callable[[Any, Features], chex.Array]) -> Callable[[Any, Features], Logits]:
    """`apply` of a head from the function of its fused logits; a readout sets all other features to 0."""

    def apply(params, features):
        nothing = {m: jnp.zeros_like(h) for m, h in features.items()}
        alone = {m: nothing | {m: h} for m, h in features.items()}
        return ({m: fuse(params, only) for m, only in alone.items()}
                | {"fused": fuse(params, features)})

    return apply


def read_alone(head: Head) -> Head:
    """`head` whose readout of a modality is its fused logits where all other features are 0."""
    return head._replace(apply=with_readouts(lambda params, features: head.apply(params, features)["fused"]))


def with_unimodal_heads(head: Head, num_outputs: int) -> Head:
    """`head` for the fused logits, and a separate linear layer as the readout of each modality."""
    unimodal = separate(num_outputs)

    def init(key, widths):
        fused_key, unimodal_key = jax.random.split(key)
        return {"fused": head.init(fused_key, widths),
                "unimodal": unimodal.init(unimodal_key, widths)}

    def apply(params, features):
        return (unimodal.apply(params["unimodal"], features)
                | {"fused": head.apply(params["fused"], features)["fused"]})

    of_fused = head.parts
    parts = of_fused and (lambda params, features: of_fused(params["fused"], features))

    def last(params):
        return [(part, *path) for part, own in (("fused", head), ("unimodal", unimodal))
                for path in own.last(params[part])]

    return Head(init, apply, parts, last)


def subset_logits(head: Head, params: Any, features: Features, subset: Collection[str],
                  absent: Features | None = None) -> chex.Array:
    """z(S): the fused logits [B, C] with the features of the modalities in `subset` alone.

    Args:
      head: whose parameters are `params`.
      features: [B, s] of all modalities.
      subset: names of modalities; none and all of them are allowed.
      absent: what the features of the others are replaced by, [B, s] or [1, s] by modality; 0 by default.
    """
    return logits_by_subset(head, params, features, absent)(subset)


def logits_by_subset(head: Head, params: Any, features: Features, absent: Features | None = None,
                     ) -> Callable[[Collection[str]], chex.Array]:
    """S -> z(S), see `subset_logits`, for several subsets.

    Each is an evaluation of the head; those of an additive one are sums of its parts, made once.
    """
    absent = {m: jnp.zeros_like(h[:1]) for m, h in features.items()} if absent is None else absent

    def by_replacing(subset):
        rows = {m: h if m in subset else jnp.broadcast_to(absent[m], h.shape) for m, h in features.items()}
        return head.apply(params, rows)["fused"]

    if not head.parts:
        return by_replacing
    present, missing = head.parts(params, features), head.parts(params, absent)
    shape = next(iter(present.values())).shape

    def by_adding(subset):
        return jnp.broadcast_to(sum((present if m in subset else missing)[m] for m in features), shape)

    return by_adding


FUSIONS = {"concat": concat, "sum": separate, "shared": shared, "cosine": cosine, "film": film,
           "gated": gated, "mlp": mlp, "attention": attention}
