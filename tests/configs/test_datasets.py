"""Every config of a real data set: made files, prepared, trained on for two steps, evaluated."""
import importlib
import math

import jax
import numpy as np
import pytest

from jaxmm import data
from jaxmm.data.prepared import open_prepared
from jaxmm.errors import UserError
from jaxmm.prepare.run import prepare
from jaxmm.report import run_report
from jaxmm.train import schedule
from jaxmm.train.setup import build, init_state, state_shapes

# By config: maker of the files and its options, the data set, shapes of an example at full size.
CASES = {
    "cremad": ("cremad", {}, "cremad", {"audio": (257, 188), "visual": (3, 224, 224, 3)}),
    "food101": ("food101", {}, "food101", {"text": (256,), "visual": (256, 256, 3)}),
    "food101_clip": ("food101", {}, "food101", {"text": (77,), "visual": (224, 224, 3)}),
    "gcil_iemocap": ("iemocap_features", {}, "iemocap", {}),
    "iemocap": ("iemocap", {"text": True}, "iemocap", {"audio": (1024, 128), "text": (256,),
                                                       "visual": (256, 256, 3)}),
    "iemocap_features": ("iemocap_features", {}, "iemocap", {}),
    "kinetics400": ("kinetics400", {}, "kinetics400", {"audio": (256, 128), "visual": (8, 224, 224, 3)}),
    "kinetics400_avslowfast": ("kinetics400", {}, "kinetics400",
                               {"audio": (128, 80), "visual": (32, 224, 224, 3)}),
    "kinetics_sounds": ("kinetics_sounds", {}, "kinetics_sounds",
                        {"audio": (1024, 128), "visual": (3, 224, 224, 3)}),
    "modelnet40": ("modelnet40", {}, "modelnet40", {"front": (224, 224, 3), "rear": (224, 224, 3)}),
    "mosei": ("mosi", {}, "mosei", {}),
    "mosi": ("mosi", {}, "mosi", {}),
    "mvsa": ("mvsa", {"clips": 5}, "mvsa", {"text": (256,), "visual": (256, 256, 3)}),
    "seq_vggsound": ("vggsound", {"clips": 8}, "vggsound",
                     {"audio": (129, 626), "visual": (4, 224, 224, 3)}),
    "ucf101": ("ucf101", {}, "ucf101", {"flow": (224, 224, 20), "visual": (224, 224, 3)}),
    "vggsound": ("vggsound", {"clips": 4}, "vggsound",
                 {"audio": (513, 313), "visual": (32, 224, 224, 3)}),
}

STREAMS = ("gcil_iemocap", "seq_vggsound")


def get_config(name, argument):
    return importlib.import_module(f"configs.{name}").get_config(argument)


@pytest.mark.parametrize("name", CASES)
def test_made_files_are_prepared_trained_on_and_evaluated(name, layouts, tmp_path):
    maker, options, dataset, _ = CASES[name]
    content = getattr(layouts, maker)(tmp_path / "source", **options)
    prepare(dataset, tmp_path / "source", tmp_path, progress=False)
    config = get_config(name, "er,smoke" if name in STREAMS else "late,smoke")
    config.data.path = str(tmp_path / dataset)
    if config.stream.kind:          # every task is in every split
        config.stream.num_tasks, config.method.capacity, config.data.val_fraction = 2, 2, 0.5
    run = schedule.train(config, tmp_path / "run", devices=jax.devices()[:1], progress=False)
    assert int(run.setup.programs.fetch(run.state).step) >= 2
    last = run.history[-1]
    assert last["split"] == "test" and "fused" in last["scores"]
    assert all(math.isfinite(value) for s in last["scores"].values() for value in s.values())
    prepared = open_prepared(tmp_path / dataset)
    found, records = run.setup.dataset, prepared.splits
    assert found.class_names == (prepared.class_names or prepared.outputs)
    assert run.setup.task.name == ("regression" if maker == "mosi" else "classification")
    np.testing.assert_array_equal(found.splits["test"]["label"], [r["label"] for r in records["test"]])
    if maker != "mosi" and maker != "mvsa":     # whose lists say more, and less, than the records
        expected = [found.class_names.index(content[r["key"]][1]) for r in records["test"]]
        np.testing.assert_array_equal(found.splits["test"]["label"], expected)
    sizes = {split: len(part["label"]) for split, part in found.splits.items()}
    assert sum(sizes.values()) == sum(map(len, records.values()))
    assert sizes["test"] == len(records["test"])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3]] + ["avmnist"])
