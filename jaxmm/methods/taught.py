"""Methods that start from trained models: UMT, UME and the methods that the paper compares with them.

Uni-modal teacher and uni-modal ensemble (arXiv 2305.01233). Teachers are constants of the step: they
run in evaluation mode, and their parameters are in the method's own part of the state, outside the
optimizer.

A student that imitates teachers must not share their initial weights, so they are runs with another
seed. Where a method takes over trained weights, they come from runs with the same seed.
"""
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.config import MethodConfig, dependent, scalar
from jaxmm.errors import UserError, check_at_least, check_choice
from jaxmm.losses.distillation import kl_divergence, mean_squared_error
from jaxmm.methods.common import (Method, TrainState, finish_step, gradients, init_state,
                                  make_features, make_predict, step_key)
from jaxmm.methods.fusion import FusedConfig, UnimodalConfig, with_fused_head
from jaxmm.model import Model
from jaxmm.task import need_classes

TINY = 1e-6     # mean square of features that are taken for 0
CURE = "method.distance=normalised and method.warmup_epochs=3"


@dataclass
class TaughtConfig(FusedConfig):
    """A method that starts from trained models.

    `teachers` says where the run folders of the trained models are, with {teacher} in place of the
    name of each, as in runs/compare/{teacher}/seed_0. By default they are trained first, in the
    run's own folder. The teachers of a method that distils need another `train.seed`.
    """
    teachers: str = ""              # their run folders, with {teacher} and {seed}; "": they are trained first


@dataclass
class ImitatingConfig(TaughtConfig):
    """A method that imitates trained models, or starts from one that did."""
    distance: str = "mse"           # of features: "mse" as published, which diverges where they are large;
                                    # "relative", over the mean square of the teacher's; or "normalised", of
                                    # features scaled to a mean square of 1
    warmup_epochs: float = 0.0      # the weight of the distillation rises linearly over this many epochs


@dataclass
class UMTConfig(ImitatingConfig):
    """Distils from unimodal teachers (UMT, arXiv 2305.01233)."""
    name: str = "umt"
    weight: float = scalar(50.0)    # of the distillation, >= 0
    labels: bool = True             # learn from labels too; off: from distillation alone


@dataclass
class SelfDistillConfig(ImitatingConfig):
    """Distils from a trained model of the same kind."""
    name: str = "self_distill_label"
    weight: float = scalar(1.0)     # of the distillation, >= 0
    distance: str = dependent("mse", name="self_distill_feature")     # see ImitatingConfig
    temperature: float = dependent(4.0, name="self_distill_label")    # T, > 0


@dataclass
class FinetuneConfig(TaughtConfig):
    """Unimodal encoders as the start, under a new fused head."""
    name: str = "finetune"
    encoder_scale: float = 0.1      # learning rate of the encoders as a multiple of the head's, >= 0


@dataclass
class UMEConfig(MethodConfig):
    """Averages the predictions of unimodal models (UME, arXiv 2305.01233)."""
    name: str = "ume"
    weights: str = ""               # MODALITY:WEIGHT,...; equal by default
    teachers: str = ""              # see TaughtConfig


def make_umt(config: UMTConfig, model: Model) -> Method:
    """Uni-modal teacher: CE(z_f, y) + w sum_m MSE(h_m, h_m of the teacher).

    The features [B, s] of every modality imitate, before they are fused, those of an encoder
    trained on it alone. Teacher and student see the same augmented input. Without `config.labels`
    the loss is the distillation alone.

    The curvature of this loss grows with w times the square of the features. At w = 50 and rates at which
    the labels are learned, features of a mean square of 3 are too large: it diverges within a few steps. The
    other values of `config.distance` take that square out, see `imitation`; a warm-up of w lets the rest of
    the curvature fall before it counts.

    Raises:
      UserError: a negative weight or warm-up, an unknown distance or fusion.
    """

    def distillation(out, teacher, batch):
        return sum(imitation(model, config.distance, mean_squared_error, out.features[m],
                             teacher.features[m], batch["present"][m]) for m in model.encoders)

    return make_distilled(config, model, distillation, unimodal_models(model), unimodal_encoders,
                          labels=config.labels)


