"""Segmentation on small encoders, whose stages halve a map as those of a ResNet do, and on ESANet's for its sizes.

The task and the transform are made here. What stands in a batch is what data of maps have: the label of an
example is a modality until the transform.
"""
import dataclasses
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.encoders import Encoder, make_encoder
from jaxmm.errors import UserError
from jaxmm.methods import make_method, segment
from jaxmm.methods.fusion import FusedConfig
from jaxmm.methods.segment import SegmentConfig, UMTSegmentConfig
from jaxmm.model import Model, Output
from jaxmm.task import classification
from jaxmm.train import checkpoints, plan
from jaxmm.train.optimizers import make_optimizer
from jaxmm.train.programs import make_programs

CHANNELS = {"a": 3, "b": 1, "c": 2}
CLASSES = 4
ROWS = 16


class Segmentation(NamedTuple):
    name: str = "segmentation"
    size: int = CLASSES
    class_weights: Any = None
    progress: tuple = ("pixel_accuracy", lambda z, y: jnp.mean(z.argmax(-1) == y, axis=(1, 2)))


def halving(width):
    """Five stages: means over 2 x 2 pixels, and a linear layer on their channels with a tanh."""
    widths = (width, width, 2 * width, 2 * width, 4 * width)

    def init(key, x):
        return {f"w_{i}": 2 * jax.random.normal(jax.random.fold_in(key, i), (a, b)) / a ** 0.5 for i, (a, b) in
                enumerate(zip((x.shape[-1], *widths), widths))}, {}

    def stage(i, params, stats, x, *, train, mask=None):
        batch, height, length, channels = x.shape
        x = x.reshape(batch, height // 2, 2, length // 2, 2, channels).mean((2, 4))
        return jnp.tanh(x @ params[f"w_{i}"]), stats

    def pool(params, stats, x, *, train, mask=None):
        return x.mean((1, 2)), stats

    def apply(params, stats, x, **options):
        for i in range(5):
            x, _ = stage(i, params, stats, x, **options)
        return pool(params, stats, x, **options)

    return Encoder(init, apply, tuple(functools.partial(stage, i) for i in range(5)), pool)


def transform(key, batch):
    del key
    inputs = {m: x for m, x in batch["inputs"].items() if m != "map"}
    present = {m: p for m, p in batch["present"].items() if m != "map"}
    return batch | {"inputs": inputs, "present": present, "label": batch["inputs"]["map"]}


@functools.cache
def small_model(names="ab", axis_name=None, weights=None):
    epoch = plan.make_epoch([range(ROWS)], TrainConfig(batch_size=8))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.02, momentum=0.9, schedule="constant"), 100, epoch)
    task = Segmentation(class_weights=weights and np.array(weights, np.float32))
    return Model({m: halving(4) for m in names}, task, transform, optimizer, epoch, 8, ROWS, axis_name=axis_name)


@functools.cache
def rows(names="abc", value=0.0):
    """Images of 32 x 32, some of them missing, with `value` in their place, and maps of classes, some of them void."""
    rng = np.random.default_rng(0)
    missing = rng.random((len(names), ROWS)) < 0.2
    missing[rng.integers(len(names), size=ROWS), np.arange(ROWS)] = False
    present = {m: ~x for m, x in zip(names, missing)}
    inputs = {m: np.float32(np.where(present[m][:, None, None, None],
                                     rng.normal(size=(ROWS, 32, 32, CHANNELS[m])), value)) for m in names}
    classes = rng.integers(-1, CLASSES, (ROWS, 32, 32)).astype(np.int32)
    classes[3] = -1
    return {"inputs": inputs | {"map": classes}, "label": np.zeros(ROWS, np.int32),
            "id": np.arange(ROWS, dtype=np.int32), "present": present | {"map": np.ones(ROWS, bool)}}


def first(batch, count):
    return jax.tree.map(lambda x: x[:count], batch)


OPTIONS = {"segment": SegmentConfig(decoder_width=8, decoder_blocks=1, main="b"),
           "umt_segment": UMTSegmentConfig(decoder_width=8, decoder_blocks=0, main="b", weight=5.0)}


