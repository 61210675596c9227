"""Plain ways of training: one modality alone, and the fusion baselines of MLA and UMT.

They differ in head, loss and dropout; the rest is `jaxmm.methods.common.make_joint`.
"""
import functools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.batch import Batch
from jaxmm.config import MethodConfig, dependent, scalar
from jaxmm.errors import check_at_least, check_choice, check_probability
from jaxmm.heads.fusion import mean_logits
from jaxmm.keys import named_key
from jaxmm.methods.common import (Method, finish_step, gradients, init_state, make_features, make_joint,
                                  make_predict, step_key)
from jaxmm.model import Model, select_modalities


@dataclass
class UnimodalConfig(MethodConfig):
    """One encoder and its linear head, alone."""
    name: str = "unimodal"
    modality: str = ""              # which one; required


@dataclass
class FusedConfig(MethodConfig):
    """Encoders and one fused head, trained jointly."""
    fusion: str = "concat"          # the fused head, a key of `heads.FUSIONS`
    hidden: int = dependent(1024, fusion="mlp")       # hidden units of the fusion "mlp"
    scale: float = scalar(10.0, fusion="cosine")     # of the fusion "cosine": largest logit of a modality, > 0


@dataclass
class AuxCEConfig(FusedConfig):
    """A fused head, and a loss for each modality."""
    name: str = "aux_ce"
    weight: float = scalar(1.0)     # of the losses of the modalities, >= 0
    detach_fusion: bool = False     # DGL: encoders learn from these losses alone, the head from the fused one


@dataclass
class DropoutConfig(FusedConfig):
    """A fused head; some of its input features are dropped in training."""
    name: str = "dropout"
    rate: float = 0.5               # probability in [0, 1): of a feature, or of a modality in a step


def fused_loss(model: Model):
    """loss_fn(outputs, batch): l(z_f, y), the task's loss (such as CE) of the fused output, a scalar."""
    return lambda logits, batch: model.mean(model.task.loss(logits["fused"], batch["label"]))


def modality_loss(model: Model, logits, batch, m: str):
    """l(z_m, y), a scalar: the mean over the examples that have the modality."""
    return model.mean(model.task.loss(logits[m], batch["label"]), batch["present"][m])


def late_loss(model: Model):
    """loss_fn(outputs, batch): sum_m l(z_m, y), its terms by modality."""
    return lambda logits, batch: {m: modality_loss(model, logits, batch, m) for m in model.encoders}


def aux_ce_loss(model: Model, weight: chex.Numeric = 1.0):
    """loss_fn(outputs, batch): l(z_f, y) and w l(z_m, y), the terms by head."""
    return lambda logits, batch: {"fused": fused_loss(model)(logits, batch)} | {
        m: weight * loss for m, loss in late_loss(model)(logits, batch).items()}


def make_unimodal(config: UnimodalConfig, model: Model) -> Method:
    """One encoder and its linear head, trained on the examples that have the modality.

    Raises:
      UserError: `config.modality` is not a modality of the data.
    """
    m = config.modality
    check_choice("method.modality", m, model.encoders)
    model = select_modalities(model, m, "method.modality")._replace(
        head=heads.separate(model.task.size))
    return make_joint(model, lambda logits, batch: modality_loss(model, logits, batch, m))


def make_fused(config: FusedConfig, model: Model) -> Method:
    """CE of the fused logits alone: `concat`, `sum`, `film`, `gated`, `mlp_head`, `attention_head`.

    Raises:
      UserError: an unknown fusion, or one that does not fit these encoders.
    """
    model = with_fused_head(config, model)
    return make_joint(model, fused_loss(model))


def fused_head(config: FusedConfig, model: Model) -> heads.Head:
    """The head `config.fusion`; for one modality it is one linear layer, but for "cosine"."""
    check_choice("method.fusion", config.fusion, heads.FUSIONS)
    if len(model.encoders) == 1 and config.fusion != "cosine":
        return heads.concat(model.task.size)
    options = {"mlp": {"hidden": config.hidden}, "cosine": {"scale": config.scale}}.get(config.fusion, {})
    return heads.FUSIONS[config.fusion](model.task.size, **options)


def with_fused_head(config: FusedConfig, model: Model) -> Model:
    """The model with the head `config.fusion`."""
    return model._replace(head=fused_head(config, model))


