"""Exported models: what the run predicts, without jaxmm, and its parameters."""
import hashlib
import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxmm
from jaxmm.batch import make_batch, take
from jaxmm.config import DataConfig, EncoderConfig, FramesConfig, SpectrogramConfig
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError
from jaxmm.experiments.export import export, program
from jaxmm.methods import METHODS
from jaxmm.train.checkpoints import flatten
from jaxmm.train.predictions import predict_split
from jaxmm.train.restore import restore
from jaxmm.train.schedule import train
from jaxmm.train.setup import Run, build, init_state

ONE = jax.devices()[:1]
README = pathlib.Path(jaxmm.__file__).parents[1] / "README.md"
# Rounding: products of another number of rows, and parameters that the compiler knows.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(name="workdir", scope="module")
def make_workdir(make_dataset, make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "mine"
    train(make_config("mla", epochs=1), workdir, dataset=make_dataset(missing=True), devices=ONE, progress=False)
    return workdir


@pytest.fixture(name="run", scope="module")
def make_run(workdir):
    return restore(workdir, data=None, devices=ONE)


def untrained(config, dataset) -> Run:
    setup = build(config, dataset=dataset, devices=ONE)
    return Run(setup, init_state(setup), [])


def check_equal(run, call, batch):
    """All heads where they mean something, for all rows at once and for one."""
    expected = predict_split(run.setup, run.state, batch)
    for rows in (slice(None), slice(3, 4)):
        part = take(batch, rows)
        found = call(part["inputs"], part["present"])
        assert set(found) == set(expected)
        for head, z in expected.items():
            there = part["present"].get(head, np.ones(len(part["label"]), bool))
            assert found[head].dtype == np.float32
            np.testing.assert_allclose(found[head][there], z[rows][there], **CLOSE)


def test_the_program_predicts_what_the_run_does(run, workdir, make_dataset, tmp_path):
    said = export(run, tmp_path / "a/b", "stablehlo")
    assert said.startswith(f"mla on tiny, step 4 -> {tmp_path}/a/b/model.stablehlo (")
    content = (tmp_path / "a/b/model.stablehlo").read_bytes()
    about = json.loads((tmp_path / "a/b/export.json").read_text())
    assert about["sha256"] == hashlib.sha256(content).hexdigest()
    assert about["names"] == ["class 0", "class 1", "class 2"] and about["task"] == "classification"
    assert about["inputs"] == {"image": {"shape": [5], "dtype": "float32"},
                               "sound": {"shape": [3], "dtype": "float32"}}
    assert about["outputs"] == {"image": [3], "sound": [3], "fused": [3]}
    exported = jax.export.deserialize(bytearray(content))
    assert list(exported.platforms) == about["platforms"] == ["cpu", "cuda", "tpu"]
    batch = make_dataset(rows=(32, 16, 21), missing=True, seed=4).splits["test"]
    batch["inputs"]["sound"][~batch["present"]["sound"]] = np.nan       # what is missing may hold anything
    check_equal(run, exported.call, batch)


def test_preprocessing_is_inside_and_texts_are_ids(make_config, tmp_path):
    rng = np.random.default_rng(0)
    inputs = {"sound": rng.integers(-9000, 9000, (24, 80)).astype(np.int16),
              "image": rng.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8),
              "text": rng.integers(1, 7, (24, 4)).astype(np.int32), "time": rng.normal(size=(24, 2))}
    split = make_batch(inputs, np.arange(24) % 3)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c")
    dataset = Dataset("raw", {s: split for s in ("train", "val", "test")}, ("x", "y", "z"), {"text": 7},
                      {"text": words})
    config = make_config("late", modalities=())
    config.data = DataConfig(preprocess={
        "sound": SpectrogramConfig(rate=80, seconds=1, n_fft=16, hop=8), "image": FramesConfig(
            height=8, width=8, size=6)})
    for m, name in (("sound", "mlp"), ("image", "mlp"), ("text", "bag"), ("time", "mlp")):
        config.encoders[m] = EncoderConfig(name=name, width=4, depth=1)
    run = untrained(config, dataset)
    said = export(run, tmp_path, "stablehlo")
    about = json.loads((tmp_path / "export.json").read_text())
    assert said.splitlines()[1].startswith("text: token ids go in, as the vocabulary in export.json has them")
    assert about["inputs"]["sound"] == {"shape": [80], "dtype": "int16"}
    assert about["inputs"]["text"] == {"shape": [4], "dtype": "int32", "tokens": 7, "vocabulary": [*words]}
    exported = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    with jax.enable_x64(True):      # for "time"
        check_equal(run, exported.call, split)


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if not entry.dense])
def test_every_method_is_a_program_for_any_number_of_rows(name, make_dataset, make_config):
    """Traced alone, which takes no compilation."""
    maps = "mmtm" in name or name == "rubi"
    dataset = make_dataset({"sound": (8, 8, 2), "image": (8, 8, 3)} if maps else None)
    encoder = EncoderConfig(name="cnn", width=4) if maps else None
    setup = build(make_config(name, encoder=encoder), dataset=dataset, devices=ONE)
    state = jax.tree.map(lambda x: x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
                         else np.zeros(x.shape, x.dtype), jax.eval_shape(lambda: init_state(setup)))
    exported, inputs = program(Run(setup, state, []))
    heads = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert set(inputs) | {"fused"} <= set(heads)
    assert all(str(x.shape) == "(rows, 3)" for x in heads.values())