@functools.cache
def programs_of(name, devices):
    return make_programs(lambda axis_name, options: make_method(OPTIONS[name], small_model("abc", axis_name)),
                         jax.devices()[:devices], [{}], lambda split: split)


def trained(name, devices, value=0.0):
    """The state after five steps, taken off the devices after three of them and put back; metrics, predictions."""
    programs = programs_of(name, devices)
    feed = programs.feed(rows(value=value), "device")

    def start():
        state = programs.init(0, first(rows(), 8))
        # Teachers that are not where the student starts.
        return state._replace(extra=jax.tree.map(lambda x: x + 0.1, state.extra))

    state = programs.place(start())
    for i in range(5):
        index = np.random.default_rng(i).permutation(ROWS)[None, :8].astype(np.int32)
        state, metrics = programs.steps(state, feed.at(index))
        if i == 2 and devices == 1:
            resumed = programs.place(checkpoints.unflatten(start(), checkpoints.flatten(programs.fetch(state))))
        elif i > 2 and devices == 1:
            resumed, _ = programs.steps(resumed, feed.at(index))
    predicted = jax.device_get(programs.predict(state, feed.at(np.arange(8, dtype=np.int32))))
    found = checkpoints.flatten(programs.fetch(state))
    if devices == 1:
        chex.assert_trees_all_equal(checkpoints.flatten(programs.fetch(resumed)), found)
    return found, jax.device_get(metrics), predicted


@pytest.mark.parametrize("name", OPTIONS)
def test_devices_resuming_and_what_stands_in_place_of_what_is_missing(name):
    """On eight devices, with one row each, as on one; a step back from a saved state gives the same bits."""
    found, metrics, predicted = trained(name, 1)
    others, their_metrics, _ = trained(name, 8)
    parts = {k: x for k, x in found.items() if not k.startswith("opt_state")}
    chex.assert_trees_all_close({k: others[k] for k in parts}, parts, rtol=1e-4, atol=2e-5)
    chex.assert_trees_all_close(their_metrics, metrics, rtol=1e-4, atol=1e-5)
    labels = rows()["inputs"]["map"][:8]
    np.testing.assert_array_equal(predicted["fused"].sum((1, 2)), (labels >= 0).sum((1, 2)))
    np.testing.assert_array_equal(predicted["fused"].sum(2), [np.bincount(y[y >= 0], minlength=CLASSES) for y in labels])
    filled, metrics_too, _ = trained(name, 1, value=3.0)
    chex.assert_trees_all_equal((filled, metrics_too), (found, metrics))


@pytest.mark.parametrize("name", OPTIONS)
def test_runs_of_several_seeds_at_once_are_those_alone(name):
    method = make_method(dataclasses.replace(OPTIONS[name], decoder_blocks=0), small_model("abc"))
    batch = first(rows(), 4)
    states = [jax.jit(method.init)(jax.random.key(seed), batch) for seed in (0, 1)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *states)
    found, _ = jax.jit(jax.vmap(method.step, (0, None)))(together, batch)
    step = jax.jit(method.step)
    for i, state in enumerate(states):
        alone, _ = step(state, batch)
        chex.assert_trees_all_close(jax.tree.map(lambda x: x[i], found.params), alone.params, rtol=1e-4, atol=1e-5)


def loss_of(logits, labels, weights=None, present=None):
    """`losses_by_scale` of logits by name."""
    present = np.ones(len(labels), bool) if present is None else present
    return jax.jit(lambda logits: segment.losses_by_scale(
        small_model("a", None, weights), Output({}, {}, logits, {}),
        {"label": labels, "present": {"a": present}}))(logits)


