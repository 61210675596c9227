"""What all methods share: the state, forward passes, and one step on the parameters.

A method is a few pure functions over one `TrainState`; its file holds what is its own.
"""
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.batch import Batch, Logits, Metrics, for_modality
from jaxmm.config import MethodConfig
from jaxmm.data.transform import Transform
from jaxmm.encoders import Encoder
from jaxmm.errors import UserError
from jaxmm.heads import Features, Head
from jaxmm.losses.classification import weighted_mean


class TrainState(NamedTuple):
    """Everything that changes during training."""
    params: dict[str, Any]         # parameter groups: one per modality, "head", a method's own
    batch_stats: dict[str, Any]    # by modality; {} for encoders without
    opt_state: dict[str, Any]      # by parameter group
    key: chex.PRNGKey              # of the run; step i uses fold_in(key, i)
    step: chex.Array               # int32 scalar, steps done
    extra: Any = ()                # the method's own: RLS matrix, replay memory, temperatures


class Method(NamedTuple):
    """A way of training and predicting, as pure functions."""
    init: Callable[[chex.PRNGKey, Batch], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]] | None  # None: it only predicts
    predict: Callable[[TrainState, Batch], Logits]                    # [B, C] by head
    features: Callable[[TrainState, Batch], Features]                 # [B, s] by modality
    end_task: Callable[[TrainState], TrainState]                      # identity for most
    teachers: Mapping[str, MethodConfig] = {}    # models to be trained before it, by name
    teach: Callable[[TrainState, Mapping[str, TrainState]], TrainState] | None = None
    # (first state, last state of each teacher) -> first state with what they know


class Optimizer(NamedTuple):
    """Updates of parameter groups; groups that a step leaves out keep parameters and state."""
    init: Callable[[Mapping[str, Any]], dict[str, Any]]
    update: Callable[..., tuple[dict[str, Any], dict[str, Any]]]  # (grads, opt_state, params, step, scale)


class Components(NamedTuple):
    """What a method is built from, besides its own options."""
    encoders: dict[str, Encoder]    # by modality
    num_classes: int
    transform: Transform            # normalises, and augments when it gets a key
    optimizer: Optimizer
    epoch: Callable[[chex.Array], Any]      # step -> its place in its task: `train.plan.Epoch`
    batch_size: int                 # of the global batch
    num_examples: int               # of the training split: ids lie below it


def identity(state: TrainState) -> TrainState:
    """The `end_task` of methods that do nothing when a task ends."""
    return state


def select_modalities(components: Components, names: str, option: str) -> Components:
    """The components with only the modalities in `names`, joined by commas; all if it is empty.

    Raises:
      UserError: a name that is no modality of the data; `option` is where it was given.
    """
    chosen = [name.strip() for name in names.split(",")] if names else list(components.encoders)
    for m in chosen:
        if m not in components.encoders:
            raise UserError(f"{option}={names!r}: {m!r} is no modality of the data; expected "
                            f"{', '.join(components.encoders)} (--config.{option}=...)")
    return components._replace(encoders={m: components.encoders[m] for m in chosen})


def only(batch: Batch, modalities) -> Batch:
    """The batch with these modalities alone."""
    return batch | {part: {m: batch[part][m] for m in modalities} for part in ("inputs", "present")}


