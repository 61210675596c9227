"""Runs that start from files of weights, and encoders that are frozen in them."""
import json
import logging
import pathlib

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxmm.config import EncoderConfig, TextConfig, replace
from jaxmm.data.dataset import say
from jaxmm.errors import UserError
from jaxmm.experiments import planning
from jaxmm.train import loop, schedule, setup as setup_lib, teaching, weights
from jaxmm.train.opened import Opened, nothing
from jaxmm.train.restore import restore
from jaxmm.train.predictions import predict_split

ONE = jax.devices()[:1]
SHAPES = {"sound": (3,), "image": (8, 8, 3)}


@pytest.fixture(name="path")
def make_path(vit_arrays, tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(vit_arrays(), path)
    return path


@pytest.fixture(name="dataset", scope="module")
def make_small(make_dataset):
    return make_dataset(SHAPES, rows=(16, 8, 8))


@pytest.fixture(name="config")
def make_small_config(make_config, path):
    def make(method="late", epochs=1, **image):
        config = make_config(method, epochs=epochs, steps_per_call=1)
        config.encoders["image"] = EncoderConfig(**{"name": "mae", "weights": str(path)} | image)
        return config

    return make


def start(config, dataset):
    """One copy of the first state, as training makes it."""
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    state = setup.programs.fetch(setup_lib.init_state(setup))
    return schedule.start_from(Opened(setup, pathlib.Path(), nothing, nothing, state, [], 0)).state


def train(config, workdir, dataset):
    run = schedule.train(config, workdir, dataset=dataset, devices=ONE, progress=False)
    return run.setup.programs.fetch(run.state)


def test_every_seed_starts_from_the_file_and_trains_as_alone(config, dataset, vit_arrays, tmp_path, capsys):
    configs = [replace(config(), {"train.seed": seed}) for seed in (0, 1)]
    first, second = (start(c, dataset).params for c in configs)
    chex.assert_trees_all_equal(first["image"], second["image"])
    np.testing.assert_array_equal(first["image"]["block_0"]["expand"]["kernel"],
                                  vit_arrays()["blocks.0.mlp.fc1.weight"].T)
    assert (first["sound"]["Dense_0"]["kernel"] != second["sound"]["Dense_0"]["kernel"]).any()
    _, together = schedule.train_many(configs, [tmp_path / "0", tmp_path / "1"], dataset=dataset, devices=ONE,
                                      progress=True)
    assert "MiB of memory, state and data included" in capsys.readouterr().err
    alone = train(configs[1], tmp_path / "alone", dataset)
    chex.assert_trees_all_equal(together.setup.programs.fetch(together.state).params, alone.params)
    assert (alone.params["image"]["cls"] != first["image"]["cls"]).any()


def test_a_run_needs_the_file_for_its_first_step_alone(config, dataset, path, tmp_path):
    """Resuming, restoring and a config of its folder do without it; what the file says is in the folder."""
    undisturbed = train(config(epochs=2), tmp_path / "undisturbed", dataset)
    train(config(epochs=1), tmp_path / "run", dataset)
    noted = json.loads((tmp_path / "run" / "config.json").read_text())["encoders"]["image"]
    assert (noted["width"], noted["depth"], noted["patch"], len(noted["sha256"])) == (8, 1, 4, 64)
    path.rename(tmp_path / "moved.safetensors")
    resumed = train(config(epochs=2, name="vit"), tmp_path / "run", dataset)
    chex.assert_trees_all_equal((resumed.params, resumed.opt_state), (undisturbed.params, undisturbed.opt_state))
    run = restore(tmp_path / "run", dataset=dataset, devices=ONE)
    chex.assert_trees_all_equal(run.setup.programs.fetch(run.state).params, resumed.params)
    assert np.isfinite(predict_split(run.setup, run.state, dataset.splits["test"])["fused"]).all()
    with pytest.raises(UserError, match=f"encoders.image: weights: {path}: no such file"):
        train(config(), tmp_path / "new", dataset)
    for option, old, new in (("rate", 1.0, 0.5), ("frozen", False, True), ("name", "'mae'", "bert"), ("width", 8, 9)):
        with pytest.raises(UserError, match=f"encoders.image.{option} was {old}, is '?{new}"):
            train(config(epochs=2, **{option: new}), tmp_path / "run", dataset)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change, message", [
    ({"name": "bert"}, "bert takes texts?, found image"), ({"width": 16}, "width=16, but .* has 8"),
    ({"rate": 0.0}, "encoder rate=0.0; expected a number above 0"),
    ({"weights": "nowhere.npz"}, "encoders.image: weights: nowhere.npz: no such file"),
    ({"sha256": 64 * "0", "width": 8, "depth": 1, "patch": 4}, "SHA-256 .* expected 000000000000")])