def make_self_distill_label(config: SelfDistillConfig, model: Model) -> Method:
    """CE(z_f, y) + w KL of the softened predictions of a trained model of the same kind (UMT).

    Raises:
      UserError: a negative weight or warm-up, a temperature below 0.001, an unknown fusion, or a task
        that is not a classification.
    """
    check_at_least("method.temperature", config.temperature, 1e-3)
    need_classes(model.task, "distillation of softened predictions", "use self_distill_feature")

    def distillation(out, teacher, batch):
        del batch
        return model.mean(kl_divergence(out.outputs["fused"], teacher.outputs["fused"],
                                        config.temperature))

    return make_distilled(config, model, distillation, fused_model(config), whole_model)


def make_self_distill_feature(config: SelfDistillConfig, model: Model) -> Method:
    """CE(z_f, y) + w MSE of the fused feature of a trained model of the same kind (UMT).

    Raises:
      UserError: a negative weight or warm-up, an unknown distance or fusion.
    """

    def distillation(out, teacher, batch):
        error = functools.partial(feature_error, present=batch["present"])
        return imitation(model, config.distance, error, out.features, teacher.features)

    return make_distilled(config, model, distillation, fused_model(config), whole_model)


def feature_error(a: heads.Features, b: heads.Features, present) -> jax.Array:
    """Mean [B] of the squared difference of a and b, [B, s] by modality.

    It is taken over all features of the modalities that an example has.
    """
    widths = {m: present[m] * h.shape[-1] for m, h in a.items()}
    total = sum(widths[m] * mean_squared_error(h, b[m]) for m, h in a.items())
    return total / jnp.maximum(sum(widths.values()), 1)


def imitation(model: Model, distance: str, error, student, teacher, present=None) -> jax.Array:
    """Mean over the global batch of error(student, teacher) [B], of features or of trees of them.

    A squared error becomes relative if it is divided by that of a student who puts out 0, the mean square of
    the teacher's features. (Their variance would vanish where one row alone has the modality.) Or the
    features themselves are scaled, row by row: then the student's may grow as they like.

    Args:
      model: whose batch it is.
      distance: see `ImitatingConfig`.
      error: of two trees, by row.
      student: features [B, s] or maps [B, ..., s].
      teacher: of the same shapes.
      present: bool [B], the rows that count; all by default.
    """
    if distance == "normalised":
        student, teacher = jax.tree.map(normalise, (student, teacher))
    loss = model.mean(error(student, teacher), present)
    if distance != "relative":
        return loss
    square = model.mean(error(teacher, jax.tree.map(jnp.zeros_like, teacher)), present)
    return loss / jnp.maximum(square, TINY)


def normalise(features: jax.Array) -> jax.Array:
    """Rows [..., s] scaled to a mean square of 1, float32; rows of nearly 0 stay near it."""
    features = features.astype(jnp.float32)
    return features * jax.lax.rsqrt(jnp.mean(features ** 2, axis=-1, keepdims=True) + TINY)


def make_distilled(config: ImitatingConfig, model: Model, distillation, teachers, collect, *,
                   labels: bool = True) -> Method:
    """A method with the loss CE(z_f, y) + w distillation(output, teacher's output, batch).

    In the first `config.warmup_epochs` w rises linearly from 0.

    Args:
      config: has `weight`, and names the fused head.
      model: without a head.
      distillation: (Output of the student, Output of the teacher, batch) -> scalar.
      teachers: options of the models to be trained first, by name.
      collect: states of the teachers by name -> (params, batch_stats) of one model.
      labels: whether the cross-entropy is part of the loss.
    """
    weight = make_weight(config, model)
    model = with_fused_head(config, model)

    def init(key, batch):
        state = init_state(model, key, batch)
        return state._replace(extra={"teacher": (state.params, state.batch_stats)})

    def teach(state, models):
        params, batch_stats = collect(models)
        untaught, _ = state.extra["teacher"]
        return state._replace(extra={"teacher": (untaught | params, batch_stats)})

    def step(state, batch):
        batch = model.transform(step_key(state), batch)
        teacher = model.run(*state.extra["teacher"], batch, train=False)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            terms = {"distillation": weight(state.step) * distillation(out, teacher, batch)}
            if labels:
                terms["fused"] = model.mean(model.task.loss(out.outputs["fused"], batch["label"]))
            return terms, out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn))

    return Method(init, step, make_predict(model), make_features(model),
                  teachers=teachers, teach=teach, distils=True)


