"""What all methods share: the state, and one step on the parameters.

A method is a few pure functions over one `TrainState`; its file holds only what is specific to it.
"""
import functools
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmm.batch import Batch, Logits, Metrics
from jaxmm.config import MethodConfig
from jaxmm.encoders import Encoder
from jaxmm.encoders.exchange import seen
from jaxmm.errors import UserError
from jaxmm.heads import Features
from jaxmm.keys import draw_by_name, named_key
from jaxmm.model import Model, Output


class TrainState(NamedTuple):
    """Everything that changes during training."""
    params: dict[str, Any]         # parameter groups: one per modality, "exchange", "decoder", "head", a method's own
    batch_stats: dict[str, Any]    # by modality, of exchange and decoder; {} for encoders without
    opt_state: dict[str, Any]      # by parameter group
    key: chex.PRNGKey              # of the run; step i uses fold_in(key, i)
    step: chex.Array               # int32 scalar, steps done
    extra: Any = ()                # the method's own: RLS matrix, replay memory, temperatures
    experts: Any = ()              # `state.experts.Experts`, of a run that predicts by their product


class Progress(NamedTuple):
    """Where a run stands, as known on the host."""
    task: int       # of the stream, from 0
    epoch: int      # within the task, from 0
    step: int       # steps done in all
    extra: Callable[[], Any] = tuple        # -> one copy of the method's own state, which it waits for


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class Method(NamedTuple):
    """A way of training and predicting, as pure functions. Optional ones are None by default."""
    init: Callable[[chex.PRNGKey, Batch], TrainState]
    step: Step | Mapping[str, Step] | None      # by phase if it has several; None: no training of its own
    predict: Callable[[TrainState, Batch], Logits]                    # [B, K] by head
    features: Callable[[TrainState, Batch], Features]                 # [B, s] by modality
    phase: Callable[[Progress], str] | None = None      # of an epoch's steps, asked as it begins
    begin: Callable[[TrainState], TrainState] | None = None
    # (initial state) -> the state that the first step starts from, once its weights are those that were
    # drawn, named or taken from teachers
    survey: Callable[[TrainState, Batch], TrainState] | None = None
    # one pass before the first step over the rows of the first task, as `visit`
    end_epoch: Callable[[TrainState, Callable[..., Batch]], TrainState] | None = None
    # (state, features_of); features_of(split, share=1.0) computes, when called, "features" [N, s] by
    # modality in place of inputs, of the task's rows of a split or a share of them, always the same ones
    visit: Callable[[TrainState, Batch], TrainState] | None = None
    # one pass over the rows of a finished task, in order; rows that pad the last batch have no
    # modality present
    end_task: Callable[[TrainState], TrainState] | None = None
    teachers: Mapping[str, MethodConfig] = {}    # models to be trained before it, by name
    teach: Callable[[TrainState, Mapping[str, TrainState]], TrainState] | None = None
    # (initial state, final state of each teacher by name) -> initial state that holds their weights
    weights: Callable[[TrainState, Logits, Mapping[str, chex.Array]], Logits] | None = None
    # (state, outputs by head, present) -> weights [B] by head of fusion at test time
    squeezes: Callable[[TrainState, Batch], dict[str, chex.Array]] | None = None
    # what each modality feeds into each exchange, [B, C] by "STAGE/MODALITY"
    maps: Callable[[TrainState, Batch], dict[str, chex.Array]] | None = None
    # of a segmentation, the predicted class [B, H, W] at every pixel by head
    ready: Callable[[TrainState], TrainState] | None = None
    # the state with what `predict` and `features` need of it for every batch, which they compute themselves
    # for other states
    distils: bool = False       # imitates its teachers, so it must not share their initial weights
    from_features: bool = True  # `predict` depends on the inputs only by `features`, each of its modality alone


def only(batch: Batch, modalities: Collection[str]) -> Batch:
    """The batch with these modalities alone."""
    return batch | {part: {m: batch[part][m] for m in modalities} for part in ("inputs", "present")}


def step_key(state: TrainState) -> chex.PRNGKey:
    """The key of the coming step: a function of seed and step alone."""
    return jax.random.fold_in(state.key, state.step)


def own_key(key: chex.PRNGKey) -> chex.PRNGKey:
    """The key for a method's own draws in a step, independent of those of the transform."""
    return named_key(key, "method")


