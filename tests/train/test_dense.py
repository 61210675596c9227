"""Segmentations from end to end, by a method that looks at single pixels: training, scores, reports, refusals."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmm
from jaxmm.batch import make_batch
from jaxmm.config import (AugmentConfig, Config, DataConfig, EncoderConfig, MethodConfig, OptimizerConfig, StreamConfig,
                          TrainConfig, replace)
from jaxmm.data.dataset import Dataset, check_dataset, with_target
from jaxmm.errors import UserError
from jaxmm.experiments.compare import make_runs
from jaxmm.experiments.encode import encode
from jaxmm.experiments.evaluate import analyse, evaluate
from jaxmm.experiments.export import program
from jaxmm.experiments.predict import predict
from jaxmm.heads.dense import confusion
from jaxmm.methods import METHODS, Entry
from jaxmm.methods.common import Method, TrainState, finish_step, gradients, step_key
from jaxmm.model import Output
from jaxmm.report import run_report
from jaxmm.train import schedule
from jaxmm.train.predictions import predict_split
from jaxmm.train.restore import restore
from jaxmm.train.setup import build

DEVICES = jax.devices()
CLASSES = 3


def make_pixelwise(config, model):
    """Logits are linear in the numbers of a pixel and their squares; each modality also has a head of its own."""
    del config

    def outputs(params, batch):
        inputs = {m: x if x.ndim == 4 else x[..., None] for m, x in batch["inputs"].items()}
        own = {m: jnp.concatenate([x, x ** 2], -1) @ params[m]["w"] + params[m]["b"] for m, x in inputs.items()}
        return own | {"fused": sum(own.values())}

    def init(key, batch):
        inputs = model.transform(None, batch)["inputs"]
        widths = {m: x.shape[-1] if x.ndim == 4 else 1 for m, x in inputs.items()}
        params = {m: {"w": jnp.zeros((2 * n, model.task.size)), "b": jnp.zeros(model.task.size)} for m, n in widths.items()}
        return TrainState(params, {}, model.optimizer.init(params), key, jnp.zeros((), jnp.int32))

    def step(state, batch):
        batch = model.transform(step_key(state), batch)

        def loss_fn(params):
            out = Output({}, {}, outputs(params, batch), {})
            return {h: model.mean(model.task.loss(z, batch["label"])) for h, z in out.outputs.items()}, out

        losses, out, grads = gradients(model, state.params, loss_fn)
        weights = model.task.class_weights
        losses |= {} if weights is None else {"weight": weights.sum()}
        return finish_step(model, state, batch, losses, out, grads)

    def predict(state, batch):
        batch = model.transform(None, batch)
        return {h: confusion(z, batch["label"]) for h, z in outputs(state.params, batch).items()}

    def maps(state, batch):
        return {h: z.argmax(-1) for h, z in outputs(state.params, model.transform(None, batch)).items()}

    return Method(init, step, predict, lambda state, batch: {}, maps=maps)


@pytest.fixture(autouse=True)
def pixelwise(monkeypatch):
    monkeypatch.setitem(METHODS, "pixelwise", Entry(
        MethodConfig("pixelwise"), make_pixelwise, "pixels alone", "none", pairs=False, dense=True))


def make_dataset(missing=False):
    """Class 1 is red and class 2 near; the first pixel of each picture is void."""
    rng, splits = np.random.default_rng(0), {}
    for split, n in (("train", 16), ("val", 8), ("test", 8)):
        maps = rng.integers(0, CLASSES, (n, 4, 6)).astype(np.int16)
        colour = rng.normal(0, 0.1, (n, 4, 6, 3)) + [1, 0, 0] * (maps == 1)[..., None]
        depth = rng.normal(0, 0.1, (n, 4, 6)) - 2 * (maps == 2)
        maps[:, 0, 0] = -1
        inputs = {"colour": colour.astype(np.float32), "depth": depth.astype(np.float32), "classes": maps}
        present = {"depth": np.arange(n) % 4 > 0} if missing else {}
        splits[split] = with_target(make_batch(inputs, np.zeros(n, np.int32), present=present), "classes")
    return check_dataset(Dataset("pixels", splits, ("none", "red", "near"), target="classes"))


def make_config(**options):
    config = Config(method=MethodConfig("pixelwise"), data=DataConfig(zoom=1.3),
                    optimizer=OptimizerConfig(learning_rate=0.5, schedule="constant"),
                    train=TrainConfig(epochs=3, batch_size=8, class_weights="median_frequency"))
    for m in "colour", "depth":
        config.encoders[m] = EncoderConfig(name="identity")
    return replace(config, options)


def train(config, workdir, dataset, count=1):
    return schedule.train(config, workdir, dataset=dataset, devices=DEVICES[:count], progress=False)


def test_a_segmentation_is_trained_scored_reported_and_restored(tmp_path):
    dataset = make_dataset()
    np.savez(tmp_path / "pixels.npz", class_names=np.array(dataset.class_names), **{
        f"{s}/{m}": x for s, split in dataset.splits.items() for m, x in split["inputs"].items()})
    config = make_config(**{"data.name": "arrays", "data.path": str(tmp_path / "pixels.npz"), "data.target": "classes"})
    run = schedule.train(config, tmp_path / "run", devices=DEVICES[:1], progress=False)
    found = predict_split(run.setup, run.state, run.setup.dataset.splits["test"])
    assert {head: (z.shape, z.dtype.name) for head, z in found.items()} == {
        head: ((8, 3, 3), "int32") for head in ("colour", "depth", "fused")}
    label = dataset.splits["test"]["inputs"]["classes"]
    for head, z in found.items():
        counts = z.sum(0)
        np.testing.assert_array_equal(counts.sum(1), [np.sum(label == c) for c in range(3)])    # no void pixel
        iou = [counts[c, c] / (counts[c].sum() + counts[:, c].sum() - counts[c, c]) for c in range(3)]
        scores = run.history[-1]["scores"][head]
        assert scores == {"mean_iou": pytest.approx(np.mean(iou)),
                          "pixel_accuracy": pytest.approx(np.trace(counts) / counts.sum())}
    scores = {head: s["mean_iou"] for head, s in run.history[-1]["scores"].items()}
    assert min(scores.values()) < scores["fused"] == max(scores.values())
    table = run_report.write(run, tmp_path / "run")
    text = (tmp_path / "run/report.md").read_text()
    assert table.splitlines()[0].split() == "| head | mean IoU | pixel accuracy |".split() and table in text
    assert "Mean IoU of the head `fused` on the test split: **" in text
    assert "![Inputs, label, prediction and error of some examples](examples.png)" in text
    assert (tmp_path / "run/examples.png").stat().st_size > 1000 and (tmp_path / "run/predictions.png").exists()
    again = restore(tmp_path / "run", None, devices=DEVICES[:1])
    assert again.setup.spec.checksum == run.setup.spec.checksum
    assert "classes" in json.loads((tmp_path / "run/model.json").read_text())["modalities"]
    for head, z in predict_split(again.setup, again.state, again.setup.dataset.splits["test"]).items():
        np.testing.assert_array_equal(z, found[head])
    assert "fused" in evaluate(tmp_path / "run", None, "test", ["depth"], ["colour:0.5"])
    with pytest.raises(UserError, match="--predictions takes one prediction for each example"):
        evaluate(tmp_path / "run", None, "test", [], [], predictions=str(tmp_path / "p.csv"))
    for name in "probe", "calibration", "contribution", "gap":
        with pytest.raises(UserError, match=f"--{name} takes one prediction for each example, and a segmentation"):
            analyse(tmp_path / "run", None, "test", [name], [])
    output = tmp_path / "made.npz"
    for call in (lambda: predict(again, config.data.path, "test", output, None, False),
                 lambda: encode(again, tmp_path / "features", {}, progress=False), lambda: program(again),
                 lambda: jaxmm.load(tmp_path / "run"), lambda: list(make_runs([], again.setup.dataset, probe=True))):
        with pytest.raises(UserError, match="takes one prediction for each example, and a segmentation has one"):
            call()


def test_devices_and_resuming_change_nothing(tmp_path):
    dataset = make_dataset()
    whole = train(make_config(), tmp_path / "whole", dataset)
    spread = train(make_config(), tmp_path / "spread", dataset, count=4)
    train(make_config(**{"train.epochs": 1}), tmp_path / "parts", dataset)
    resumed = train(make_config(), tmp_path / "parts", dataset)
    params = [run.setup.programs.fetch(run.state).params for run in (whole, spread, resumed)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), params[0], params[1])
    jax.tree.map(np.testing.assert_array_equal, params[0], params[2])
    assert whole.history[-1]["scores"] == resumed.history[-1]["scores"]


def test_the_head_of_a_modality_is_scored_on_pictures_that_have_it(tmp_path):
    dataset = make_dataset(missing=True)
    run = train(make_config(), tmp_path / "run", dataset)
    test = dataset.splits["test"]
    outputs = predict_split(run.setup, run.state, test)
    counts = outputs["depth"][test["present"]["depth"]].sum(0)
    expected = np.trace(counts) / counts.sum()
    assert run.history[-1]["scores"]["depth"]["pixel_accuracy"] == pytest.approx(expected)
    assert counts.sum() < outputs["depth"].sum() == outputs["fused"].sum()


def test_weights_of_classes_reach_the_method():
    setup = build(make_config(), dataset=make_dataset(), devices=DEVICES[:1])
    maps = setup.dataset.splits["train"]["inputs"]["classes"]
    share = np.array([np.mean(maps == c) for c in range(3)])       # every picture holds every class
    found = setup.make_model(None, {"optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.0}).task.class_weights
    np.testing.assert_allclose(found, np.median(share) / share, rtol=1e-6)
    plain = build(make_config(**{"train.class_weights": ""}), dataset=make_dataset(), devices=DEVICES[:1])
    assert plain.make_model(None, {"optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.0}).task.class_weights is None


@pytest.mark.parametrize("options, message", [
    ({"train.class_weights": "balanced"}, "train.class_weights=balanced counts examples.*=median_frequency"),
    ({"task.label_smoothing": 0.1}, "task.label_smoothing=0.1 needs a classification; the task is segmentation"),
    ({"train.experts": "equal"}, "a product of predictions needs a classification; the task is segmentation"),
    ({"stream": StreamConfig(kind="class")}, "a stream of tasks needs a classification; the task is segmentation"),
    ({"data.zoom": 0.5}, "data.zoom=0.5; expected a factor of at least 1, or 0 for none"),
    ({"data.clips": 2}, "data.clips=2, and no modality of"),
    ({"augment": {"colour": AugmentConfig(flip=True)}}, "augment.colour.flip: the inputs of a segmentation are changed"),
    ({"encoders": {"classes": EncoderConfig()}}, "encoders.classes: no such modality"),
    ({"method": MethodConfig("late")}, "late predicts for whole examples, and the task is segmentation.*pixelwise")])
def test_what_does_not_go_with_a_segmentation(options, message):
    with pytest.raises(UserError, match=message) as error:
        build(make_config(**options), dataset=make_dataset(), devices=DEVICES[:1])
    assert "\n" not in str(error.value)


def test_what_is_for_segmentations_alone(make_dataset, make_config):
    for options, message in (({"data.zoom": 1.4}, "data.zoom=1.4 is for a segmentation; the task is classification"),
                             ({"train.class_weights": "median_frequency"}, "=median_frequency is for a segmentation")):
        with pytest.raises(UserError, match=message):
            build(replace(make_config("concat"), options), dataset=make_dataset(), devices=DEVICES[:1])


def test_other_data_than_those_of_the_run_are_refused():
    dataset = make_dataset()
    setup = build(make_config(), dataset=dataset, devices=DEVICES[:1])
    splits = {s: {**x, "inputs": {m: x["inputs"][m] for m in ("colour", "depth")}} for s, x in dataset.splits.items()}
    with pytest.raises(UserError, match="it has the class maps none, the run classes"):
        build(make_config(**{"train.class_weights": "", "data.zoom": 0.0}), spec=setup.spec,
              dataset=dataset._replace(splits=splits, target="", class_names=("none", "red", "near")),
              devices=DEVICES[:1])