def make_weight(config, model: Model):
    """weight(step): that of a distillation, which rises linearly over the first `config.warmup_epochs`.

    Raises:
      UserError: the `weight`, `warmup_epochs` or `distance` of a distillation is out of range.
    """
    check_at_least("method.weight", config.weight, 0)
    check_at_least("method.warmup_epochs", config.warmup_epochs, 0)
    check_choice("method.distance", config.distance, ("mse", "relative", "normalised"))

    def weight(step):
        if not config.warmup_epochs:
            return config.weight
        return config.weight * jnp.minimum(model.epoch(step).fraction / config.warmup_epochs, 1)

    return weight


def make_finetune(config: FinetuneConfig, model: Model) -> Method:
    """Trained unimodal encoders as initial weights, under a new fused head (UMT).

    With `encoder_scale` 0 the encoders are frozen, batch statistics included.

    Raises:
      UserError: a negative `encoder_scale`, or an unknown fusion.
    """
    check_at_least("method.encoder_scale", config.encoder_scale, 0)
    return make_transferred(config, model, unimodal_models(model), unimodal_encoders,
                            groups=None if config.encoder_scale else ("head",),
                            scale={m: config.encoder_scale for m in model.encoders})


def make_frozen_linear(config: TaughtConfig, model: Model) -> Method:
    """A fused head on frozen unimodal encoders (UMT).

    The paper's rule compares it with the average of the unimodal predictions: if it is better use
    UMT, otherwise UME.

    Raises:
      UserError: an unknown fusion.
    """
    return make_transferred(config, model, unimodal_models(model), unimodal_encoders,
                            groups=("head",))


def make_frozen_linear_on_distilled(config: ImitatingConfig, model: Model) -> Method:
    """A fused head on frozen encoders that were trained by distillation alone (UMT).

    Raises:
      UserError: an unknown fusion.
    """
    distilled = UMTConfig(labels=False, distance=config.distance, warmup_epochs=config.warmup_epochs)
    return make_transferred(config, model, {name_of(distilled): distilled}, whole_model,
                            groups=("head",))


def make_transferred(config: TaughtConfig, model: Model, teachers, collect, *,
                     groups=None, scale=None) -> Method:
    """CE(z_f, y) under a new head, from encoders that are already trained.

    For `teachers` and `collect` see `make_distilled`; for `groups` and `scale` see `gradients` and
    `apply_gradients` in `jaxmm.methods.common`.
    """
    model = with_fused_head(config, model)

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        batch = model.transform(step_key(state), batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=groups or True)
            return model.mean(model.task.loss(out.outputs["fused"], batch["label"])), out

        return finish_step(model, state, batch,
                           *gradients(model, state.params, loss_fn, groups), scale=scale)

    def teach(state, models):
        return with_encoders(state, *collect(models))

    return Method(init, step, make_predict(model), make_features(model),
                  teachers=teachers, teach=teach)