def init_state(model: Model, key: chex.PRNGKey, batch: Batch,
               extra: Callable[[chex.PRNGKey, Mapping[str, int]], Any] | None = None) -> TrainState:
    """The state before the first step; `extra` makes the method's own part from (key, widths).

    The initial weights of an encoder depend only on the key and the name of its modality, so they
    are the same in all methods with the same seed.
    """
    init_key, head_key, extra_key, run_key = jax.random.split(key, 4)
    inputs = model.transform(None, batch)["inputs"]
    kinds = {m: (encoder, inputs[m].shape, inputs[m].dtype) for m, encoder in model.encoders.items()}
    drawn = draw_by_name(init_encoder, init_key, kinds)
    params, batch_stats = ({m: parts[i] for m, parts in drawn.items()} for i in range(2))
    widths = {}
    for m, encoder in model.encoders.items():
        features, _ = jax.eval_shape(lambda p, s, x, e=encoder: e.apply(p, s, x, train=False),
                                     params[m], batch_stats[m], inputs[m])
        widths[m] = features.shape[-1]
    if model.exchange:
        params["exchange"], batch_stats["exchange"] = init_exchange(
            model, named_key(init_key, "exchange"), params, batch_stats, inputs)
    if model.decoder:
        params["decoder"], batch_stats["decoder"], widths = init_decoder(
            model, named_key(init_key, "decoder"), params, batch_stats, inputs)
    assert model.head       # which the factory of the method has set
    params["head"] = model.head.init(head_key, widths)
    return TrainState(params, batch_stats, model.optimizer.init(params), run_key,
                      jnp.zeros((), jnp.int32), extra(extra_key, widths) if extra else ())


def init_encoder(key: chex.PRNGKey, kind: tuple[Encoder, tuple[int, ...], jnp.dtype]) -> tuple[Any, Any]:
    """(params, stats) of an encoder for inputs of a shape and type, whatever is in them."""
    encoder, shape, dtype = kind
    return encoder.init(key, jnp.zeros(shape, dtype))


def init_exchange(model: Model, key: chex.PRNGKey, params: chex.ArrayTree, batch_stats: chex.ArrayTree,
                  inputs: Mapping[str, chex.Array]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, stats) of the exchange by stage, sized for the maps of these inputs [B, ...]."""
    shapes = all_taps(model, params, batch_stats, inputs)
    exchange = model.exchange
    assert exchange
    names = {f"stage_{i}": i for i in exchange.after}
    made = {name: exchange.init(named_key(key, name), {
        m: seen(taps[i]).shape for m, taps in shapes.items()}) for name, i in names.items()}
    return {k: p for k, (p, _) in made.items()}, {k: s for k, (_, s) in made.items()}


def init_decoder(model: Model, key: chex.PRNGKey, params: chex.ArrayTree, batch_stats: chex.ArrayTree,
                 inputs: Mapping[str, chex.Array]) -> tuple[Any, Any, dict[str, int]]:
    """(params, stats) of the decoder, sized for these inputs [B, ...], and the widths of its maps by name."""
    taps = all_taps(model, params, batch_stats, inputs)
    decoder = model.decoder
    assert decoder
    made = decoder.init(key, {m: [inputs[m].shape, *(seen(x).shape for x in taps[m])] for m in taps})
    maps, _ = jax.eval_shape(lambda p, s, x: decoder.apply(p, s, x, train=False), *made, taps)
    return *made, {name: x.shape[-1] for name, x in maps.items()}


def all_taps(model: Model, params: chex.ArrayTree, batch_stats: chex.ArrayTree, inputs: Mapping[str, chex.Array],
             ) -> dict[str, list]:
    """Shapes of the output of each stage, by modality, for these inputs [B, ...]; see `tap_all`."""
    return {m: jax.eval_shape(lambda p, s, x, e=encoder: tap_all(e, p, s, x), params[m],
                              batch_stats[m], inputs[m]) for m, encoder in model.encoders.items()}


def tap_all(encoder: Encoder, params: chex.ArrayTree, batch_stats: chex.ArrayTree, x: chex.Array,
            ) -> list[chex.Array]:
    """The output of each stage of an encoder, in evaluation mode and without any exchange."""
    taps = []
    for stage in encoder.stages:
        x, batch_stats = stage(params, batch_stats, x, train=False)
        taps.append(x)
    return taps


def check_several(model: Model, what: str, instead: str = "unimodal") -> None:
    """Raises UserError for one modality, with `what` the method does as the message's beginning."""
    if len(model.encoders) < 2:
        raise UserError(f"{what} and needs two or more; use {instead}")