def test_64_bits_are_normalised_before_they_are_rounded(make_config):
    """1e9 + a few: float32 would not tell the rows apart."""
    rng = np.random.default_rng(0)
    far = 1e9 + rng.normal(size=(24, 3))
    dataset = Dataset("far", {s: make_batch({"far": far}, np.arange(24) % 3) for s in ("train", "val", "test")},
                      ("x", "y", "z"))
    run = untrained(make_config("unimodal", modalities=("far",)), dataset)
    exported, inputs = program(run)
    assert inputs["far"].dtype == np.float64
    with jax.enable_x64(True):
        check_equal(run, exported.call, dataset.splits["test"])
    whole = dataset._replace(splits={s: b | {"inputs": {"far": np.round(b["inputs"]["far"] * 2**20).astype(int)}}
                                     for s, b in dataset.splits.items()})
    with pytest.raises(UserError, match="far is int64, whose numbers are normalised in more than 64 bits"):
        program(untrained(run.setup.config, whole))


def test_the_readme_serves_it_without_jaxmm(run, workdir, make_dataset, tmp_path):
    export(run, tmp_path / "runs/mine/export", "stablehlo")
    batch = make_dataset(rows=(32, 16, 21), seed=4).splits["test"]
    np.savez(tmp_path / "NEW.npz", **batch["inputs"])
    section = README.read_text(encoding="utf-8").split("\n## Export\n")[1].split("\n## ")[0]
    script, = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    blocked = "import sys\nsys.modules['jaxmm'] = None\n"
    done = subprocess.run([sys.executable, "-c", blocked + script], cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    z = predict_split(run.setup, run.state, batch)
    assert done.stdout.splitlines() == [line for head in z for line in (
        head, *(f"class {k}" for k in z[head].argmax(1)))]


def test_safetensors_hold_the_parameters_and_what_they_mean(run, workdir, tmp_path):
    from safetensors import safe_open
    assert export(run, tmp_path, "safetensors").startswith(
        f"mla on tiny, step 4 -> {tmp_path}/model.safetensors (")
    expected = flatten({"params": run.state.params, "batch_stats": run.state.batch_stats})
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(expected) and "params/head/kernel" in expected
        for name, x in expected.items():
            np.testing.assert_array_equal(file.get_tensor(name), x, strict=True)
    assert json.loads(metadata["model"]) == json.loads((workdir / "model.json").read_text())
    assert json.loads(metadata["config"])["method"]["name"] == "mla" and metadata["step"] == "4"


def test_what_cannot_be_written_is_said(run, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--format='onnx'; expected one of stablehlo, safetensors"):
        export(run, tmp_path, "onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output=.*file is a file; name a folder"):
        export(run, tmp_path / "file", "safetensors")
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(UserError, match="^--format=stablehlo needs flatbuffers: pip install 'jaxmm.export.'$"):
        export(run, tmp_path / "new", "stablehlo")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
