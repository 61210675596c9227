"""Semantic segmentation: a class for every pixel, from encoders that exchange and a decoder (ESANet), and UMT for it."""
from collections.abc import Mapping
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmm.batch import Batch, Metrics
from jaxmm.config import MethodConfig, scalar
from jaxmm.encoders.decoder import esanet_decoder
from jaxmm.encoders.draws import pytorch_layer
from jaxmm.encoders.exchange import se_add
from jaxmm.errors import UserError, check_at_least, check_choice
from jaxmm.heads import dense
from jaxmm.keys import named_key
from jaxmm.losses import weighted_mean
from jaxmm.losses.distillation import mean_squared_error
from jaxmm.methods.common import (Method, TrainState, all_taps, check_several, finish_step, gradients, init_state,
                                  make_features, step_key)
from jaxmm.methods.taught import imitation, make_weight, name_of
from jaxmm.model import Model, Output, select_modalities
from jaxmm.task import VOID


@dataclass
class SegmentConfig(MethodConfig):
    """A class for every pixel, by ESANet; with one modality alone its network of one."""
    name: str = "segment"
    main: str = ""                  # the modality to whose maps the others' are added; "": the first. With one
                                    # alone, that one, whatever this says
    decoder_width: int = 0          # channels of the decoder's first module, halved in each of the two others; 0:
                                    # those of the last stage, as published
    decoder_blocks: int = 3         # of each module, >= 0


@dataclass
class UMTSegmentConfig(SegmentConfig):
    """`segment` that distils from teachers of one modality (UMT, arXiv 2305.01233)."""
    name: str = "umt_segment"
    weight: float = scalar(50.0)    # of the distillation, >= 0
    teachers: str = ""              # see TaughtConfig
    distance: str = "mse"           # of maps, see ImitatingConfig
    warmup_epochs: float = 0.0      # see ImitatingConfig


