"""Plain ways of training: one modality alone, and the fusion baselines of MLA and UMT.

They differ in head, loss and dropout; `jaxmm.methods.common.make_joint` is the rest.
"""
import functools

import chex
import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.config import DropoutConfig, FusedConfig, MethodConfig, UnimodalConfig
from jaxmm.errors import UserError, check_choice
from jaxmm.evaluate.fusion import mean_logits
from jaxmm.losses.classification import cross_entropy
from jaxmm.methods.common import Components, Method, make_joint, select_modalities


def fused_cross_entropy(axis_name: str | None):
    """loss_fn: CE(z_f, y)."""
    return lambda logits, batch: cross_entropy(logits["fused"], batch["label"],
                                               axis_name=axis_name)


def make_unimodal(config: UnimodalConfig, components: Components, *,
                  axis_name: str | None = None) -> Method:
    """One encoder and its linear head, trained on the examples that have the modality.

    Raises:
      UserError: `config.modality` is no modality of the data.
    """
    m = config.modality
    check_choice("method.modality", m, components.encoders)
    components = select_modalities(components, m, "method.modality")

    def loss_fn(logits, batch):
        return cross_entropy(logits[m], batch["label"], batch["present"][m], axis_name)

    return make_joint(components, heads.separate(components.num_classes), loss_fn,
                      axis_name=axis_name)


def make_fused(config: FusedConfig, components: Components, *,
               axis_name: str | None = None) -> Method:
    """CE of the fused logits alone: `concat`, `sum`, `film`, `gated`, `mlp_head`, `attention_head`.

    Raises:
      UserError: there is no such fusion, or it does not take these encoders.
    """
    return make_joint(components, fused_head(config, components), fused_cross_entropy(axis_name),
                      axis_name=axis_name)


def fused_head(config: FusedConfig, components: Components) -> heads.Head:
    """The head `config.fusion`; one linear layer if there is only one modality."""
    check_choice("method.fusion", config.fusion, heads.FUSIONS)
    if len(components.encoders) == 1:
        return heads.concat(components.num_classes)
    options = {"hidden": config.hidden} if config.fusion == "mlp" else {}
    return heads.FUSIONS[config.fusion](components.num_classes, **options)


def make_aux_ce(config: FusedConfig, components: Components, *,
                axis_name: str | None = None) -> Method:
    """A fused head and a linear head per modality, each with its own CE, all of weight 1 (UMT)."""
    head = heads.with_unimodal_heads(fused_head(config, components), components.num_classes)

    def loss_fn(logits, batch):
        return cross_entropy(logits["fused"], batch["label"], axis_name=axis_name) + sum(
            cross_entropy(logits[m], batch["label"], batch["present"][m], axis_name)
            for m in components.encoders)

    return make_joint(components, head, loss_fn, axis_name=axis_name)


def make_dropout(config: DropoutConfig, components: Components, *,
                 axis_name: str | None = None) -> Method:
    """Dropout (Srivastava et al., 2014) on the features that enter the fused head."""
    check_rate(config.rate)
    return make_joint(components, fused_head(config, components), fused_cross_entropy(axis_name),
                      perturb=functools.partial(drop_features, config.rate), axis_name=axis_name)


def make_modality_dropout(config: DropoutConfig, components: Components, *,
                          axis_name: str | None = None) -> Method:
    """In a step, with probability `rate`, the features of one random modality are zero (UMT)."""
    check_rate(config.rate)
    return make_joint(components, fused_head(config, components), fused_cross_entropy(axis_name),
                      perturb=functools.partial(drop_modality, config.rate), axis_name=axis_name)


def check_rate(rate: float) -> None:
    """Raises UserError for a rate of dropout outside [0, 1)."""
    if not 0 <= rate < 1:
        raise UserError(f"method.rate={rate}; expected a probability in [0, 1)")


def drop_features(rate: float, key: chex.PRNGKey, features: heads.Features,
                  ids: chex.Array) -> heads.Features:
    """Features [B, s], each zero with probability `rate` and otherwise divided by 1 - rate.

    What is dropped from an example depends on the key and its id, not on its place in the batch.
    """

    def drop(key, h):
        return jnp.where(jax.random.bernoulli(key, 1 - rate, h.shape), h / (1 - rate), 0.0)

    return {m: jax.vmap(drop)(jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.fold_in(key, i), ids), h) for i, (m, h) in enumerate(features.items())}


def drop_modality(rate: float, key: chex.PRNGKey, features: heads.Features,
                  ids: chex.Array) -> heads.Features:
    """Features with those of one modality, drawn for the whole batch, zero with this probability."""
    del ids
    hit_key, which_key = jax.random.split(key)
    hit = jax.random.bernoulli(hit_key, rate)
    which = jax.random.randint(which_key, (), 0, len(features))
    return {m: jnp.where(hit & (which == i), 0.0, h) for i, (m, h) in enumerate(features.items())}


def make_late(config: MethodConfig, components: Components, *,
              axis_name: str | None = None) -> Method:
    """One linear layer and one CE per modality, no interaction; fused is the mean of the logits."""
    del config

    def loss_fn(logits, batch):
        return sum(cross_entropy(logits[m], batch["label"], batch["present"][m], axis_name)
                   for m in components.encoders)

    return make_joint(components, heads.separate(components.num_classes), loss_fn,
                      fuse=mean_logits, axis_name=axis_name)
