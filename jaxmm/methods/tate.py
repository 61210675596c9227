"""TATE: tokens of modalities with a tag that says which are missing (Zeng et al., 2022).

It is a baseline of MLA (arXiv 2311.10707, table 2).
"""
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm.config import MethodConfig, scalar
from jaxmm.errors import UserError, check_at_least, check_choice, check_probability
from jaxmm.heads import Features, Head, common_width, linear, linear_init
from jaxmm.keys import named_key
from jaxmm.methods.common import (Method, check_several, finish_step, gradients, init_state, make_features,
                                  step_key)
from jaxmm.methods.imagination import hide_some, make_drop
from jaxmm.methods.taught import name_of, whole_model
from jaxmm.model import Model
from jaxmm.task import need_classes

HEADS = 4       # of attention, or as many fewer as divide the width of features
NORM_EPS = 1e-6


@dataclass
class TATEConfig(MethodConfig):
    """Tagged tokens of modalities through a Transformer, taught by one that sees more (TATE, 2022)."""
    name: str = "tate"
    hide: float = scalar(0.5)       # probability in [0, 1) that a step hides a modality of an example from the
                                    # student; one is always given
    targets: str = "present"        # what the teacher sees: what is "present", or by "oracle" all, and the student
                                    # what is present; a leak, see `ae`
    weigh: bool = True              # weigh tokens by how certain each modality is of a class
    weight: float = 0.1             # of each of the terms beside the task's loss, >= 0
    dropout: float = 0.2            # probability in [0, 1), in the layers of the Transformer
    distill: bool = True            # imitate the tokens of a run without this; off: that run, which hides nothing
    teachers: str = ""              # folder of the run without distillation, see TaughtConfig


def make_tate(config: TATEConfig, model: Model) -> Method:
    """CE(z, y) + w [J(E, sg(E*)) + J(D, tok) + mean |t - sigmoid(last M + 1 units of q)|].

    The token of modality m is [a_m concat_{n != m} h_m W_mn ; t], with W_mn = W_nm [s, s / (M - 1)] and the
    tag t: t_0 = 1 if nothing is missing, t_m = 1 if m is not given, whose content is then 0. a is the softmax
    over modalities of max_c softmax(U_m h_m + v_m)_c. E and D are the M tokens after one and two layers of a
    Transformer, q is E pooled by gated attention, z two linear layers of it, and J(p, q) the mean over tokens
    of the symmetric KL divergence of their softmax. E* is that of a teacher, which sees all modalities an
    example has where the student sees what `hide` leaves. The teacher has learned the same without the first J.

    Raises:
      UserError: an option out of range, one modality, a task that is not a classification with `weigh`; from
        `init`, features of several widths, or of one that M - 1 does not divide.

    References:
      Zeng, Liu and Zhou, "Tag-assisted multimodal sentiment analysis under uncertain missing modalities",
      SIGIR 2022, arXiv 2204.13707. The weights a are those of its journal version.
    """
    check_options(config, model)
    names = sorted(model.encoders)
    model = model._replace(head=Head(
        lambda key, widths: init_head(key, widths, model.task.size), lambda params, features: {}))

    def forward(params, features, given, drop=None):
        return run(params, features, given, weigh=config.weigh, drop=drop)

    def init(key, batch):
        state = init_state(model, key, batch)
        return state._replace(extra={"teacher": (state.params, state.batch_stats)} if config.distill else ())

    def step(state, batch):
        if not config.distill:
            given = batch = model.transform(step_key(state), batch)
        else:
            given, batch = hide_some(config, model, state, batch)
            params, batch_stats = state.extra["teacher"]
            seen = model.run(params, batch_stats, batch, train=False).features
            taught = forward(params["head"], seen, batch["present"])["encoded"]
        drop = make_drop(config, state, batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, given, train=True)
            found = forward(params["head"], out.features, given["present"], drop)
            guess = jax.nn.sigmoid(found["pooled"][:, -len(names) - 1:])
            terms = {"rebuilt": divergence(found["decoded"], found["tokens"]),
                     "tag": jnp.mean(jnp.abs(tag(given["present"]) - guess), axis=-1)}
            if config.distill:
                terms["distillation"] = divergence(found["encoded"], jax.lax.stop_gradient(taught))
            losses = {"fused": model.mean(model.task.loss(found["logits"], batch["label"]))}
            losses |= {name: config.weight * model.mean(x) for name, x in terms.items()}
            return losses, out._replace(outputs={"fused": found["logits"]})

        return finish_step(model, state, given, *gradients(model, state.params, loss_fn))

    def predict(state, batch):
        batch = model.transform(None, batch)
        features = model.run(state.params, state.batch_stats, batch, train=False).features
        masks = {m: {n: batch["present"][n] & (n == m) for n in names} for m in model.encoders}
        masks["fused"] = batch["present"]
        return {head: forward(state.params["head"], features, mask)["logits"] for head, mask in masks.items()}

    def teach(state, models):
        return state._replace(extra={"teacher": whole_model(models)})

    if not config.distill:
        return Method(init, step, predict, make_features(model))
    first = dataclasses.replace(config, distill=False, hide=TATEConfig.hide, targets="present", teachers="")
    return Method(init, step, predict, make_features(model), teachers={name_of(first): first}, teach=teach,
                  distils=True)


def tag(given: Mapping[str, chex.Array]) -> chex.Array:
    """[B, M + 1] of masks bool [B]: whether nothing is missing, then of each modality whether it is."""
    lacks = jnp.stack([~given[m] for m in sorted(given)], axis=-1)
    return jnp.concatenate([~lacks.any(-1, keepdims=True), lacks], axis=-1).astype(jnp.float32)


