"""A run folder is the model: it is carried away, its data are gone or others, and it predicts as before."""
import json
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest

from jaxmm import provenance
from jaxmm.batch import make_batch
from jaxmm.config import StreamConfig, replace
from jaxmm.errors import UserError
from jaxmm.train import schedule
from jaxmm.train.restore import restore
from jaxmm.train.folder import read_config
from jaxmm.train.predictions import predict_split

DEVICES = jax.devices()[:2]


def save(path, dataset):
    arrays = {}
    for split, batch in dataset.splits.items():
        arrays |= {f"{split}/{m}": x for m, x in batch["inputs"].items()}
        arrays[f"{split}/label"] = np.array([dataset.class_names[c] for c in batch["label"]])
    np.savez(path, **arrays)
    return path


def train(config, workdir, count=1):
    return schedule.train(config, workdir, devices=DEVICES[:count], progress=False)


@pytest.fixture(name="config", scope="module")
def make_arrays_config(make_dataset, make_config, tmp_path_factory):
    """A run on a file of arrays; its sound is float64 far from zero, which the host normalises."""
    config = make_config("late", epochs=2)
    config.data.name = "arrays"
    dataset = make_dataset()
    for batch in dataset.splits.values():
        batch["inputs"]["sound"] = 1.7e9 + batch["inputs"]["sound"].astype(float)
    config.data.path = str(save(tmp_path_factory.mktemp("data") / "d.npz", dataset))
    return config