def test_examples_have_the_shapes_of_the_papers(name):
    """Of the transform alone, from rows of zeros: no data is needed to know them."""
    from jaxmm.config import FramesConfig, SpectrogramConfig
    from jaxmm.data import decode
    from jaxmm.data.preprocess import preprocess
    shapes = CASES[name][3] if name in CASES else {"audio": (65, 40), "visual": (28, 28, 3)}
    sections = get_config(name, "samm" if name in STREAMS else "late").data.preprocess
    found = {}
    for m, section in sections.items():
        if isinstance(section, SpectrogramConfig):
            decode.check_sound(m, section)
            row = jax.ShapeDtypeStruct(decode.sound_shape(section), np.int16)
        elif isinstance(section, FramesConfig):
            decode.check_frames(m, section)
            row = jax.ShapeDtypeStruct(decode.frames_shape(section), np.uint8)
        else:
            row = jax.ShapeDtypeStruct((section.length,), np.int32)
        for key in (None, jax.random.key(0)):
            found[m] = jax.eval_shape(lambda x, k=key, s=section: preprocess(k, 0.5, x, s), row).shape
            assert found[m] == shapes[m]
    assert set(found) == set(shapes)


def test_rooms_are_prepared_segmented_and_reported(layouts, tmp_path):
    """And the network of the full size is ESANet's, by its number of parameters."""
    layouts.nyuv2(tmp_path / "source", rooms=4)
    prepare("nyuv2", tmp_path / "source", tmp_path, progress=False)
    config = get_config("nyuv2", "segment,smoke")
    config.data.path, config.method.decoder_blocks = str(tmp_path / "nyuv2"), 0
    run = schedule.train(config, tmp_path / "run", devices=jax.devices()[:1], progress=False)
    assert run.setup.dataset.class_names[:2] == ("wall", "floor") and run.setup.task.name == "segmentation"
    assert {s: len(x["label"]) for s, x in run.setup.dataset.splits.items()} == {"train": 3, "val": 1, "test": 4}
    assert set(run.history[-1]["scores"]) == {"fused"} and run.history[-1]["split"] == "test"
    assert 0 <= run.history[-1]["scores"]["fused"]["mean_iou"] <= 1
    run_report.write(run, tmp_path / "run")
    assert "40 classes of pixels" in (tmp_path / "run/report.md").read_text()
    config = get_config("nyuv2", "segment")
    config.data.path, config.data.val_fraction, config.train.batch_size = str(tmp_path / "nyuv2"), 0.25, 2
    setup = build(config, devices=jax.devices()[:1])
    assert setup.shapes == {"rgb": (480, 640, 3), "depth": (480, 640)}
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(state_shapes(setup).params)) == 46_955_840


def test_features_of_clip_are_learned_on_by_a_head_alone(tmp_path):
    """From arrays with the names and sizes that launch.encode gives them."""
    rng = np.random.default_rng(0)
    arrays = {f"{s}/{m}": rng.normal(size=(8, 512)).astype(np.float32)
              for s in ("train", "val", "test") for m in ("text", "visual")}
    labels = {f"{s}/label": np.arange(8) % 2 for s in ("train", "val", "test")}
    np.savez(tmp_path / "food101.npz", **arrays, **labels)
    config = get_config("food101_clip", "late,features")
    assert config.data.path == "data/food101_clip/food101.npz" and config.optimizer.name == "sgd"
    config.data.path, config.train.batch_size = str(tmp_path / "food101.npz"), 4
    setup = build(config, devices=jax.devices()[:1])
    assert all(norm == (0, 1) for norm in setup.spec.norms.values())        # features as they come
    state = setup.programs.fetch(init_state(setup))
    assert {m: jax.tree.map(np.shape, x) for m, x in state.params["head"].items()} == {
        m: {"kernel": (512, 2), "bias": (2,)} for m in ("text", "visual")}
    assert not jax.tree.leaves([state.params[m] for m in ("text", "visual")])


def test_digits_of_avmnist_are_read_as_they_are_stored(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds
    from jaxmm.prepare import avmnist
    digits = [{"label": i % 10, "image": np.full((28, 28, 1), 20 * (i % 10), np.uint8)}
              for i in range(40)]
    spoken = [{"label": d, "audio": np.full(800, 1000 * d + 10 * n, np.int64),
               "audio/filename": f"{d}_ann_{n}.wav".encode()} for d in range(10) for n in range(10)]
    monkeypatch.setattr(tfds, "data_source",
                        lambda name, split, data_dir: spoken if name == "spoken_digit" else digits)
    avmnist._load.cache_clear()
    prepare("avmnist", tmp_path, tmp_path / "out", progress=False)
    avmnist._load.cache_clear()
    config = get_config("avmnist", "late,smoke")
    config.data.path = str(tmp_path / "out/avmnist")
    images = data.load(config.data).splits["test"]
    np.testing.assert_allclose(images["inputs"]["visual"].mean((1, 2, 3)), 20 * images["label"], atol=2)
    run = schedule.train(config, tmp_path / "run", devices=jax.devices()[:1], progress=False)
    assert math.isfinite(run.history[-1]["scores"]["fused"]["nll"])


def test_an_argument_that_is_no_size_is_refused():
    with pytest.raises(UserError, match="found 'tiny' after the method"):
        get_config("cremad", "mla,tiny")