def with_all_heads(config: FusedConfig, model: Model) -> Model:
    """The model with the head `config.fusion`, and a linear head for each modality."""
    return model._replace(head=heads.with_unimodal_heads(fused_head(config, model),
                                                         model.task.size))


def make_aux_ce(config: AuxCEConfig, model: Model) -> Method:
    """A fused head and a linear head per modality, with CE(z_f) + w sum_m CE(z_m) (UMT, w = 1).

    With `config.detach_fusion` there is the fused head alone, and z_m is what it makes of modality m with all
    other features 0: CE(z_f(sg(h))) + w sum_m CE(z_m), in which the weights of the head are constants.

    Raises:
      UserError: a negative weight, or an unknown fusion.

    References:
      DGL, "Boosting multimodal learning via disentangled gradient learning", ICCV 2025.
    """
    check_at_least("method.weight", config.weight, 0)
    if config.detach_fusion:
        return make_detached(config, model)
    model = with_all_heads(config, model)
    return make_joint(model, aux_ce_loss(model, config.weight))


def make_detached(config: AuxCEConfig, model: Model) -> Method:
    """`make_aux_ce` with gradients that are kept apart."""
    model = model._replace(head=heads.read_alone(fused_head(config, model)))
    loss_of, sg = aux_ce_loss(model, config.weight), jax.lax.stop_gradient

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        batch = model.transform(step_key(state), batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True, perturb=sg)
            alone = model.head.apply(sg(params["head"]), out.features)
            return loss_of(alone | {"fused": out.outputs["fused"]}, batch), out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn))

    return Method(init, step, make_predict(model), make_features(model))


def make_dropout(config: DropoutConfig, model: Model) -> Method:
    """Dropout (Srivastava et al., 2014) on the features that enter the fused head.

    Raises:
      UserError: a rate outside [0, 1), or an unknown fusion.
    """
    check_probability("method.rate", config.rate)
    model = with_fused_head(config, model)
    return make_joint(model, fused_loss(model),
                      perturb=functools.partial(drop_features, config.rate))


def make_modality_dropout(config: DropoutConfig, model: Model) -> Method:
    """In each step, with probability `rate`, the features of one random modality are set to 0 (UMT).

    Raises:
      UserError: a rate outside [0, 1), or an unknown fusion.
    """
    check_probability("method.rate", config.rate)
    model = with_fused_head(config, model)
    return make_joint(model, fused_loss(model),
                      perturb=functools.partial(drop_modality, config.rate))


def drop_features(rate: chex.Numeric, key: chex.PRNGKey, features: heads.Features,
                  batch: Batch) -> heads.Features:
    """Features [B, s] by modality, each 0 with probability `rate` and otherwise divided by 1 - rate.

    What is dropped from an example depends on the key, the modality and the example's id, not on
    its position in the batch.
    """

    def drop(key, h):
        return jnp.where(jax.random.bernoulli(key, 1 - rate, h.shape), h / (1 - rate), 0.0)

    return {m: jax.vmap(drop)(jax.vmap(jax.random.fold_in, (None, 0))(
        named_key(key, m), batch["id"]), h) for m, h in features.items()}


def drop_modality(rate: float, key: chex.PRNGKey, features: heads.Features,
                  batch: Batch) -> heads.Features:
    """Features [B, s] by modality; with probability `rate` those of one modality are 0.

    The modality is drawn once for the whole batch. Examples that have no other one keep it.
    """
    hit = jax.random.bernoulli(named_key(key, "hit"), rate)
    draws = {m: jax.random.uniform(named_key(key, f"draw/{m}")) for m in features}
    first = functools.reduce(jnp.maximum, draws.values())
    count = sum(batch["present"][m].astype(jnp.int32) for m in features)
    return {m: jnp.where((hit & (draws[m] == first) & (count > 1))[:, None], 0.0, h)
            for m, h in features.items()}


def make_late(config: MethodConfig, model: Model) -> Method:
    """One linear layer and one CE per modality, no interaction; fused is the mean of the logits (MLA)."""
    del config

    model = model._replace(head=heads.separate(model.task.size), fuse=mean_logits)
    return make_joint(model, late_loss(model))
