"""Modalities with rows and labels of their own: what is read, split, trained on, evaluated and refused."""
import jax
import numpy as np
import pytest

from jaxmm import data
from jaxmm.config import DataConfig, EncoderConfig
from jaxmm.errors import UserError
from jaxmm.train.scores import score
from jaxmm.methods import METHODS
from jaxmm.train import checkpoints, schedule
from jaxmm.train.restore import restore
from jaxmm.train.predictions import predict_split
from jaxmm.train.setup import build

ROWS = {"train": {"image": 24, "sound": 40}, "val": {"image": 6, "sound": 9},
        "test": {"image": 12, "sound": 7}}
SHAPES = {"image": (5,), "sound": (3,)}
PAIRS = set(METHODS) - {"unimodal", "late", "mla", "ume", "cpm_net"}


def content(splits=("train", "val", "test"), offset=0.0):
    rng, arrays = np.random.default_rng(0), {}
    for split in splits:
        for m, n in ROWS[split].items():
            arrays[f"{split}/{m}"] = rng.normal(size=(n, *SHAPES[m])) + offset
            arrays[f"{split}/{m}/label"] = rng.permutation(np.arange(n) % (3 if m == "sound" else 2))
    return arrays


def stacked(arrays, splits=("train", "val", "test")):
    """The same rows as a file of paired data names them, with masks."""
    result = {}
    for split in splits:
        owner = np.repeat(["image", "sound"], [len(arrays[f"{split}/{m}"]) for m in ("image", "sound")])
        result[f"{split}/label"] = np.concatenate([arrays[f"{split}/{m}/label"] for m in ("image", "sound")])
        for m in SHAPES:
            result[f"{split}/present/{m}"] = owner == m
            rows = np.full((len(owner), *SHAPES[m]), 9.0)
            rows[owner == m] = arrays[f"{split}/{m}"]
            result[f"{split}/{m}"] = rows
    return result


def load(path, arrays, **options):
    np.savez(path, **arrays)
    return data.load(DataConfig(name="arrays", path=str(path), **options))


def config_for(make_config, path, method):
    config = make_config(method, epochs=2, batch_size=8, encoder=EncoderConfig("mlp", depth=1, width=4),
                         modalities=tuple(SHAPES))
    config.data = DataConfig(name="arrays", path=str(path))
    return config


def test_every_modality_has_rows_and_labels_of_its_own(tmp_path):
    arrays = content(offset=7.0)
    dataset = load(tmp_path / "a.npz", arrays)
    for split, batch in dataset.splits.items():
        total = sum(ROWS[split].values())
        np.testing.assert_array_equal(batch["id"], np.arange(total))
        np.testing.assert_array_equal(np.sum(list(batch["present"].values()), axis=0), 1)
        for m, rows in batch["present"].items():
            np.testing.assert_array_equal(batch["inputs"][m][rows], arrays[f"{split}/{m}"])
            np.testing.assert_array_equal(batch["label"][rows], arrays[f"{split}/{m}/label"])
    mean, std = data.dataset.statistics(dataset.splits["train"])["image"]
    np.testing.assert_allclose(mean, arrays["train/image"].mean(0))
    np.testing.assert_allclose(std, arrays["train/image"].std(0))


def test_validation_has_a_share_of_every_class_of_every_modality(tmp_path):
    arrays = content(("train", "test"))
    splits = load(tmp_path / "a.npz", arrays, val_fraction=0.25).splits
    for m, classes in (("image", 2), ("sound", 3)):
        counts = {s: np.bincount(splits[s]["label"][splits[s]["present"][m]])
                  for s in ("train", "val")}
        np.testing.assert_array_equal(counts["train"] + counts["val"],
                                      np.bincount(arrays[f"train/{m}/label"]))
        assert len(counts["val"]) == classes
        assert np.abs(counts["val"] - 0.25 * (counts["train"] + counts["val"])).max() < 1
    for batch in (splits["train"], splits["val"]):
        np.testing.assert_array_equal(batch["id"], np.arange(len(batch["label"])))


def test_mla_is_mla_on_the_stacked_rows_and_is_restored(make_config, tmp_path):
    """To the bit; the test split may be paired, where it is fused."""
    arrays = content()
    paired = stacked(arrays)
    test = {k: v for k, v in arrays.items() if not k.startswith("test/")} | {
        "test/label": np.arange(4) % 3, **{f"test/{m}": np.ones((4, *s)) for m, s in SHAPES.items()}}
    states, runs = [], {}
    for name, part in (("own", arrays), ("stacked", paired), ("pairs", test)):
        np.savez(tmp_path / f"{name}.npz", **part)
        runs[name] = schedule.train(config_for(make_config, tmp_path / f"{name}.npz", "mla"), tmp_path / name,
                                devices=jax.devices()[:1], progress=False)
        states.append(checkpoints.flatten(runs[name].setup.programs.fetch(runs[name].state)))
    for other in states[1:]:
        assert all(np.array_equal(x, other[k]) for k, x in states[0].items())
    assert runs["own"].history == runs["stacked"].history
    again = restore(tmp_path / "own", None)
    batch = again.setup.dataset.splits["test"]
    logits = predict_split(again.setup, again.state, batch)
    scores = score(logits, batch)
    assert {h: s["accuracy"] for h, s in scores.items()} == {
        h: s["accuracy"] for h, s in runs["own"].history[-1]["scores"].items()}
    image = batch["present"]["image"]
    np.testing.assert_allclose(logits["fused"][image], logits["image"][image], rtol=1e-6)
    assert scores["image"]["accuracy"] == np.mean(
        logits["image"][image].argmax(1) == arrays["test/image/label"])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_which_methods_need_pairs(method, make_config, tmp_path):
    np.savez(tmp_path / "a.npz", **content())
    config = config_for(make_config, tmp_path / "a.npz", method)
    if method in PAIRS:
        with pytest.raises(UserError, match=f"{method} learns from rows that have two modalities.*of a has "
                           "two of image, sound; choose one of unimodal, late, mla, ume, cpm_net$"):
            build(config, devices=jax.devices()[:1])
    else:
        build(config, devices=jax.devices()[:1])
    if method == "er":      # of one modality alone there is nothing to pair
        config.method.modalities, config.method.capacity = "sound", 8
        assert [len(t) for t in build(config, devices=jax.devices()[:1]).tasks] == [ROWS["train"]["sound"]]


@pytest.mark.parametrize("changes, message", [
    ({"train/label": np.zeros(24, int)}, "a.npz: train/label and .*image/label: give one label"),
    ({"train/present/image": np.ones(24, bool)}, "train/present/image and .*image/label"),
    ({"train/sound/label": None}, "train/sound is there without .*train/sound/label"),
    ({"train/image": None}, "train/image is there without .*or that without it"),
    ({"train/image": np.zeros((23, 5))}, r"train/image has the shape \(23, 5\), .*label \(24,\)"),
    ({"train/image/label": np.array(1)}, r"label \(\); every row needs one label"),
    ({"train/image/label": np.array(["a"] * 24)}, "sound/label is int64 .*one type"),
    ({"train/image/label": np.zeros(24)}, "sound/label is int64 .*image/label float64"),
    ({f"test/{m}/label": np.full(n, 5) for m, n in ROWS["test"].items()}, "test")])
def test_what_cannot_be_stacked_is_refused(changes, message, tmp_path):
    arrays = {k: v for k, v in (content() | changes).items() if v is not None}
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / "a.npz", arrays)
    assert "\n" not in str(error.value)