def divergence(a: chex.Array, b: chex.Array) -> chex.Array:
    """J(a, b) [B] of tokens [B, M, W]: the mean over M of KL(p || q) + KL(q || p), p and q softmax over W."""
    log_p, log_q = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    return jnp.mean(jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1), axis=-1)


def init_head(key: chex.PRNGKey, widths: Mapping[str, int], num_outputs: int) -> dict:
    """The parameters of `run` for features of these widths; UserError if they do not suit."""
    names, size = sorted(widths), common_width(widths, "tate pairs modalities, so encoders need")
    others = len(names) - 1
    if size % others:
        raise UserError(f"tate divides the features of a modality among the {others} others, and {size} do not "
                        f"divide; set --config.encoders.MODALITY.features to a multiple of {others}, for all")
    width = size + len(names) + 1

    def layer(name, fan_in, fan_out):
        return linear_init(named_key(key, name), fan_in, fan_out)

    def transformer(name):
        made = {part: layer(f"{name}/{part}", width, size) for part in ("query", "key", "value")}
        made |= {"out": layer(f"{name}/out", size, width), "wide": layer(f"{name}/wide", width, 4 * width),
                 "narrow": layer(f"{name}/narrow", 4 * width, width)}
        return made | {norm: {"scale": jnp.ones(width), "bias": jnp.zeros(width)} for norm in ("norm_1", "norm_2")}

    return {"pairs": {f"{m}/{n}": layer(f"{m}/{n}", size, size // others)["kernel"]
                      for m, n in itertools.combinations(names, 2)},
            "certainty": {m: layer(f"certainty/{m}", size, num_outputs) for m in names},
            "encoder": transformer("encoder"), "decoder": transformer("decoder"),
            "pool": {part: layer(f"pool/{part}", *shape)["kernel"] for part, shape in (
                ("value", (width, size)), ("gate", (width, size)), ("score", (size, 1)))},
            "hidden": layer("hidden", width, size), "out": layer("out", size, num_outputs)}


def run(params: Mapping, features: Features, given: Mapping[str, chex.Array], *, weigh: bool = True,
        drop: Callable | None = None) -> dict[str, chex.Array]:
    """The passes of an example's features [B, s] by modality through the head.

    Args:
      params: see `init_head`.
      features: [B, s]; those not given are not read.
      given: bool [B] by modality.
      weigh: whether tokens are weighed by certainty.
      drop: dropout, (name, x [B, ...]) -> x; none by default.

    Returns:
      tokens, encoded and decoded, [B, M, s + M + 1]; pooled, [B, s + M + 1]; shares, [B, M], of the tokens in
      the pool; logits, [B, C].
    """
    names = sorted(given)
    h = {m: jnp.where(given[m][:, None], features[m], 0.0).astype(jnp.float32) for m in names}
    content = jnp.stack([jnp.concatenate([
        h[m] @ params["pairs"]["/".join(sorted((m, n)))] for n in names if n != m], axis=-1) for m in names], axis=1)
    if weigh:
        sure = jnp.stack([jax.nn.softmax(linear(params["certainty"][m], h[m])).max(-1) for m in names], axis=-1)
        content *= jax.nn.softmax(sure)[..., None]
    tags = jnp.broadcast_to(tag(given)[:, None], (*content.shape[:2], len(names) + 1))
    tokens = jnp.concatenate([content, tags], axis=-1)
    drop = drop or (lambda name, x: x)
    encoded = transformer_layer(params["encoder"], tokens, lambda name, x: drop(f"encoder/{name}", x))
    decoded = transformer_layer(params["decoder"], encoded, lambda name, x: drop(f"decoder/{name}", x))
    pool = params["pool"]
    scores = (encoded @ pool["value"] * jax.nn.sigmoid(encoded @ pool["gate"])) @ pool["score"]
    shares = jax.nn.softmax(scores[..., 0])
    pooled = jnp.sum(shares[..., None] * encoded, axis=1)
    return {"tokens": tokens, "encoded": encoded, "decoded": decoded, "pooled": pooled, "shares": shares,
            "logits": linear(params["out"], linear(params["hidden"], pooled))}


def transformer_layer(params: Mapping, x: chex.Array, drop: Callable) -> chex.Array:
    """Attention among the tokens x [B, M, W], then two layers with ReLU, each added to its input and normalised."""

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    query, key, value = (dense(name, x) for name in ("query", "key", "value"))
    count = next(n for n in range(HEADS, 0, -1) if query.shape[-1] % n == 0)
    query, key, value = (y.reshape(*y.shape[:2], count, -1) for y in (query, key, value))
    attended = jax.nn.dot_product_attention(query, key, value).reshape(*x.shape[:2], -1)
    x = normalise(params["norm_1"], x + drop("attention", dense("out", attended)))
    wide = drop("wide", jax.nn.relu(dense("wide", x)))
    return normalise(params["norm_2"], x + drop("narrow", dense("narrow", wide)))


def normalise(params: Mapping, x: chex.Array) -> chex.Array:
    """x with mean 0 and variance 1 over its last axis, scaled and shifted."""
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x ** 2, axis=-1, keepdims=True) + NORM_EPS) * params["scale"] + params["bias"]


def check_options(config: TATEConfig, model: Model) -> None:
    """Raises UserError for an option out of range, one modality, or weights that need classes."""
    check_several(model, f"{config.name} pairs modalities")
    check_probability("method.hide", config.hide)
    check_choice("method.targets", config.targets, ("present", "oracle"))
    check_probability("method.dropout", config.dropout)
    check_at_least("method.weight", config.weight, 0)
    if config.weigh:
        need_classes(model.task, "weighing by certainty", "set --config.method.weigh=false")