def test_the_loss_is_a_weighted_mean_over_all_labelled_pixels_at_every_scale():
    """Not one of means over images, which hold different numbers of labelled pixels."""
    rng = np.random.default_rng(1)
    labels = rng.integers(-1, CLASSES, (3, 32, 64)).astype(np.int32)
    labels[0, 5:] = -1
    weights = (0.5, 2.0, 1.0, 3.0)
    logits = {name: rng.normal(size=(3, 32 // r, 64 // r, CLASSES)).astype(np.float32)
              for name, r in (("fused", 1), ("side_8", 8), ("side_32", 32))}
    found = loss_of(logits, labels, weights)
    for name, r in ("fused", 1), ("side_8", 8), ("side_32", 32):
        y, z = labels[:, ::r, ::r], logits[name].astype(np.float64)
        log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
        known = y >= 0
        w = np.array(weights)[y[known]]
        np.testing.assert_allclose(found[name], (w * -log_p[known][np.arange(known.sum()), y[known]]).sum() / w.sum(),
                                   rtol=1e-5)
    plain = loss_of(logits, labels)
    assert plain["fused"] != found["fused"]
    changed = {name: np.where((labels[:, ::32 // z.shape[1], ::32 // z.shape[1]] < 0)[..., None], 7.0, z)
               for name, z in logits.items()}       # nothing of void pixels counts
    chex.assert_trees_all_equal(loss_of(changed, labels), plain)
    absent = loss_of(logits, labels, present=np.array([True, False, True]))
    chex.assert_trees_all_close(absent, loss_of({k: z[::2] for k, z in logits.items()}, labels[::2]), rtol=1e-6)


def test_a_scale_without_a_label_has_loss_and_gradient_0():
    labels = np.full((2, 32, 32), -1, np.int32)
    labels[:, 1, 1] = 2
    logits = {"fused": np.zeros((2, 32, 32, CLASSES), np.float32), "side_32": np.zeros((2, 1, 1, CLASSES), np.float32)}
    found = loss_of(logits, labels)
    assert found["side_32"] == 0 and found["fused"] == pytest.approx(np.log(CLASSES), rel=1e-6)
    grads = jax.grad(lambda logits: sum(loss_of(logits, labels).values()))(logits)
    assert not grads["side_32"].any() and np.isfinite(grads["fused"]).all() and grads["fused"].any()


def test_maps_are_what_confusion_matrices_count():
    method = make_method(dataclasses.replace(OPTIONS["segment"], modalities="a,b"), small_model("abc"))
    batch = first(rows(), 4)
    state = jax.jit(method.init)(jax.random.key(0), batch)
    maps, counts = jax.jit(lambda state: (method.maps(state, batch), method.predict(state, batch)))(state)
    assert set(state.params) == {"a", "b", "exchange", "decoder", "head"} and set(maps) == {"fused"}
    truth = batch["inputs"]["map"]
    expected = np.zeros((4, CLASSES, CLASSES), int)
    row, y, x = np.nonzero(truth >= 0)
    np.add.at(expected, (row, truth[row, y, x], np.asarray(maps["fused"])[row, y, x]), 1)
    np.testing.assert_array_equal(counts["fused"], expected)


# UMT.

@functools.cache
def taught():
    """umt_segment of `a` and `b`, its first state with teachers of other seeds, and those."""
    options = dataclasses.replace(OPTIONS["umt_segment"], modalities="a,b")
    method = make_method(options, small_model("ab"))
    batch = first(rows(), 6)
    teachers = {name: jax.jit(make_method(teacher, small_model("ab")).init)(jax.random.key(9 + i), batch)
                for i, (name, teacher) in enumerate(method.teachers.items())}
    state = jax.jit(method.init)(jax.random.key(0), batch)
    return options, method, method.teach(state, teachers), teachers, batch


def test_teachers_are_segment_of_one_modality_each():
    _, method, state, teachers, _ = taught()
    assert [(name, t.modalities, t.decoder_width, t.decoder_blocks) for name, t in method.teachers.items()] == [
        (f"segment+modalities={m}+decoder_width=8+decoder_blocks=0", m, 8, 0) for m in "ab"]
    assert method.distils and set(state.extra["teacher"]) == {"a", "b"}
    for m, teacher in zip("ab", teachers.values()):
        params, stats = state.extra["teacher"][m]
        chex.assert_trees_all_equal(params, {k: teacher.params[k] for k in (m, "exchange")})
        assert set(stats) == {m, "exchange"} and set(teacher.params) == {m, "exchange", "decoder", "head"}


def test_distillation_is_of_maps_behind_the_exchange_through_predictors_of_the_main_one():
    """w sum_m mean_i MSE over the rows that have m, with maps made by encoders and gates one after the other."""
    options, method, state, _, batch = taught()
    inputs, present = transform(None, batch)["inputs"], batch["present"]

    def taps(params, main, names):
        x, found = {m: inputs[m] for m in names}, {m: [] for m in names}
        for i in range(5):
            x = {m: halving(4).stages[i](params[m], {}, x[m], train=False)[0] for m in names}
            gated = {}
            for m in names:
                p = params["exchange"][f"stage_{i}"][m]
                e = jax.nn.relu(x[m].mean((1, 2)) @ p["squeeze"]["kernel"] + p["squeeze"]["bias"])
                gate = jax.nn.sigmoid(e @ p["excite"]["kernel"] + p["excite"]["bias"])[:, None, None]
                gated[m] = jnp.where(present[m][:, None, None, None], x[m] * gate, 0)
            x = x | {main: sum(gated.values())}
            found = {m: found[m] + [x[m]] for m in names}
        return found

    def expected(params, teachers):
        student, total = taps(params, "b", ("a", "b")), 0
        for m in "ab":
            teacher = taps(teachers[m][0], m, (m,))[m]
            for i in range(5):
                x = student[m][i]
                if m == "b":
                    for layer in ("hidden", "out"):
                        p = params["predictor"][f"stage_{i}"][layer]
                        x = jax.nn.relu(x) if layer == "out" else x
                        x = jax.lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=(
                            "NHWC", "HWIO", "NHWC")) + p["bias"]
                errors = ((x - teacher[i]) ** 2).mean((1, 2, 3))
                total += jnp.where(present[m], errors, 0).sum() / present[m].sum() / 5
        return options.weight * total

    _, metrics = jax.jit(method.step)(state, batch)
    np.testing.assert_allclose(metrics["loss/distillation"], jax.jit(expected)(state.params, state.extra["teacher"]),
                               rtol=1e-4)
    terms = {k: x for k, x in metrics.items() if k.startswith("loss/")}
    assert set(terms) == {f"loss/{k}" for k in ("distillation", "fused", "side_8", "side_16", "side_32")}
    np.testing.assert_allclose(metrics["loss"], sum(terms.values()), rtol=1e-5)
    assert "pixel_accuracy/fused" in metrics and "pixel_accuracy/side_8" not in metrics


def test_a_step_trains_all_groups_but_teachers():
    _, method, state, _, batch = taught()
    new, _ = jax.jit(method.step)(state, batch)
    chex.assert_trees_all_equal(new.extra, state.extra)
    assert set(new.params) == {"a", "b", "exchange", "decoder", "head", "predictor"} == set(new.opt_state)
    for group in new.params:
        moved = jax.tree.map(lambda x, y: np.abs(x - y).max() > 0, new.params[group], state.params[group])
        assert any(jax.tree.leaves(moved)), group


@pytest.mark.parametrize("change, names, message", [
    ({"main": "d"}, "ab", "method.main='d'; expected one of a, b"),
    ({"main": "b", "modalities": "a,c"}, "abc", "method.main='b'; expected one of a, c"),
    ({"modalities": "a,x"}, "ab", "'x' is not a modality of the data"),
    ({"decoder_width": -1}, "ab", "method.decoder_width=-1"), ({"decoder_blocks": -1}, "ab", "method.decoder_blocks=-1")])
def test_options_that_do_not_fit(change, names, message):
    with pytest.raises(UserError, match=message):
        make_method(dataclasses.replace(SegmentConfig(), **change), small_model(names))


def test_one_modality_has_no_teachers_to_imitate_and_tasks_have_methods_of_their_own():
    with pytest.raises(UserError, match="umt_segment imitates .* needs two or more; use segment"):
        make_method(UMTSegmentConfig(), small_model("a"))
    with pytest.raises(UserError, match="segment predicts a class for every pixel, and the task is classification"):
        make_method(SegmentConfig(), small_model()._replace(task=classification("xyz")))
    with pytest.raises(UserError, match="concat predicts for whole examples, and the task is segmentation; choose "
                                        "another method: segment, umt_segment"):
        make_method(FusedConfig("concat"), small_model())


def test_one_modality_alone_is_the_main_one_and_gives_the_prediction_its_name():
    """Whatever the config of several says."""
    method = make_method(SegmentConfig(modalities="a", main="b"), small_model("ab"))
    state = jax.eval_shape(method.init, jax.random.key(0), first(rows(), 2))
    assert set(state.params) == {"a", "exchange", "decoder", "head"}
    assert {m: x.shape for m, x in jax.eval_shape(method.predict, state, first(rows(), 2)).items()} == {
        "a": (2, CLASSES, CLASSES)}


def test_scalar_options_enter_a_step_as_arrays():
    batch = first(rows("ab"), 2)

    def step(weight):
        method = make_method(dataclasses.replace(OPTIONS["umt_segment"], weight=weight), small_model("ab"))
        return method.step(method.init(jax.random.key(0), batch), batch)[1]

    jax.eval_shape(step, np.float32(3.0))


def test_encoders_have_equally_many_stages():
    model = small_model()
    short = model.encoders["b"]._replace(stages=model.encoders["b"].stages[:3])
    with pytest.raises(UserError, match="segment adds maps behind every stage.*found a 5, b 3"):
        make_method(SegmentConfig(), model._replace(encoders=model.encoders | {"b": short}))


# ESANet at the sizes of its paper, of which nothing is computed but shapes.

def sizes_of(name, channels, network="esanet34", **options):
    """How many parameters each group has, and each teacher."""
    config = {"segment": SegmentConfig, "umt_segment": UMTSegmentConfig}[name]()
    model = Model({m: make_encoder(EncoderConfig(network, **options), 3) for m in channels}, Segmentation(size=40),
                  lambda key, batch: batch, small_model().optimizer, None, 2, 2)
    batch = {"inputs": {m: jnp.zeros((1, 480, 640, c)) for m, c in channels.items()},
             "present": {m: jnp.ones(1, bool) for m in channels}}
    state = jax.eval_shape(make_method(config, model).init, jax.random.key(0), batch)
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    return {group: count(tree) for group, tree in state.params.items()}, count(state.extra)


def test_numbers_of_parameters_are_those_of_the_paper():
    """Skips, context and modules are the decoder and, with the layers of C classes, 82,880 of these, the head."""
    sizes, extra = sizes_of("umt_segment", {"a": 3, "b": 1})
    assert sizes == {"a": 14_787_136, "b": 14_780_864, "exchange": 90_240, "head": 82_880, "predictor": 6_342_656,
                     "decoder": 173_824 + 788_480 + 16_335_296 - 82_880}
    assert sum(sizes.values()) - sizes["predictor"] == 46_955_840
    assert sum(sizes_of("segment", {"a": 3})[0].values()) == 32_129_856
    assert sum(sizes_of("segment", {"b": 1})[0].values()) == 32_123_584
    assert sum(sizes_of("segment", {"a": 3, "b": 1}, "resnet18", stem="standard")[0].values()) == 39_734_592


def stepped(name, network, **options):
    """The method on such encoders, its state after a step, and the loss."""
    made = make_encoder(EncoderConfig(network, **options), 3)
    names = "ab" if name == "umt_segment" else "a"
    model = small_model()._replace(encoders={m: made for m in names})
    method = make_method(dataclasses.replace(OPTIONS[name], decoder_blocks=0, main=""), model)
    batch = first(rows("ab"), 2)
    state, metrics = jax.jit(lambda key: method.step(method.init(key, batch), batch))(jax.random.key(0))
    return method, batch, state, metrics["loss"]


def test_what_is_computed_twice_is_the_same():
    plain, again = (stepped("umt_segment", "cnn", depth=5, width=2, remat=remat) for remat in (False, True))
    chex.assert_trees_all_close(again[2].params, plain[2].params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, network, options", [
    ("segment", "esanet18", {"remat": True}), ("umt_segment", "cnn", {"depth": 5})])
def test_in_bfloat16_all_that_is_kept_or_added_up_is_float32(name, network, options):
    method, batch, state, loss = stepped(name, network, width=2, dtype="bfloat16", **options)
    chex.assert_tree_all_finite((state.params, state.batch_stats, loss))
    chex.assert_type([*jax.tree.leaves((state.params, state.batch_stats, state.opt_state)), loss], np.float32)
    assert "bf16" in str(jax.make_jaxpr(method.predict)(state, batch))