def flatten(x: chex.Array, refusal: str) -> chex.Array:
    """Inputs [B, ...] as float32 [B, d]; UserError with the text `refusal` for token ids, which are no quantities."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        raise UserError(refusal)
    return x.reshape(x.shape[0], -1).astype(jnp.float32)


def on_inputs(model: Model, refusal: Callable[[str], str]) -> Model:
    """The model of a method without encoders: features are the inputs themselves, see `flatten`.

    `refusal` is the message for a modality of token ids.
    """

    def apply(m, params, batch_stats, x, *, train, mask=None):
        del params, train, mask
        return flatten(x, refusal(m)), batch_stats

    def encoder(m):
        own = functools.partial(apply, m)
        return Encoder(lambda key, x: ({}, {}), own, (), own)

    return model._replace(encoders={m: encoder(m) for m in model.encoders})


def on_features(model: Model) -> Model:
    """The model of the same heads on batches that hold the features of encoders in place of inputs.

    A method of it predicts what it predicts from the inputs, if it does so `from_features`, see `Method`.
    """
    def apply(params, batch_stats, x, *, train, mask=None):
        del params, train, mask
        return x, batch_stats

    encoder = Encoder(lambda key, x: ({}, {}), apply, (), apply)
    return model._replace(encoders=dict.fromkeys(model.encoders, encoder), transform=lambda key, batch: batch)


def gradients(model: Model, params: Mapping[str, Any], loss_fn: Callable,
              groups: Collection[str] | None = None) -> tuple[Metrics, Any, dict[str, Any]]:
    """(losses, aux, gradients by parameter group) over the global batch.

    The losses are metrics: "loss" and, where it has terms, each of them as "loss/NAME".

    Args:
      model: its batch may be spread over devices.
      params: by parameter group.
      loss_fn: params -> (loss, aux), where the loss is a scalar, or its terms by name, which are added
        up. It may run the model several times. It must reduce over the batch by `model.mean`, `sum` or
        `gather`, so that the loss is the same on every device.
      groups: parameter groups to differentiate; all by default.
    """
    learned = {group: params[group] for group in (params if groups is None else groups)}

    def total(learned):
        loss, aux = loss_fn(params | learned)
        losses = with_terms(loss) if isinstance(loss, Mapping) else {"loss": loss}
        return losses["loss"], (losses, aux)

    (_, (losses, aux)), grads = jax.value_and_grad(total, has_aux=True)(learned)
    return losses, aux, model.average(grads)


def scale_gradient(x: chex.Array, factor: chex.Numeric) -> chex.Array:
    """x itself, to the bit, with its gradient times `factor`."""
    constant = jax.lax.stop_gradient(x)
    return constant + jax.lax.stop_gradient(factor) * (x - constant)


def split_gradients(model: Model, params: Mapping[str, Any], loss_fn: Callable,
                    parts: Mapping[str, Collection[str]]) -> tuple[Metrics, Any, dict[str, dict[str, Any]]]:
    """(losses, aux, gradients by part of the loss and parameter group) from one forward pass.

    Like `gradients`, with a backward pass for each part.

    Args:
      model: its batch may be spread over devices.
      params: by parameter group.
      loss_fn: params -> (terms of the loss by name, aux).
      parts: by name, the terms that make up each.
    """
    terms, pull, aux = jax.vjp(loss_fn, dict(params), has_aux=True)

    def of_part(names):
        grads, = pull({name: jnp.full_like(x, name in names) for name, x in terms.items()})
        return model.average(grads)

    return with_terms(terms), aux, {part: of_part(names) for part, names in parts.items()}


def with_terms(terms: Metrics) -> Metrics:
    """The metrics of a loss of several terms: "loss", their sum, and each as "loss/NAME"."""
    total = functools.reduce(operator.add, terms.values())
    return {"loss": total} | {f"loss/{name}": x for name, x in terms.items()}


def apply_gradients(model: Model, state: TrainState, grads: Mapping[str, Any],
                    scale: Mapping[str, float] | None = None,
                    due: Mapping[str, chex.Array] | None = None) -> TrainState:
    """One step of the optimizer on the groups in `grads`; all other groups stay bit for bit.

    `scale` holds factors on the learning rate, by group. `due`, bool [] by group, says whether the
    group is updated at all (by default it is); if not, there is no momentum and no decay either.
    """
    new_params, new_opt_state = model.optimizer.update(
        grads, state.opt_state, state.params, state.step, scale, due)
    return state._replace(params=state.params | new_params,
                          opt_state=state.opt_state | new_opt_state)


def renew_optimizer(model: Model, state: TrainState) -> TrainState:
    """The state with the optimizer of every parameter group at its start; its schedule goes on."""
    fresh = model.optimizer.init(state.params)
    return state._replace(opt_state=state.opt_state | {
        group: fresh[group] for group in state.params if group in fresh})


def finish_step(model: Model, state: TrainState, batch: Batch, losses: Metrics, out: Output,
                grads: Mapping[str, Any], *, extra: Any = None, scale: Mapping[str, float] | None = None,
                present: Mapping[str, chex.Array] | None = None,
                due: Mapping[str, chex.Array] | None = None) -> tuple[TrainState, Metrics]:
    """The state after a step, and its metrics: losses, progress of the heads.

    Args:
      model: holds the optimizer.
      state: before the step.
      batch: holds the labels that the outputs are compared with.
      losses: over the global batch, see `gradients`.
      out: of the forward pass.
      grads: by parameter group.
      extra: the method's own part of the new state; the old one by default.
      scale: factors on the learning rate by parameter group.
      present: bool [N] by modality, for all N rows that the gradients come from; the rows of the
        batch by default. The encoder of a modality that no row has is not updated.
      due: bool [] by parameter group: whether this step updates it; all by default.
    """
    metrics = losses | head_progress(model, out.outputs, batch) | gradient_norm(model, grads)
    present = batch["present"] if present is None else present
    due = dict(due or {})
    for m in model.encoders:
        due[m] = anyone(model, present[m]) & due.get(m, True)
    state = apply_gradients(model, state, grads, scale, due)
    return state._replace(batch_stats=out.batch_stats, step=state.step + 1,
                          extra=state.extra if extra is None else extra), metrics


def gradient_norm(model: Model, grads: Mapping[str, Any]) -> Metrics:
    """The global norm of the gradients, if the run asks for it."""
    return {"gradient_norm": optax.tree.norm(grads)} if model.gradient_norm else {}


def head_progress(model: Model, outputs: Logits, batch: Batch) -> Metrics:
    """The task's training metric for each head, such as accuracy, over the global batch.

    It is the mean over the examples that have the head's modality, and NaN if none has. Means over
    steps leave out NaN.
    """
    name, measure = model.task.progress
    metrics = {}
    for head, z in outputs.items():
        present = batch["present"].get(head)
        value = model.mean(measure(z, batch["label"]), present)
        metrics[f"{name}/{head}"] = value if present is None else jnp.where(
            anyone(model, present), value, jnp.nan)
    return metrics


def anyone(model: Model, present: chex.Array) -> chex.Array:
    """Whether `present` bool [B] holds for any example of the global batch."""
    return model.sum(present.any().astype(jnp.float32)) > 0


def first_of_each(model: Model, ids: chex.Array) -> chex.Array:
    """bool [B]: True for the first row of each id in the global batch.

    A task with fewer rows than a batch repeats them to fill it.
    """
    everyone = model.gather(ids)
    before = jnp.arange(len(everyone)) < (model.first_row(len(ids)) + jnp.arange(len(ids)))[:, None]
    return ~((everyone == ids[:, None]) & before).any(axis=1)


def make_predict(model: Model) -> Callable[..., Logits]:
    """predict(state, batch): outputs [B, K] by head, in evaluation mode."""

    def predict(state, batch):
        return model.run(state.params, state.batch_stats, model.transform(None, batch),
                         train=False).outputs

    return predict


def make_features(model: Model) -> Callable[..., Features]:
    """features(state, batch): encoder outputs [B, s] by modality, in evaluation mode."""

    def features(state, batch):
        return model.run(state.params, state.batch_stats, model.transform(None, batch),
                         train=False).features

    return features


def make_joint(model: Model, loss_fn: Callable, *, perturb: Callable | None = None) -> Method:
    """A method that trains all encoders and the head jointly on one loss.

    Args:
      model: with a head.
      loss_fn: (outputs by head, batch) -> scalar over the global batch, or its terms by name.
      perturb: (key, features, batch) -> features, between encoders and head in training.
    """

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        key = step_key(state)
        batch = model.transform(key, batch)
        noise = perturb and (lambda features: perturb(own_key(key), features, batch))

        def loss(params):
            out = model.run(params, state.batch_stats, batch, train=True, perturb=noise)
            return loss_fn(out.outputs, batch), out

        return finish_step(model, state, batch, *gradients(model, state.params, loss))

    return Method(init, step, make_predict(model), make_features(model))