@pytest.fixture(name="workdir", scope="module")
def make_run(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(config, workdir)
    return workdir


@pytest.fixture(name="copy")
def make_copy(config, workdir, tmp_path):
    """The run and its data elsewhere, to be changed; the path in its config leads there."""
    shutil.copytree(workdir, tmp_path / "run")
    path = str(shutil.copy(config.data.path, tmp_path / "d.npz"))
    text = (tmp_path / "run/config.json").read_text()
    (tmp_path / "run/config.json").write_text(text.replace(config.data.path, path))
    return tmp_path / "run"


def logits(run):
    rng = np.random.default_rng(3)
    batch = make_batch({"sound": 1.7e9 + rng.normal(size=(11, 3)),
                        "image": rng.normal(size=(11, 5)).astype(np.float32)}, np.zeros(11, int))
    return predict_split(run.setup, run.state, batch)


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_that_is_carried_away_predicts_the_same_bits(copy, tmp_path, count):
    before = restore(copy, devices=DEVICES[:count])
    expected = logits(before)
    moved = copy.rename(tmp_path / "elsewhere")
    (tmp_path / "d.npz").unlink()
    after = restore(moved, devices=DEVICES[:count])
    assert {h: z.tobytes() for h, z in logits(after).items()} == {
        h: z.tobytes() for h, z in expected.items()}
    assert after.history == before.history and after.changed == ()
    assert after.setup.total_steps == before.setup.total_steps == 8
    assert after.setup.dataset.class_names == ("class 0", "class 1", "class 2")
    with pytest.raises(UserError, match="elsewhere: the data .*d.npz is not there; name them by --data"):
        after.setup.dataset.splits["test"]


def rescaled(path, split):
    """The file with the inputs of a split others, all else as it was."""
    with np.load(path) as file:
        arrays = dict(file)
    x = arrays[f"{split}/sound"]
    arrays[f"{split}/sound"] = 3 * (x - x.mean()) + x.mean() + 2
    np.savez(path, **arrays)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_data_that_change_do_not_change_the_model(copy, tmp_path, split, caplog):
    """Only what is scored on them: before, other training rows moved the scores of the same test rows."""
    before = restore(copy, devices=DEVICES[:1])
    expected, scores = logits(before), {r["split"]: r["scores"] for r in before.history}
    rescaled(tmp_path / "d.npz", split)
    after = restore(copy, devices=DEVICES[:1])
    assert after.changed == (split,)
    assert f"the split {split} of d changed after this run was trained" in caplog.text
    for head, z in logits(after).items():
        np.testing.assert_array_equal(z, expected[head])
    now = {r["split"]: r["scores"] for r in after.history}
    assert {s for s in now if now[s] != scores[s]} == {split} - {"train"}


def test_data_may_move(copy, config, tmp_path, caplog):
    (tmp_path / "d.npz").rename(tmp_path / "moved.npz")
    moved = restore(copy, data=str(tmp_path / "moved.npz"), devices=DEVICES[:1])
    assert moved.changed == () and not caplog.text
    # Training goes on there, too: rows are told by their checksums.
    (copy / "checkpoints/8").rename(tmp_path / "last")
    changed = replace(config, {"data.path": str(tmp_path / "moved.npz")})
    assert train(changed, copy).history == moved.history
    rescaled(tmp_path / "moved.npz", "train")
    with pytest.raises(UserError, match="moved is not the data this run was trained on"):
        train(changed, copy)


@pytest.mark.parametrize("change, said", [
    (lambda a: a.update({"test/sound": a["test/sound"][:, :2], "val/sound": a["val/sound"][:, :2],
                         "train/sound": a["train/sound"][:, :2]}), r"train/sound has rows of shape \(2,\)"),
    (lambda a: a.update({f"{s}/label": np.char.replace(a[f"{s}/label"], "class 0", "other")
                         for s in ("train", "val", "test")}), "it has the classes class 1, class 2, other"),
    (lambda a: [a.pop(f"{s}/image") for s in ("train", "val", "test")], "has the modalities .'sound'."),
    (lambda a: a.update({f"{s}/image": np.round(a[f"{s}/image"]).astype(int)
                         for s in ("train", "val", "test")}), "train/image holds integers"),
])
def test_data_that_mean_something_else_are_refused(copy, tmp_path, change, said):
    with np.load(tmp_path / "d.npz") as file:
        arrays = dict(file)
    change(arrays)
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(UserError, match=f"d is not the data this run was trained on.*{said}"):
        restore(copy, devices=DEVICES[:1])


def test_a_model_file_that_is_damaged_or_of_another_run_is_refused(copy, config, tmp_path):
    path = copy / "model.json"
    content = path.read_text()
    path.write_text(content.replace("class 1", "class 9"))
    for call in (lambda: restore(copy, data=None), lambda: train(read_config(copy), copy)):
        with pytest.raises(UserError, match="model.json cannot be read .its checksum is wrong"):
            call()
    path.unlink()       # it follows from the data
    assert restore(copy, devices=DEVICES[:1]).changed == ()
    rescaled(tmp_path / "d.npz", "train")
    train(read_config(copy), tmp_path / "other")
    path.write_bytes((tmp_path / "other/model.json").read_bytes())
    with pytest.raises(UserError, match="model.json is not the one that its checkpoints were made with"):
        restore(copy, data=None, devices=DEVICES[:1])
    path.unlink()
    with pytest.raises(UserError, match="or is missing and the training data are others"):
        restore(copy, devices=DEVICES[:1])


def test_a_run_tells_what_made_it(workdir, config):
    made_by = json.loads((workdir / "config.json").read_text())["made_by"]
    assert made_by["versions"]["jax"] == jax.__version__
    assert made_by["device"].endswith("x cpu cpu")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made_by["date"])
    assert read_config(workdir) == config
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode == 0:
        assert made_by["commit"].removesuffix("-dirty") == head.stdout.strip()
    else:
        assert made_by["commit"] == "" == provenance.commit()


def test_a_domain_stream_needs_its_map_of_classes_no_more(make_dataset, make_config, tmp_path):
    config = make_config("sgd", epochs=1)
    config.stream = StreamConfig(kind="domain", num_tasks=2, coarse=str(tmp_path / "coarse.csv"))
    (tmp_path / "coarse.csv").write_text("class,coarse\nclass 0,x\nclass 1,y\nclass 2,x\nclass 3,y\n")
    dataset = make_dataset(rows=(32, 16, 16), classes=4)
    run = schedule.train(config, tmp_path / "run", dataset=dataset, devices=DEVICES[:1], progress=False)
    (tmp_path / "coarse.csv").unlink()
    again = restore(tmp_path / "run", dataset=dataset, devices=DEVICES[:1])
    assert again.history == run.history and again.changed == ()
    alone = restore(tmp_path / "run", data=None, devices=DEVICES[:1])
    assert alone.setup.dataset.class_names == ("x", "y")
    assert [t.classes.tolist() for t in alone.setup.stream.tasks] == [
        t.classes.tolist() for t in run.setup.stream.tasks]