def make_segment(config: SegmentConfig, model: Model) -> Method:
    """sum_r CE_r over the scales r = 1, 8, 16, 32: a fused prediction at full size and three side outputs.

    Behind the stem and each stage, the maps of the main modality get those of the others added (`se_add`); the
    decoder reads what comes of it. See `losses_by_scale` for CE_r. Predictions are confusion matrices.

    Raises:
      UserError: see `segmenting_model`.

    References:
      Seichter et al., "Efficient RGB-D semantic segmentation for indoor scene analysis", ICRA 2021.
    """
    model = segmenting_model(config, model)

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        batch = model.transform(step_key(state), batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            return losses_by_scale(model, out, batch), out

        losses, out, grads = gradients(model, state.params, loss_fn)
        return finish_step(model, state, batch, losses, at_full_size(model, out), grads)

    return dense_method(model, init, step)


def make_umt_segment(config: UMTSegmentConfig, model: Model) -> Method:
    """sum_r CE_r + w sum_m mean_i MSE(p_i(x_m,i), x_m,i of the teacher), over the stem and the stages i.

    Maps x_m,i are those behind the exchange. For the main modality, whose maps hold all of them, p_i is a
    convolution 3x3, ReLU and another one; for the others it is the identity. The teacher of a modality is `segment`
    of it alone; it sees the same augmented input, and its maps are those behind its squeeze and excitation.

    The paper does not say which maps they are, what the "two-layer CNN" p_i is, nor w, for which it has 50 elsewhere:
    the mean over i keeps the meaning of that.

    Raises:
      UserError: a negative weight or warm-up, an unknown distance, one modality; see `segmenting_model`.

    References:
      UMT, "On uni-modal feature learning in supervised multi-modal learning", arXiv 2305.01233, table 19.
    """
    weight = make_weight(config, model)
    model = segmenting_model(config, model)
    check_several(model, "umt_segment imitates the teachers of several modalities", "segment")
    main = main_of(config, model)
    options = {m: SegmentConfig(modalities=m, decoder_width=config.decoder_width, decoder_blocks=config.decoder_blocks)
               for m in model.encoders}
    alone = {m: segmenting_model(options[m], model) for m in model.encoders}

    def init(key, batch):
        state = init_state(model, key, batch)
        taps = all_taps(model, state.params, state.batch_stats, model.transform(None, batch)["inputs"])
        params = state.params | {"predictor": {
            f"stage_{i}": predictor_init(named_key(key, f"predictor/{i}"), x.shape[-1])
            for i, x in enumerate(taps[main])}}
        untaught = {m: seeing_part(init_state(alone[m], key, batch), m) for m in alone}
        return state._replace(params=params, opt_state=model.optimizer.init(params), extra={"teacher": untaught})

    def teach(state, models):
        return state._replace(extra={"teacher": {m: seeing_part(models[name_of(options[m])], m) for m in alone}})

    def distillation(params, taps, batch, targets):
        def error(m, i):
            x = taps[m][i]
            if m == main:
                x = predict_map(params["predictor"][f"stage_{i}"], x)
            return imitation(model, config.distance, mean_squared_error, x, targets[m][i], batch["present"][m])

        return sum(sum(error(m, i) for i in range(len(taps[m]))) / len(taps[m]) for m in taps)

    def step(state, batch):
        batch = model.transform(step_key(state), batch)
        targets = {m: alone[m].encode(*state.extra["teacher"][m], batch, train=False)[1][m] for m in alone}

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            terms = {"distillation": weight(state.step) * distillation(params, out.taps, batch, targets)}
            return terms | losses_by_scale(model, out, batch), out

        losses, out, grads = gradients(model, state.params, loss_fn)
        return finish_step(model, state, batch, losses, at_full_size(model, out), grads)

    return dense_method(model, init, step)._replace(
        teachers={name_of(options[m]): options[m] for m in alone}, teach=teach, distils=True)


def main_of(config: SegmentConfig, model: Model) -> str:
    """The modality to whose maps the others' are added; with one alone that one.

    Raises:
      UserError: it is not among several.
    """
    first, *others = model.encoders
    if not config.main or not others:
        return first
    check_choice("method.main", config.main, model.encoders)
    return config.main


def segmenting_model(config: SegmentConfig, model: Model) -> Model:
    """The model of the modalities that `config` names, with exchange, decoder and head.

    Raises:
      UserError: unknown modalities, a main one that is not among them, sizes out of range; from the state's `init`
        also encoders whose maps do not fit.
    """
    check_at_least("method.decoder_width", config.decoder_width, 0)
    check_at_least("method.decoder_blocks", config.decoder_blocks, 0)
    model = select_modalities(model, config.modalities, "method.modalities")
    main = main_of(config, model)
    counts = {m: len(encoder.stages) for m, encoder in model.encoders.items()}
    if len(set(counts.values())) > 1:
        raise UserError(f"{config.name} adds maps behind every stage, so encoders need equally many; found "
                        f"{', '.join(f'{m} {n}' for m, n in counts.items())}; set --config.encoders.MODALITY.name")
    return model._replace(
        head=dense.dense(model.task.size), exchange=se_add(tuple(range(counts[main])), main),
        decoder=esanet_decoder(main, config.decoder_width, config.decoder_blocks, model.axis_name))


def losses_by_scale(model: Model, out: Output, batch: Batch) -> Metrics:
    """{name of an output: sum(w_y CE) / sum(w_y)} over the pixels of the global batch that are not void.

    The labels of an output at 1/r of an image's size are those of every r-th row and column. w are the task's weights
    of classes. Rows without any of the modalities do not count. A scale without a label has loss 0.
    """
    labels = jnp.where(model.anything(batch)[:, None, None], batch["label"], VOID)
    weights = model.task.class_weights

    def loss(z):
        ratio = labels.shape[1] // z.shape[1]
        y = labels[:, ::ratio, ::ratio]
        chex.assert_equal_shape_prefix([z, y], 3)
        known = jnp.maximum(y, 0)
        values = optax.softmax_cross_entropy_with_integer_labels(z.astype(jnp.float32), known)
        counts = (y >= 0) * (1.0 if weights is None else jnp.asarray(weights)[known])
        return weighted_mean(values.ravel(), counts.ravel(), model.sum)

    return {name: loss(z) for name, z in out.outputs.items()}


def head_of(model: Model) -> str:
    """The name of the prediction: "fused", or that of the only modality."""
    return "fused" if len(model.encoders) > 1 else next(iter(model.encoders))


def at_full_size(model: Model, out: Output) -> Output:
    """The forward pass with the prediction at full size as its only output."""
    return out._replace(outputs={head_of(model): out.outputs["fused"]})


def dense_method(model: Model, init, step) -> Method:
    """The method whose predictions are confusion matrices int32 [B, C, C] in evaluation mode, see `dense.confusion`."""

    def logits(state, batch):
        return at_full_size(model, model.run(state.params, state.batch_stats, batch, train=False)).outputs

    def predict(state, batch):
        batch = model.transform(None, batch)
        return {head: dense.confusion(z, batch["label"]) for head, z in logits(state, batch).items()}

    def maps(state, batch):
        batch = model.transform(None, batch)
        return {head: dense.classes(z, batch["label"].shape[1:]) for head, z in logits(state, batch).items()}

    return Method(init, step, predict, make_features(model), maps=maps, from_features=False)


def seeing_part(state: TrainState, m: str) -> tuple[Mapping, Mapping]:
    """(params, batch_stats) of a model of one modality, without decoder and head."""
    return tuple({group: tree[group] for group in (m, "exchange")} for tree in (state.params, state.batch_stats))


def predictor_init(key: chex.PRNGKey, width: int) -> dict[str, dict[str, chex.Array]]:
    """Two 3x3 convolutions that keep the width."""
    return {name: pytorch_layer(named_key(key, name), (3, 3, width, width)) for name in ("hidden", "out")}


def predict_map(params: Mapping[str, Mapping[str, chex.Array]], x: chex.Array) -> chex.Array:
    """p(x) [B, H, W, C] of a map of this shape."""
    return dense.conv(params["out"], jax.nn.relu(dense.conv(params["hidden"], x)))
