"""What holds for every method; for segmentations see test_segment.py."""
import dataclasses
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.encoders import Encoder, frozen
from jaxmm.errors import UserError
from jaxmm.methods import METHODS, make_method
from jaxmm.methods.common import on_features
from jaxmm.methods.continual import SGDConfig
from jaxmm.methods.correlation import CCAConfig, DCCAEConfig
from jaxmm.methods.cpm_net import CPMNetConfig
from jaxmm.methods.imagination import IFMMINConfig
from jaxmm.methods.lfm import LFMConfig
from jaxmm.methods.smv import SMVConfig
from jaxmm.methods.tate import TATEConfig
from jaxmm.methods.tcmax import TCMaxConfig
from jaxmm.model import Model, Optimizer
from jaxmm.task import classification
from jaxmm.train import checkpoints, loop, plan, predictions, setup as setup_lib
from jaxmm.train.optimizers import by_encoder, make_optimizer

SHAPES = {"sound": (3,), "image": (4, 4), "flow": (4,)}
ONE = jax.devices()[:1]
WHOLE = {name: entry for name, entry in METHODS.items() if not entry.dense}     # that predict for whole examples


def steps(setup, state, feed, first, last):
    """The state after the batches first, ..., last - 1, and the metrics of the last one."""
    metrics = {}
    for i in range(first, last) if setup.programs.steps else ():
        index = np.random.default_rng(i).permutation(40)[None, :16].astype(np.int32)
        state, metrics = setup.programs.steps(state, feed.at(index))
    return state, jax.device_get(metrics)


def refilled(dataset, value):
    """The splits with this value in place of all that is missing."""
    return {s: batch | {"inputs": {m: np.where(batch["present"][m].reshape(-1, *[1] * (x.ndim - 1)), x,
                                               np.float32(value)) for m, x in batch["inputs"].items()}}
            for s, batch in dataset.splits.items()}


def what_is_learned(state):
    """All of a state but what a memory holds, which is the inputs as they are."""
    return {name: x for name, x in checkpoints.flatten(state).items() if "memory/storage/inputs" not in name}


@pytest.mark.parametrize("name, encoder", [*((name, "mlp") for name in sorted(WHOLE)),
                                           ("mla", "cnn"), ("samm", "cnn"), ("ogm_ge", "cnn"),
                                           (CCAConfig(k=2, r=0.1, labels=False), "mlp"),
                                           (DCCAEConfig(k=2, labels=False, weight=0.5), "mlp"),
                                           (IFMMINConfig(student=False), "mlp"),
                                           (CPMNetConfig(size=5, retune=False), "mlp"),
                                           (TATEConfig(distill=False), "mlp"),
                                           (TCMaxConfig(fusion="mlp", hidden=6, tuples=9), "mlp"),
                                           (LFMConfig(align="contrastive"), "mlp"),
                                           (SMVConfig(level="modality", warmup_epochs=0), "mlp")])