def test_nothing_is_written_for_what_cannot_start(change, message, config, dataset, tmp_path):
    with pytest.raises(UserError, match=message):
        train(config(**change), tmp_path / "run", dataset)
    assert not (tmp_path / "run").exists()


def test_images_of_other_channels(config, make_dataset, tmp_path):
    dataset = make_dataset(SHAPES | {"image": (8, 8, 1)}, rows=(16, 8, 8))
    with pytest.raises(UserError, match="takes 3 channels, found 1; a ResNet.s file fits any number"):
        train(config(), tmp_path / "run", dataset)


def test_texts_need_the_vocabulary_of_the_encoder(config, dataset):
    options = config()
    options.data.preprocess["image"] = TextConfig()
    spec = setup_lib.build(config(weights="", patch=4, width=8), dataset=dataset, devices=ONE).spec
    with pytest.raises(UserError, match="weights: the vocabulary of image is made of the training texts"):
        setup_lib.kinds(options, spec)
    options.data.preprocess["image"] = TextConfig(vocabulary="vocab.txt")
    assert setup_lib.kinds(options, spec)["image"] == "image"       # as the data have no words there


def test_head_first(config, dataset, tmp_path):
    """A frozen run, then one that starts from it and trains everything; a run wins over a file."""
    head = train(config(frozen=True, remat=True, dtype="bfloat16"), tmp_path / "head", dataset)
    file = start(config(), dataset).params
    chex.assert_trees_all_equal(head.params["image"], file["image"])
    assert "image" not in head.opt_state
    assert (head.params["sound"]["Dense_0"]["kernel"] != file["sound"]["Dense_0"]["kernel"]).any()
    after = replace(config(), {"train.init_from": str(tmp_path / "head")})
    chex.assert_trees_all_equal(start(after, dataset).params, head.params)


def test_teachers_start_from_the_file_too(config, dataset, tmp_path):
    """And teach encoders that started elsewhere, or are trained in another way."""
    options = config("umt", frozen=True)
    train(options, tmp_path / "umt", dataset)
    teacher = restore(tmp_path / "umt" / "teachers" / "unimodal_image", dataset=dataset, devices=ONE)
    chex.assert_trees_all_equal(teacher.setup.programs.fetch(teacher.state).params["image"],
                                start(options, dataset).params["image"])
    other = config("umt", weights="", width=8, depth=1, patch=4)
    other.method.teachers = str(tmp_path / "umt" / "teachers" / "{teacher}")
    teaching.check_teachers(setup_lib.build(other, dataset=dataset, devices=ONE))
    other.encoders["image"].depth = 2
    with pytest.raises(UserError, match="the encoders of this teacher differ: encoders.image.depth is 1, here 2"):
        teaching.check_teachers(setup_lib.build(other, dataset=dataset, devices=ONE))


def test_a_comparison_resumes_without_the_file(config, dataset, path, tmp_path):
    states = []
    for _ in range(2):
        planned, = planning.plan_runs(config, ["late"], 1, dataset, tmp_path)
        states.append(train(planned.config, planned.workdir, dataset).params)
        path.unlink(missing_ok=True)
    chex.assert_trees_all_equal(*states)
    assert (tmp_path / "late" / "seed_0" / "config.json").exists()


@pytest.mark.parametrize("method, image, message", [
    ("late", {"frozen": True, "weights": "", "width": 8, "depth": 1, "patch": 4},
     "encoders.image.frozen: its parameters are random and stay so"),
    ("cca", {}, "encoders.image: cca has no encoder of image with parameters")])
def test_what_has_no_effect_is_said(method, image, message, config, dataset, caplog):
    setup = setup_lib.build(config(method, **image), dataset=dataset, devices=ONE)
    say.cache_clear()       # another test may have had it said
    with caplog.at_level(logging.WARNING):
        assert weights.read_pretrained(setup) == {}
    assert message in caplog.text


def test_memory_that_is_there_and_memory_that_is_not():
    assert loop.check_memory(2**21, 2**31) == "steps take 2.0 of 2,048 MiB of memory, state and data included"
    with pytest.raises(UserError, match="steps take 3.0 of 2 MiB.*; lower train.batch_size"):
        loop.check_memory(3 * 2**20, 2**21)