def pmean(tree, axis_name: str | None):
    """Mean over devices, if the step is mapped over any."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def step_key(state: TrainState) -> chex.PRNGKey:
    """The key of the coming step: a function of seed and step alone."""
    return jax.random.fold_in(state.key, state.step)


def own_key(key: chex.PRNGKey) -> chex.PRNGKey:
    """The key of a step for what a method draws, apart from the small numbers the transform takes."""
    return jax.random.fold_in(key, 2**31 - 1)


def init_state(components: Components, head: Head, key: chex.PRNGKey, batch: Batch,
               extra: Callable[[chex.PRNGKey, Mapping[str, int]], Any] | None = None) -> TrainState:
    """The state before the first step; `extra` makes the method's own part from (key, widths)."""
    init_key, head_key, extra_key, run_key = jax.random.split(key, 4)
    inputs = components.transform(None, batch)["inputs"]
    params, batch_stats, widths = {}, {}, {}
    for i, (m, encoder) in enumerate(components.encoders.items()):
        params[m], batch_stats[m] = encoder.init(jax.random.fold_in(init_key, i), inputs[m])
        features, _ = jax.eval_shape(lambda p, s, x, e=encoder: e.apply(p, s, x, train=False),
                                     params[m], batch_stats[m], inputs[m])
        widths[m] = features.shape[-1]
    params["head"] = head.init(head_key, widths)
    return TrainState(params, batch_stats, components.optimizer.init(params), run_key,
                      jnp.zeros((), jnp.int32), extra(extra_key, widths) if extra else ())


def encode(encoder: Encoder, params, batch_stats, batch: Batch, modality: str, *, train: bool):
    """Features [B, s] of one modality, zero where it is missing, and its new batch statistics."""
    x, _, present = for_modality(batch, modality)
    features, batch_stats = encoder.apply(params[modality], batch_stats[modality], x,
                                          train=train, mask=present)
    return jnp.where(present[:, None], features, 0.0), batch_stats


def encode_all(encoders: Mapping[str, Encoder], params, batch_stats, batch: Batch, *, train: bool):
    """Features and new batch statistics of every modality."""
    results = {m: encode(encoder, params, batch_stats, batch, m, train=train)
               for m, encoder in encoders.items()}
    return {m: r[0] for m, r in results.items()}, {m: r[1] for m, r in results.items()}


def apply_gradients(components: Components, state: TrainState, grads,
                    scale: Mapping[str, float] | None = None) -> TrainState:
    """One step of the optimizer on the groups in `grads`; all other groups stay bit for bit.

    `scale` holds factors on the learning rate, by group.
    """
    new_params, new_opt_state = components.optimizer.update(
        grads, state.opt_state, state.params, state.step, scale)
    return state._replace(params=state.params | new_params,
                          opt_state=state.opt_state | new_opt_state)


def head_accuracy(logits: Logits, batch: Batch, axis_name: str | None) -> Metrics:
    """Accuracy of each head; see `batch_accuracy`."""
    return {f"accuracy/{head}": batch_accuracy(z, batch["label"], batch["present"].get(head), axis_name)
            for head, z in logits.items()}


def batch_accuracy(logits, labels, present, axis_name: str | None):
    """Accuracy over the examples of the global batch that are `present` (None: all).

    Args:
      logits: [B, C].
      labels: int [B].
      present: bool [B] or None.
      axis_name: of the devices.

    Returns:
      A scalar; NaN if no example counts, which means over steps leave out.
    """
    accuracy = pmean(weighted_mean(logits.argmax(-1) == labels, present, axis_name), axis_name)
    if present is None:
        return accuracy
    counted = pmean(present.any().astype(jnp.float32), axis_name)
    return jnp.where(counted > 0, accuracy, jnp.nan)


def make_predict(components: Components, head: Head, fuse=None) -> Callable[..., Logits]:
    """predict(state, batch): logits of the head in evaluation mode.

    `fuse(logits by modality, present) -> [B, C]` replaces the head's own "fused" if given.
    """

    def predict(state, batch):
        return forward(components, head, state.params, state.batch_stats,
                       components.transform(None, batch), train=False, fuse=fuse).logits

    return predict


def make_features(components: Components) -> Callable[..., Features]:
    """features(state, batch): encoder outputs in evaluation mode."""

    def features(state, batch):
        return encode_all(components.encoders, state.params, state.batch_stats,
                          components.transform(None, batch), train=False)[0]

    return features