def test_devices_and_resuming(name, encoder, make_dataset, make_config):
    """Five steps with three modalities, some missing, on the same global batches.

    On one device and on eight, parameters, own state, metrics and predictions agree, visits of a task's
    rows and a step after its end included; a state that was taken off the devices after three steps and put back
    goes on to the same bits. So does one of data with other values in place of what is missing. The encoder
    of `flow` is frozen, and keeps its bits.
    """
    dataset = make_dataset(SHAPES, rows=(40, 16, 16), missing=True)
    optimizer = OptimizerConfig(learning_rate=0.02, schedule="constant")
    config = make_config(name, batch_size=16, optimizer=optimizer, modalities=SHAPES)
    config.encoders["image"] = EncoderConfig(name=encoder, width=2, depth=1, features=6)
    config.encoders["flow"] = dataclasses.replace(config.encoders["flow"], frozen=True)
    results = []
    for count in (1, 8):
        setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:count])
        feed = setup.programs.feed(dataset.splits["train"], "device")
        state = setup_lib.init_state(setup)
        start = setup.programs.fetch(jax.tree.map(jnp.copy, state.params))
        state, metrics = steps(setup, state, feed, 0, 3)
        saved = checkpoints.flatten(setup.programs.fetch(state))
        state, metrics = steps(setup, state, feed, 3, 5)
        logits = predictions.predict_split(setup, state, dataset.splits["test"])
        if count == 1:
            target = setup.programs.fetch(setup_lib.init_state(setup))
            resumed = setup.programs.place(checkpoints.unflatten(target, saved))
            resumed, _ = steps(setup, resumed, feed, 3, 5)
            assert "parameters" in loop.describe_state(target)
            chex.assert_trees_all_equal(checkpoints.flatten(resumed), checkpoints.flatten(state))
            for value in (np.nan, 1e30):
                splits = refilled(dataset, value)
                other, last = steps(setup, setup_lib.init_state(setup),
                                    setup.programs.feed(splits["train"], "device"), 0, 5)
                chex.assert_trees_all_equal(last, metrics)
                chex.assert_trees_all_equal(what_is_learned(other), what_is_learned(state))
                chex.assert_trees_all_equal(predictions.predict_split(setup, other, splits["test"]), logits)
        if setup.programs.visit:
            for index, counts in plan.visits([np.arange(40)], 16):
                state = setup.programs.visit(state, feed.at(index), counts)
        if setup.programs.steps:
            state, metrics = steps(setup, setup.programs.end_task(state), feed, 5, 6)
        end = setup.programs.fetch(state)
        chex.assert_trees_all_equal(end.params.get("flow"), start.get("flow"))
        assert not setup.programs.steps or count > 1 or any(
            (x != y).any() for x, y in zip(jax.tree.leaves(end.params), jax.tree.leaves(start)))
        assert "flow" not in end.opt_state
        # Without the momentum, which is ten times as large as the parameters it moves.
        state = checkpoints.flatten(end._replace(opt_state=()))
        params = {name: x for name, x in state.items() if name.startswith("params/")}
        results.append((params, (state, metrics, logits)))
    (params, derived), (other_params, other_derived) = results
    chex.assert_trees_all_close(params, other_params, atol=1e-5)
    chex.assert_trees_all_close(derived, other_derived, rtol=1e-4, atol=1e-5)


def test_frozen_encoders_and_their_batch_statistics_pass_every_step_as_they_are():
    """In the traced step of each method, what comes out is the very value that went in.

    All of the state keeps its type, also whether it is weak: otherwise the second step is compiled again.
    """
    def stage(params, stats, x, *, train, mask=None):
        y = x @ params["w"]
        return y - stats["mean"], {"mean": y.mean(0)} if train else stats

    def init(key, x):
        return {"w": jax.random.normal(key, (3, 4))}, {"mean": jnp.zeros(4)}

    encoder = Encoder(init, stage, (stage,), lambda params, stats, x, **options: (x, stats))
    options = {"a": EncoderConfig(frozen=True), "b": EncoderConfig()}
    epoch = plan.make_epoch([range(8)], TrainConfig(batch_size=8))
    optimizer = by_encoder(make_optimizer(OptimizerConfig(momentum=0.9), 100, epoch), options)
    model = Model({"a": frozen(encoder), "b": encoder}, classification("xyz"), lambda key, batch: batch, optimizer,
                  epoch, 8, 8)
    batch = make_batch({m: np.zeros((8, 3), np.float32) for m in "ab"}, np.zeros(8, int))
    seen = set()
    for name, entry in WHOLE.items():
        small = {"k": 2} if hasattr(entry.options, "k") else {"modality": "a"} if name == "unimodal" else {}
        method = entry.make(dataclasses.replace(entry.options, **small), model)
        state = jax.eval_shape(method.init, jax.random.key(0), batch)
        if not method.step or not state.params["a"]:      # ume; cca and cpm_net have no encoders
            continue
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
        kept = {i for i, path in enumerate(paths) if path.startswith((".params['a']", ".batch_stats['a']"))}
        changed = {i for i, path in enumerate(paths) if path.startswith(".params['head']")}
        steps = method.step.values() if isinstance(method.step, Mapping) else [method.step]
        for step in list(steps)[:1] if name == "analytic" else steps:       # whose other step changes nothing
            jaxpr = jax.make_jaxpr(lambda state, batch, step=step: step(state, batch)[0])(state, batch).jaxpr
            same = {i for i, (old, new) in enumerate(zip(jaxpr.invars, jaxpr.outvars)) if old is new}
            assert kept <= same and len(kept) == 2 and not changed & same, name
            for path, old, new in zip(paths, jaxpr.invars, jaxpr.outvars, strict=False):
                assert old.aval == new.aval, (name, path)
            seen.add(name)
    assert len(seen) >= len(WHOLE) - 4


