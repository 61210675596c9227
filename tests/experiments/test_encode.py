"""Features computed once are what the encoders compute in training, and data to train on."""
import json

import jax
import numpy as np
import pytest

from jaxmm import data
from jaxmm.commands import encode as command
from jaxmm.config import AugmentConfig, DataConfig, EncoderConfig, PreprocessConfig
from jaxmm.data.prepared import checksum
from jaxmm.errors import UserError
from jaxmm.experiments import configs, encode
from jaxmm.train.predictions import split_features
from jaxmm.train.restore import restore
from jaxmm.train.schedule import train
from jaxmm.train.setup import init_state

ONE = jax.devices()[:1]
SIZES = {"train": 24, "val": 10, "test": 13}
LABELS = {"class": lambda n: np.array(["no", "yes", "maybe"])[np.arange(n) % 3],
          "labels": lambda n: np.arange(2 * n).reshape(n, 2) % 3 == 0,
          "numbers": lambda n: np.sin(np.arange(n))[:, None] * [1.0, -2.0]}


def write_arrays(path, label="class", absent=True):
    """Two modalities, one of which some rows lack, where it holds what is no number."""
    rng, arrays = np.random.default_rng(0), {}
    for split, n in SIZES.items():
        arrays |= {f"{split}/sound": rng.normal(size=(n, 3)).astype("f4"), f"{split}/image": rng.integers(0, 255, (n, 5)),
                   f"{split}/label": LABELS[label](n)}
        if absent:
            arrays[f"{split}/present/sound"] = np.arange(n) % 4 > 0
            arrays[f"{split}/sound"][~arrays[f"{split}/present/sound"]] = np.nan
    np.savez(path, **arrays)
    return path


def config_of(make_config, path, **options):
    config = make_config("concat", encoder=EncoderConfig(name="mlp", width=6, depth=1))
    config.data = DataConfig(name="arrays", path=str(path), **options)
    return config


def encoded(config, folder, devices=ONE):
    """The data set that is written for a config, and what is said of it."""
    said = encode.encode(encode.untrained(config, devices), folder, {}, progress=False)
    return data.load(DataConfig(name="arrays", path=str(next(folder.glob("*.npz"))))), said