def make_ume(config: UMEConfig, model: Model) -> Method:
    """Uni-modal ensemble: the mean of the probabilities of separately trained unimodal models.

    There is no further training. The fused logits are log sum_m w_m softmax(z_m) [B, C], with
    weights that sum to 1 over the modalities an example has.

    Raises:
      UserError: weights that cannot be parsed or are not positive, or a task that is not a
        classification.
    """
    need_classes(model.task, "an average of probabilities", "use late")
    weights = parse_weights(config.weights, model.encoders)
    model = model._replace(
        head=heads.separate(model.task.size),
        fuse=lambda logits, present: mean_probability(logits, present, weights))

    def init(key, batch):
        return init_state(model, key, batch)

    def teach(state, models):
        params, batch_stats = unimodal_networks(models)
        return state._replace(params=params, batch_stats=batch_stats)

    return Method(init, None, make_predict(model), make_features(model),
                  teachers=unimodal_models(model), teach=teach)


def mean_probability(logits, present, weights: Mapping[str, float]):
    """log sum_m w_m softmax(z_m) [B, C] of logits [B, C], over the modalities present bool [B].

    The weights w_m are scaled to sum to 1 over them.
    """
    shares = jnp.stack([weights[m] * present[m] for m in logits]).astype(jnp.float32)
    shares /= jnp.maximum(shares.sum(0), jnp.finfo(jnp.float32).tiny)
    log_p = jnp.stack([jax.nn.log_softmax(z.astype(jnp.float32)) for z in logits.values()])
    return jax.nn.logsumexp(log_p, axis=0, b=shares[..., None])


def parse_weights(text: str, modalities) -> dict[str, float]:
    """Weight by modality from MODALITY:WEIGHT,...; all 1 if the text is empty.

    Raises:
      UserError: another form, an unknown or missing modality, or a weight that is not positive.
    """
    if not text:
        return {m: 1.0 for m in modalities}
    try:
        pairs = (item.rpartition(":") for item in text.split(","))
        weights = {m.strip(): float(value) for m, _, value in pairs}
    except ValueError:
        weights = {}
    if set(weights) != set(modalities) or not all(0 < w < float("inf") for w in weights.values()):
        raise UserError(f"method.weights={text!r}; expected a number above 0 for each modality, as "
                        f"in {','.join(f'{m}:1' for m in modalities)}")
    return weights


def unimodal_models(model: Model) -> dict[str, MethodConfig]:
    """Options of one `unimodal` teacher per modality."""
    return {f"unimodal_{m}": UnimodalConfig(modality=m) for m in model.encoders}


def fused_model(config: TaughtConfig) -> dict[str, MethodConfig]:
    """Options of a teacher with the same fused head, trained on the labels alone."""
    if config.fusion == "concat":
        return {"concat": FusedConfig("concat")}
    return {f"concat+fusion={config.fusion}": FusedConfig(
        "concat", fusion=config.fusion, hidden=config.hidden, scale=config.scale)}


def unimodal_encoders(models: Mapping[str, TrainState]):
    """(params, batch_stats) by modality of unimodal models."""
    params = {m: model.params[m] for model in models.values() for m in model.batch_stats}
    return params, {m: s for model in models.values() for m, s in model.batch_stats.items()}


def unimodal_networks(models: Mapping[str, TrainState]):
    """(params, batch_stats) of unimodal models, their layers in one head "separate"."""
    params, batch_stats = unimodal_encoders(models)
    layers = {m: model.params["head"][m] for model in models.values() for m in model.batch_stats}
    return params | {"head": layers}, batch_stats


def with_encoders(state: TrainState, params: Mapping, batch_stats: Mapping) -> TrainState:
    """The state with trained encoders; its head stays."""
    return state._replace(params=state.params | {m: params[m] for m in batch_stats}, batch_stats=batch_stats)


def name_of(config: MethodConfig) -> str:
    """METHOD+OPTION=VALUE of the options that differ from the method's own, as in a comparison."""
    return "+".join([config.name, *(
        f"{f.name}={str(getattr(config, f.name)).lower()}" for f in dataclasses.fields(config)
        if f.name != "name" and getattr(config, f.name) != f.default)])


def whole_model(models: Mapping[str, TrainState]):
    """(params, batch_stats) of the only model in `models`."""
    (model,) = models.values()
    return model.params, model.batch_stats