def test_what_a_method_predicts_from_features_is_what_it_predicts_from_inputs():
    """To the bit, of any state and with modalities missing, where it says that it does so."""
    def stage(params, stats, x, *, train, mask=None):
        return jnp.tanh(x @ params["w"]), stats

    encoder = Encoder(lambda key, x: ({"w": jnp.zeros((3, 4))}, {}), stage, (stage,),
                      lambda params, stats, x, **options: (x, stats))
    rng = np.random.default_rng(0)
    present = {"a": np.arange(8) % 3 > 0, "b": np.arange(8) % 4 > 0}
    batch = make_batch({m: rng.normal(size=(8, 3)).astype(np.float32) for m in "ab"}, np.arange(8) % 3,
                       present={m: there | ~present["ab".replace(m, "")] for m, there in present.items()})
    model = Model(dict.fromkeys("ab", encoder), classification("xyz"), lambda key, batch: batch,
                  Optimizer(lambda params: {}, None), None, 8, 8)

    def some(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return rng.normal(size=x.shape).astype(x.dtype) if x.dtype == jnp.float32 else np.zeros(x.shape, x.dtype)

    seen = []
    for name, entry in WHOLE.items():
        small = {"k": 2} if hasattr(entry.options, "k") else {"modality": "a"} if name == "unimodal" else {}
        options = dataclasses.replace(entry.options, **small)
        method = entry.make(options, model)
        if method.from_features:
            state = jax.tree.map(some, jax.eval_shape(method.init, jax.random.key(0), batch))
            expected, features = method.predict(state, batch), method.features(state, batch)
            found = entry.make(options, on_features(model)).predict(state, {
                "inputs": features, "present": {m: batch["present"][m] for m in features}})
            chex.assert_trees_all_equal(found, expected)
            seen.append(name)
    assert set(WHOLE) - set(seen) == {"mmtm", "mmtm_random", "mmtm_guided", "rubi", "cpm_net", "cca", "dcca", "dccae"}


def measured(config, dataset):
    """Parameters before and after the second step of eight rows on one device, and its metrics."""
    setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:1])
    feed, state = setup.programs.feed(dataset.splits["train"], "device"), setup_lib.init_state(setup)
    if config.method.name == "umt":     # whose teachers are not where it starts
        state = state._replace(extra=jax.tree.map(lambda x: x + 0.1, state.extra))
    state, _ = setup.programs.steps(state, feed.at(np.arange(8, dtype=np.int32)[None]))
    before = jax.device_get(state.params)
    state, metrics = setup.programs.steps(state, feed.at(np.arange(8, 16, dtype=np.int32)[None]))
    return before, jax.device_get(state.params), {name: float(x[0]) for name, x in metrics.items()}


@pytest.mark.parametrize("name, weight, weighted, others", [
    ("aux_ce", "weight", ("sound", "image"), ("fused",)),
    ("umt", "weight", ("distillation",), ("fused",)),
    ("mbsd", "weight", ("imitation",), ("fused", "sound", "image")),
    ("samm", "beta", ("alignment", "replayed/alignment"), (
        "fused", "sound", "image", "replayed/fused", "replayed/sound", "replayed/image", "consistency"))])