class Output(NamedTuple):
    """A forward pass through encoders and head."""
    features: Features              # [B, s] by modality
    logits: Logits                  # [B, C] by head
    batch_stats: dict[str, Any]     # new, by modality


def forward(components: Components, head: Head, params, batch_stats, batch: Batch, *,
            train: bool, perturb=None, fuse=None) -> Output:
    """Encoders and head on a transformed batch.

    `perturb(features) -> features` acts between them if given; for `fuse` see `make_predict`.
    """
    features, batch_stats = encode_all(components.encoders, params, batch_stats, batch, train=train)
    if perturb:
        features = perturb(features)
    logits = head.apply(params["head"], features)
    if fuse:
        logits |= {"fused": fuse({m: logits[m] for m in components.encoders}, batch["present"])}
    return Output(features, logits, batch_stats)


def gradients(components: Components, head: Head, state: TrainState, batch: Batch, loss_fn, *,
              groups: Collection[str] | None = None, perturb=None, fuse=None,
              axis_name: str | None = None):
    """(loss, Output, gradients by parameter group) over the global batch.

    Args:
      components: encoders, which run in evaluation mode unless they are among `groups`.
      head: features -> logits.
      state: before the step.
      batch: transformed.
      loss_fn: Output -> scalar over the global batch.
      groups: parameter groups to differentiate; all by default.
      perturb: see `forward`.
      fuse: see `make_predict`.
      axis_name: of the devices, if the step is mapped over several.
    """
    groups = state.params if groups is None else groups
    train = not set(components.encoders).isdisjoint(groups)

    def loss(params):
        out = forward(components, head, state.params | params, state.batch_stats, batch,
                      train=train, perturb=perturb, fuse=fuse)
        return loss_fn(out), out

    learned = {group: state.params[group] for group in groups}
    (value, out), grads = jax.value_and_grad(loss, has_aux=True)(learned)
    return pmean(value, axis_name), out, pmean(grads, axis_name)


def finish_step(components: Components, state: TrainState, batch: Batch, loss, out: Output, grads, *,
                extra=None, scale: Mapping[str, float] | None = None,
                axis_name: str | None = None) -> tuple[TrainState, Metrics]:
    """The state after a step, and its metrics.

    Args:
      components: whose optimizer is used.
      state: before the step.
      batch: whose labels the accuracies are of.
      loss: of the global batch.
      out: of the forward pass.
      grads: by parameter group.
      extra: the method's own part of the new state; the old one by default.
      scale: factors on the learning rate by parameter group.
      axis_name: of the devices.
    """
    metrics = {"loss": loss} | head_accuracy(out.logits, batch, axis_name)
    state = apply_gradients(components, state, grads, scale)
    return state._replace(batch_stats=out.batch_stats, step=state.step + 1,
                          extra=state.extra if extra is None else extra), metrics


def make_joint(components: Components, head: Head, loss_fn, *, fuse=None, perturb=None,
               axis_name: str | None = None) -> Method:
    """A method that trains all encoders and the head at once on one loss.

    Args:
      components: what to build from.
      head: features -> logits.
      loss_fn: (logits, batch) -> scalar over the global batch.
      fuse: see `make_predict`.
      perturb: (key, features, ids [B]) -> features, between encoders and head in training.
      axis_name: of the devices, if the step is mapped over several.
    """

    def init(key, batch):
        return init_state(components, head, key, batch)

    def step(state, batch):
        key = step_key(state)
        batch = components.transform(key, batch)
        noise = perturb and (lambda features: perturb(own_key(key), features, batch["id"]))
        loss, out, grads = gradients(
            components, head, state, batch, lambda out: loss_fn(out.logits, batch), fuse=fuse,
            perturb=noise, axis_name=axis_name)
        return finish_step(components, state, batch, loss, out, grads, axis_name=axis_name)

    return Method(init, step, make_predict(components, head, fuse), make_features(components),
                  identity)