@pytest.mark.parametrize("label", LABELS)
def test_all_splits_with_labels_and_masks(label, make_config, tmp_path):
    config = config_of(make_config, write_arrays(tmp_path / "mine.npz", label))
    found, said = encoded(config, tmp_path / "out", None if label == "class" else ONE)
    before, run = data.load(config.data), encode.untrained(config, ONE)
    assert (found.name, found.class_names) == ("mine", before.class_names)
    params = jax.device_get(run.setup.programs.fetch(run.state).params)
    for split, batch in before.splits.items():
        after = found.splits[split]
        for name in ("label", "id"):
            np.testing.assert_array_equal(after[name], batch[name])
            assert after[name].dtype == batch[name].dtype
        for m, x in batch["inputs"].items():
            present = batch["present"][m]
            np.testing.assert_array_equal(after["present"][m], present)
            rows = before.splits["train"]["inputs"][m][before.splits["train"]["present"][m]].astype(float)
            layer, = params[m].values()
            expected = np.maximum(((x - rows.mean(0)) / rows.std(0)) @ layer["kernel"] + layer["bias"], 0)
            np.testing.assert_allclose(after["inputs"][m][present], expected[present], rtol=1e-4, atol=1e-5)
            assert (after["inputs"][m][~present] == 0).all()
    about = json.loads((tmp_path / "out/encode.json").read_text())
    assert about["rows"] == SIZES and about["features"] == {"image": 6, "sound": 6}
    assert about["sha256"] == checksum(tmp_path / "out/mine.npz") and about["checksums"] == run.setup.checksums
    assert about["encoders"]["sound"]["name"] == "mlp"
    assert "random parameters" in said[1]
    suffix = {"class": "", "labels": ",labels", "numbers": ",numbers"}[label]
    assert f"--config=arrays:late{suffix} " in said[-1] and "--config.encoders.image.name=identity" in said[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.npz", "out"]


def test_neither_augmentation_nor_where_rows_lie_matters(make_config, tmp_path):
    path = write_arrays(tmp_path / "mine.npz")
    plain, _ = encoded(config_of(make_config, path), tmp_path / "a")
    config = config_of(make_config, path, placement="host")
    config.augment = {m: AugmentConfig(noise=1.0) for m in ("sound", "image")}
    other, _ = encoded(config, tmp_path / "b")
    jax.tree.map(np.testing.assert_array_equal, plain.splits, other.splits)


def test_a_trained_run(make_dataset, make_config, tmp_path):
    """Of the modality that it has; rows without it are left out."""
    dataset = make_dataset(missing=True)
    train(make_config("unimodal", epochs=1), tmp_path / "run", dataset=dataset, devices=ONE, progress=False)
    run = restore(tmp_path / "run", dataset=dataset, devices=ONE)
    m = run.setup.config.method.modality
    said = encode.encode(run, tmp_path / "out", {"step": 4}, progress=False)
    with np.load(tmp_path / "out/tiny.npz") as found:
        assert {name.partition("/")[2] for name in found.files} == {"", m, "label"}
        for split, batch in dataset.splits.items():
            there = batch["present"][m]
            np.testing.assert_array_equal(found[f"{split}/{m}"], split_features(run.setup, run.state, batch)[m][there])
            np.testing.assert_array_equal(found[f"{split}/label"], batch["label"][there])
            assert any(f"{(~there).sum()} of {len(there)} rows of {split} have none of {m}" in line for line in said)
    assert json.loads((tmp_path / "out/encode.json").read_text())["step"] == 4
    assert not any("random" in line for line in said)


def test_modalities_that_are_not_paired(make_config, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"{split}/{m}": rng.normal(size=(n, 3)) for split, n in SIZES.items() for m in ("sound", "image")}
    np.savez(tmp_path / "mine.npz", **arrays | {f"{name}/label": np.arange(len(x)) % 3 for name, x in arrays.items()})
    config = config_of(make_config, tmp_path / "mine.npz")
    found, _ = encoded(config, tmp_path / "out")
    before = data.load(config.data)
    for part in ("label", "present"):
        jax.tree.map(np.testing.assert_array_equal, *({s: b[part] for s, b in d.splits.items()} for d in (found, before)))


def test_training_on_features_is_training_with_frozen_encoders(make_config, tmp_path, capsys):
    """The features are those of the run, as the command computes them."""
    config = config_of(make_config, write_arrays(tmp_path / "mine.npz"))
    for encoder in config.encoders.values():
        encoder.frozen = True
    run = train(config, tmp_path / "frozen", devices=ONE, progress=False)
    command.FLAGS(["encode", f"--workdir={tmp_path}/frozen", f"--output={tmp_path}/out", "--noprogress"])
    command.main(configs.Chosen(configs.DEFAULT, config, {}), "")
    assert capsys.readouterr().out.startswith("mine, 24 rows of train, 10 rows of val, 13 rows of test; features: ")
    config = config_of(make_config, tmp_path / "out/mine.npz")
    for m in config.encoders:
        config.encoders[m] = EncoderConfig(name="identity")
        config.data.preprocess[m] = PreprocessConfig(mean=(0.0,), std=(1.0,))
    other = train(config, tmp_path / "other", devices=ONE, progress=False)
    heads = [jax.tree.leaves(r.state.params["head"]) for r in (run, other)]
    assert len(heads[0]) == len(heads[1]) > 0
    for x, y in zip(*heads):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    start = jax.tree.leaves(init_state(other.setup).params["head"])
    assert max(np.abs(x - y).max() for x, y in zip(start, heads[1])) > 0.01     # it has learnt


def test_nothing_is_left_where_it_fails(make_config, make_dataset, tmp_path):
    run = encode.untrained(config_of(make_config, write_arrays(tmp_path / "mine.npz")), ONE)
    broken = run._replace(state=jax.tree.map(lambda x: x * np.nan if x.dtype == np.float32 else x, run.state))
    with pytest.raises(UserError, match=r"train/\w+ has features that are not finite .* in \d+ rows, the first row [01];"):
        encode.encode(broken, tmp_path / "out", {}, progress=False)
    train(make_config("concat", epochs=1), tmp_path / "run", dataset=make_dataset(), devices=ONE, progress=False)
    with pytest.raises(UserError, match="the data it was trained on are needed"):
        encode.encode(restore(tmp_path / "run", data=None, devices=ONE), tmp_path / "out", {}, progress=False)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there exists"):
        encode.encode(run, tmp_path / "there", {}, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.npz", "run", "there"]