def test_terms_of_the_loss_add_up_with_their_weights(name, weight, weighted, others, make_dataset, make_config):
    """Twice the weight makes these terms twice as large, where nothing is learned, and no other."""
    config = make_config(name, optimizer=OptimizerConfig(learning_rate=0.0, schedule="constant"))
    found = []
    for factor in (1, 2) if weight else (1,):
        if weight:
            setattr(config.method, weight, factor * 1.5)
        _, _, metrics = measured(config, make_dataset())
        terms = {k.removeprefix("loss/"): x for k, x in metrics.items() if k.startswith("loss/")}
        assert set(terms) == {*weighted, *others} and all(terms[k] > 0 for k in weighted)
        assert metrics["loss"] == pytest.approx(sum(terms.values()), rel=1e-5)
        found.append(terms)
    assert found[-1] == pytest.approx({k: x * (len(found) if k in weighted else 1)
                                       for k, x in found[0].items()}, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name, clip", [("concat", 0.0), ("concat", 0.01), ("aux_ce", 0.0)])
def test_the_norm_of_the_gradient_is_that_of_the_change_before_clipping(name, clip, make_dataset, make_config):
    optimizer = OptimizerConfig(learning_rate=0.5, momentum=0.0, weight_decay=0.0, schedule="constant",
                                clip_norm=clip)
    config = make_config(name, optimizer=optimizer, gradient_norm=True)
    before, after, metrics = measured(config, make_dataset())
    change = np.sqrt(sum(np.sum(np.square(x - y, dtype=np.float64))
                         for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after)))) / 0.5
    assert change == pytest.approx(clip or metrics["gradient_norm"], rel=1e-3)
    assert metrics["gradient_norm"] > 0.02


def test_all_methods_of_a_seed_start_alike_in_every_modality_they_share():
    """Also of part of the modalities, of which the first is another one then."""
    def apply(params, stats, x, **options):
        return x, stats

    encoder = Encoder(lambda key, x: ({"w": jax.random.normal(key, (3,))}, {}), apply, (apply,), apply)
    model = Model(dict.fromkeys("abc", encoder), classification("xy"), lambda key, batch: batch,
                  Optimizer(lambda params: {}, None), None, 2, 2)
    batch = make_batch({m: np.zeros((2, 2), np.float32) for m in "abc"}, [0, 1])
    variants = [(name, {"modality": "b"} if name == "unimodal" else {}) for name in WHOLE]
    variants += [("unimodal", {"modality": "c"})]
    variants += [(name, {"modalities": "b,c"}) for name, entry in WHOLE.items()
                 if isinstance(entry.options, SGDConfig)]
    first = {}
    for name, changes in variants:
        small = {"k": 2} if hasattr(METHODS[name].options, "k") else {}
        options = dataclasses.replace(METHODS[name].options, **changes, **small)
        params = make_method(options, model).init(jax.random.key(5), batch).params
        assert len(params.keys() & set("abc")) == (
            1 if "modality" in changes else 2 if changes else 3)
        for m in filter(params.get, params.keys() & set("abc")):    # cca and cpm_net have no encoders
            chex.assert_trees_all_equal(params[m], first.setdefault(m, params[m]))
    assert len(np.unique([first[m]["w"] for m in "abc"])) == 9


@pytest.mark.parametrize("method", ["mla", "umt"])
def test_a_method_of_some_modalities_is_the_method_on_data_without_the_others(method, make_dataset, make_config):
    """Its state after two steps, and what it predicts."""
    shapes = {"sound": (3,), "image": (5,), "flow": (4,)}
    three = make_dataset(shapes)
    two = three._replace(splits={split: batch | {part: {m: batch[part][m] for m in ("sound", "image")}
                                                 for part in ("inputs", "present")}
                                 for split, batch in three.splits.items()})
    found = []
    for dataset, named in ((three, "sound,image"), (two, "")):
        config = make_config(method, modalities=dataset.modalities)
        config.method.modalities = named
        setup = setup_lib.build(config, dataset=dataset, devices=ONE)
        assert set(setup.make_method(None, {}).teachers) == (
            {"unimodal_image", "unimodal_sound"} if method == "umt" else set())
        state, _ = setup.programs.steps(setup_lib.init_state(setup), setup.programs.feed(
            dataset.splits["train"], "device").at(np.arange(16, dtype=np.int32).reshape(2, 8)))
        found.append((state._replace(key=()), predictions.predict_split(setup, state, dataset.splits["test"])))
    chex.assert_trees_all_close(*found, rtol=1e-5, atol=1e-6)
    assert found[0][1].keys() == found[1][1].keys()


def test_a_method_of_some_modalities_does_not_start_from_a_model_of_all(make_dataset, make_config):
    config = make_config("self_distill_label")
    config.method.modalities = "sound"
    with pytest.raises(UserError, match="method.modalities=sound: self_distill_label starts from .*, a model of all"):
        setup_lib.build(config, dataset=make_dataset(), devices=ONE)
