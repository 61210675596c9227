"""What all methods share: the state, forward passes, and one step on the parameters.

A method is a few pure functions over one `TrainState`; its file holds what is its own.
"""
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.batch import Batch, Logits, Metrics, for_modality
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
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]   # one optimisation step
    predict: Callable[[TrainState, Batch], Logits]                    # [B, C] by head
    features: Callable[[TrainState, Batch], Features]                 # [B, s] by modality
    end_task: Callable[[TrainState], TrainState]                      # identity for most


class Optimizer(NamedTuple):
    """Updates of parameter groups; groups that a step leaves out keep parameters and state."""
    init: Callable[[Mapping[str, Any]], dict[str, Any]]
    update: Callable[..., tuple[dict[str, Any], dict[str, Any]]]  # (grads, opt_state, params, step)


class Components(NamedTuple):
    """What a method is built from, besides its own options."""
    encoders: dict[str, Encoder]    # by modality
    num_classes: int
    transform: Transform            # normalises, and augments when it gets a key
    optimizer: Optimizer
    epoch: Callable[[chex.Array], chex.Array]   # step -> epochs done within its task, fractional
    batch_size: int                 # of the global batch


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


def apply_gradients(components: Components, state: TrainState, grads) -> TrainState:
    """One step of the optimizer on the groups in `grads`; all other groups stay bit for bit."""
    new_params, new_opt_state = components.optimizer.update(
        grads, state.opt_state, state.params, state.step)
    return state._replace(params=state.params | new_params,
                          opt_state=state.opt_state | new_opt_state)


def head_accuracy(logits: Logits, batch: Batch, axis_name: str | None) -> Metrics:
    """Accuracy of each head over the examples of the global batch that have its modality."""
    correct = {head: z.argmax(-1) == batch["label"] for head, z in logits.items()}
    return {f"accuracy/{head}": pmean(weighted_mean(hit, batch["present"].get(head), axis_name),
                                      axis_name) for head, hit in correct.items()}


def make_predict(components: Components, head: Head, fuse=None) -> Callable[..., Logits]:
    """predict(state, batch): logits of the head in evaluation mode.

    `fuse(logits by modality, present) -> [B, C]` replaces the head's own "fused" if given.
    """

    def predict(state, batch):
        logits = head.apply(state.params["head"], features(state, batch))
        if fuse:
            modalities = {m: logits[m] for m in components.encoders}
            logits = logits | {"fused": fuse(modalities, batch["present"])}
        return logits

    features = make_features(components)
    return predict


def make_features(components: Components) -> Callable[..., Features]:
    """features(state, batch): encoder outputs in evaluation mode."""

    def features(state, batch):
        return encode_all(components.encoders, state.params, state.batch_stats,
                          components.transform(None, batch), train=False)[0]

    return features


def make_joint(components: Components, head: Head, loss_fn, *, fuse=None,
               axis_name: str | None = None) -> Method:
    """A method that trains all encoders and the head at once on one loss.

    Args:
      components: what to build from.
      head: features -> logits.
      loss_fn: (logits, batch) -> scalar over the global batch.
      fuse: see `make_predict`.
      axis_name: of the devices, if the step is mapped over several.
    """

    def init(key, batch):
        return init_state(components, head, key, batch)

    def step(state, batch):
        batch = components.transform(step_key(state), batch)

        def loss(params):
            features, batch_stats = encode_all(components.encoders, params, state.batch_stats,
                                               batch, train=True)
            logits = head.apply(params["head"], features)
            return loss_fn(logits, batch), (logits, batch_stats)

        (value, (logits, batch_stats)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        if fuse:
            logits |= {"fused": fuse({m: logits[m] for m in components.encoders}, batch["present"])}
        metrics = {"loss": pmean(value, axis_name)} | head_accuracy(logits, batch, axis_name)
        state = apply_gradients(components, state, pmean(grads, axis_name))
        return state._replace(batch_stats=batch_stats, step=state.step + 1), metrics

    return Method(init, step, make_predict(components, head, fuse), make_features(components),
                  identity)
