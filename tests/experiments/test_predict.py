"""Predictions for new rows: those of the model, in whole files, and bad rows in one line."""
import csv
import json
import types
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxmm import data
from jaxmm.batch import make_batch
from jaxmm.config import Config, DataConfig, FramesConfig, SpectrogramConfig, TextConfig, TrainConfig
from jaxmm.data.dataset import Form
from jaxmm.data.new_rows import fit, read_blocks
from jaxmm.data.rows import Rows
from jaxmm.data.spec import from_json, make_spec, to_json
from jaxmm.errors import UserError
from jaxmm.experiments import predict
from jaxmm.prepare.decode import Options
from jaxmm.prepare.run import prepare_table
from jaxmm.train.schedule import train
from jaxmm.train.restore import restore
from jaxmm.train.predictions import predict_split, split_features
from jaxmm.train.setup import build

ONE = jax.devices()[:1]


@pytest.fixture(name="run", scope="module")
def make_run(make_dataset, make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(make_config("mla", epochs=1), workdir, dataset=make_dataset(missing=True), devices=ONE,
          progress=False)
    return restore(workdir, data=None, devices=ONE)


@pytest.fixture(name="rows")
def make_rows(make_dataset):
    """Rows as they lie in a file, of which the last block is not full."""
    return dict(make_dataset(rows=(32, 16, 21), seed=4).splits["test"]["inputs"])


def run_on(run, folder, arrays, *, output="out.csv", embeddings=None, split="", probabilities=False):
    np.savez(folder / "new.npz", **arrays)
    said = predict.predict(run, str(folder / "new.npz"), split, folder / output,
                           embeddings and folder / embeddings, probabilities)
    assert not list(folder.glob("*.part")) and not list(folder.glob(".*"))
    return said


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_the_table_has_what_the_heads_say(run, rows, tmp_path):
    present = {"sound": np.arange(21) % 3 > 0}
    rows["sound"][~present["sound"]] = np.nan       # what is missing may hold anything
    arrays = rows | {"present/sound": present["sound"], "id": np.array([f"clip {i}" for i in range(21)]),
                     "label": np.zeros(21)}
    said = run_on(run, tmp_path, arrays, embeddings="features.npz", probabilities=True)
    assert said == f"21 rows of {tmp_path}/new.npz -> {tmp_path}/out.csv"
    batch = make_batch(rows, np.zeros(21, int), present=present)
    z = predict_split(run.setup, run.state, batch)
    table = read_csv(tmp_path / "out.csv")
    assert list(table[0]) == ["id"] + [
        f"{h}/{c}" for h in ("image", "sound", "fused") for c in (
            "class", "entropy", *(f"probability/class {k}" for k in range(3)), "weight")
        if (h, c) != ("fused", "weight")]
    entropy = {}
    for head in z:
        p = softmax(z[head].astype(float))
        entropy[head] = -(p * np.log(p)).sum(1)
    for i, row in enumerate(table):
        assert row["id"] == f"clip {i}"
        for head in ("image", "fused", *["sound"] * bool(present["sound"][i])):
            assert row[f"{head}/class"] == f"class {z[head][i].argmax()}"
            assert float(row[f"{head}/entropy"]) == pytest.approx(entropy[head][i], abs=1e-5)
            assert [float(row[f"{head}/probability/class {k}"]) for k in range(3)] == pytest.approx(
                softmax(z[head].astype(float))[i], abs=1e-5)
        if present["sound"][i]:         # equation 7
            certainty = {m: np.exp(-entropy[m][i]) for m in ("image", "sound")}
            assert float(row["image/weight"]) == pytest.approx(
                certainty["image"] / sum(certainty.values()), abs=1e-5)
        else:
            assert {v for k, v in row.items() if k.startswith("sound/")} == {""}
            assert float(row["image/weight"]) == 1
    features = split_features(run.setup, run.state, batch)
    with np.load(tmp_path / "features.npz") as file:
        assert file["id"][3] == "clip 3"
        np.testing.assert_array_equal(np.isnan(file["sound"]).all(1), ~present["sound"])
        np.testing.assert_allclose(file["sound"][present["sound"]], features["sound"][present["sound"]],
                                   rtol=1e-5)
        np.testing.assert_allclose(file["image"], features["image"], rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_rows_are_predicted_alike_however_they_come(run, rows, tmp_path, count):
    """One alone, with others, without a modality, in Fortran order, as float64, by split, on two devices."""
    if count == 2:
        setup = run.setup
        setup = build(setup.config, dataset=setup.dataset, spec=setup.spec, devices=jax.devices()[:2])
        run = run._replace(setup=setup, state=setup.programs.place(run.setup.programs.fetch(run.state)))

    def classes(arrays, **options):
        run_on(run, tmp_path, arrays, output="out.npz", probabilities=True, **options)
        with np.load(tmp_path / "out.npz") as file:
            return {k: file[k] for k in file.files}

    whole = classes(rows)
    assert whole["names"].tolist() == ["class 0", "class 1", "class 2"]
    assert whole["id"].tolist() == list(range(21)) and whole["fused/probability"].shape == (21, 3)
    alone = classes({m: x[20:] for m, x in rows.items()})
    for arrays, split in (({m: np.asfortranarray(x).astype(float) for m, x in rows.items()}, ""),
                          ({f"test/{m}": x for m, x in rows.items()}, "")):
        other = classes(arrays, split=split)
        for k in whole.keys() - {"names"}:
            np.testing.assert_array_equal(other[k], whole[k])
    for k in whole.keys() - {"id", "names"}:
        assert alone[k].tobytes() == whole[k][20:].tobytes()
    image = classes({"image": rows["image"]})
    np.testing.assert_array_equal(image["image/class"], whole["image/class"])
    assert (image["sound/class"] == -1).all() and np.isnan(image["sound/probability"]).all()
    np.testing.assert_array_equal(image["fused/class"], image["image/class"])


def with_(**changes):
    def change(rows):
        rows.update({m: fn(rows[m].copy()) for m, fn in changes.items()})
        return rows
    return change


def nan_at(row):
    def change(x):
        x[row, 1] = np.nan
        return x
    return change


@pytest.mark.parametrize("change, said", [
    (with_(sound=nan_at(17)), "new.npz/sound has values that are not finite .* first row 17;"),
    (with_(sound=lambda x: x[:, :2]),
     r"new.npz: sound has rows of shape \(2,\); the model was trained on rows of shape \(3,\)"),
    (with_(sound=lambda x: x[:20]), "new.npz: sound has 20 rows, image has 21"),
    (with_(sound=lambda x: np.round(x).astype(int)), "new.npz: sound holds integers .int64., train/sound"),
    (with_(sound=lambda x: x.astype(str)), "new.npz: sound is <U[0-9]*; expected numbers"),
    (with_(sound=lambda x: x.astype(float) * 1e300),
     "new.npz: sound has the value .* in row 0, which float32 does not hold"),
    (lambda r: r | {"smell": r["sound"]}, "'smell' is not a modality of the model; expected one of image,"),
    (lambda r: {"present/sound": np.ones(21)}, "has no modality of the model; expected one of image"),
    (lambda r: r | {"present/smell": np.ones(21)}, "present/smell names no modality; expected one of"),
    (lambda r: r | {"present/sound": np.ones(20)}, "present/sound has 20 rows, image has 21"),
    (lambda r: r | {"present/sound": np.full(21, 2)}, "expected True or False"),
    (lambda r: r | {"present/sound": np.arange(21) != 9, "present/image": np.arange(21) != 9},
     "1 rows without any modality, the first row 9"),
    (lambda r: {m: x[:0] for m, x in r.items()}, "image has no rows"),
    (lambda r: r | {"id": np.ones((21, 2))}, "id is float64 of shape"),
    (lambda r: {f"{s}/{m}": x for m, x in r.items() for s in ("val", "test")},
     "has the splits val, test; name one by --split"),
    (lambda r: r | {"sound": np.array([None] * 21)}, "pickled Python objects"),
])
def test_bad_rows_are_named_and_nothing_is_written(run, rows, tmp_path, change, said):
    arrays = change({m: rows[m] for m in sorted(rows)})
    with pytest.raises(UserError, match=said) as error:
        run_on(run, tmp_path, arrays, embeddings="features.npz")
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["new.npz"]


def test_a_file_that_is_cut_short_leaves_what_was_there(run, rows, tmp_path):
    (tmp_path / "out.csv").write_text("of before")
    np.savez(tmp_path / "new.npz", **rows)
    content = bytearray((tmp_path / "new.npz").read_bytes())
    content[content.index(rows["sound"].tobytes()) + 200] ^= 1      # in the last rows
    (tmp_path / "new.npz").write_bytes(content)
    with pytest.raises(UserError, match="new.npz: is damaged or cut short .BadZipFile: Bad CRC-32"):
        predict.predict(run, str(tmp_path / "new.npz"), "", tmp_path / "out.csv", None, False)
    assert (tmp_path / "out.csv").read_text() == "of before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.npz", "out.csv"]


def test_scale_is_that_of_all_rows(run, rows, tmp_path):
    """Fractions where bytes were learned are refused; a block of dark bytes is none."""
    forms = {m: f._replace(most=255.0, whole=True) for m, f in run.setup.spec.forms.items()}
    spec = run.setup.spec._replace(forms=forms)
    np.savez(tmp_path / "f.npz", sound=np.full((9, 3), 0.5, np.float32))
    with pytest.raises(UserError, match="f.npz: sound reaches 0.5, train/sound of the run 255: one holds"):
        list(read_blocks(str(tmp_path / "f.npz"), spec, run.setup.config.data, 4))
    np.savez(tmp_path / "b.npz", sound=np.array([[0, 1, 1]] * 8 + [[0, 200, 3]], np.float32))
    blocks = list(read_blocks(str(tmp_path / "b.npz"), spec, run.setup.config.data, 4))
    assert [batch["id"].tolist() for _, batch in blocks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_numbers_are_fitted_to_the_type_that_was_trained_on():
    form = Form((2,), np.dtype(np.uint8), 255.0, True)
    np.testing.assert_array_equal(fit("x", np.array([[1, 255]]), form), np.array([[1, 255]], np.uint8))
    with pytest.raises(UserError, match="x has the value 256 in row 8, which uint8 does not hold"):
        fit("x", np.array([[1, 255], [3, 256]]), form, 7)
    wide = np.array([[1.0, 1e300], [0.1, 2]])       # what is missing may hold anything
    small = form._replace(dtype=np.dtype(np.float32))
    assert fit("x", wide, small, present=np.array([0, 1])).dtype == np.float32
    with pytest.raises(UserError, match="1e.300 in row 0, which float32 does not hold"):
        fit("x", wide, small, present=np.array([1, 1]))
    half = np.ones((1, 2), np.float16)
    assert fit("x", half, small) is half


def test_files_are_read_in_constant_memory(run, tmp_path, monkeypatch):
    """No more than a block at a time is asked of the file, or handed out."""
    import zipfile
    sizes, read = [], zipfile.ZipExtFile.read
    rng = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "n.npz", sound=rng.normal(size=(10_000, 3)).astype(np.float32))
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: (sizes.append(n), read(self, n))[1])
    blocks = read_blocks(str(tmp_path / "n.npz"), run.setup.spec, run.setup.config.data, 64)
    assert sum(len(names) for names, _ in blocks) == 10_000
    assert max(sizes) == 64 * 3 * 4 and min(sizes) > 0


def test_files_to_write(tmp_path):
    data = tmp_path / "d.npz"
    for output, embeddings, said in [
            (tmp_path / "o.txt", None, "--output=.*o.txt; expected a file that ends in .csv or .npz"),
            (tmp_path / "no/o.csv", None, "there is no folder .*no; make it"),
            (data, None, "name the same file"), (tmp_path / "o.csv", data, "name the same file"),
            (tmp_path / "o.csv", tmp_path / "e.csv", "--embeddings=.*e.csv; expected a file that ends in")]:
        with pytest.raises(UserError, match=said):
            predict.check_outputs(data, output, embeddings)


@pytest.fixture(name="tabled", scope="module")
def make_tabled(layouts, tmp_path_factory):
    """(folder of a table of all kinds of files, its rows, and what a run on it has, but for a model)."""
    folder, rows = tmp_path_factory.mktemp("tabled"), []
    for i in range(10):
        layouts.write_wav(folder / f"{i}.wav", pitch=300 + 20 * i, rate=8000, channels=1 + i % 2)
        layouts.write_image(folder / f"{i}.png", (20 * i, 100, 50))
        layouts.write_frames(folder / f"frames/{i}", count=2 + i % 2)
        layouts.write_video(folder / f"{i}.mp4", seconds=1 + i / 10, sound=False)
        np.save(folder / f"{i}.npy", np.arange(3.0) * i)
        rows.append({"split": ["train", "test"][i // 6], "label": "ab"[i % 2], "id": f"x{i}", "audio": f"{i}.wav",
                     "visual": f"{i}.png", "faces:frames": f"frames/{i}", "film:video": f"{i}.mp4",
                     "text": f"words, {i} of them", "pose:vector": f"{i}.npy"})
    prepare_table(rows, folder / "out", folder, options=Options(16000, 2.0, 12), progress=False)
    images = FramesConfig(height=8, width=8, size=8)
    sections = {"audio": SpectrogramConfig(rate=4000, seconds=0.2, n_fft=32, hop=16), "visual": images,
                "faces": replace(images, frames=2), "film": replace(images, frames=2), "text": TextConfig(length=6)}
    config = Config(data=DataConfig(name="table", path=str(folder / "out/table"), preprocess=sections),
                    train=TrainConfig(batch_size=3))
    dataset = data.load(config.data)
    spec = make_spec(dataset, None, [np.arange(3)], {}, sections)
    return folder, rows, types.SimpleNamespace(spec=from_json(json.loads(json.dumps(to_json(spec)))), config=config), dataset


def read_table(tabled, rows, split=""):
    folder, _, setup, _ = tabled
    with open(folder / "new.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return list(predict.blocks_of(setup, str(folder / "new.csv"), split))


def without(row, *columns):
    return {k: v for k, v in row.items() if k not in columns}


def test_files_of_a_table_are_read_as_in_training(tabled):
    *_, rows, setup, dataset = tabled
    test = dataset.splits["test"]
    blocks = read_table(tabled, rows, "test")
    assert [list(names) for names, _ in blocks] == [["x6", "x7", "x8"], ["x9"]]
    for m, x in test["inputs"].items():
        expected = x[np.arange(4)] if isinstance(x, Rows) else x
        for (_, batch), part in zip(blocks, (expected[:3], expected[3:])):
            np.testing.assert_array_equal(batch["inputs"][m], part, err_msg=m)
            assert batch["inputs"][m].dtype == x.dtype and batch["present"][m].all()
    # Cells may be empty and columns absent, and there need be no ids.
    (names, batch), = read_table(tabled, [without(row, "split", "label", "id", "film:video") | {
        "audio": row["audio"] * (row["id"] != "x7")} for row in rows[6:8]])
    assert list(names) == ["line 2", "line 3"]
    assert {m: x.tolist() for m, x in batch["present"].items()} == {
        m: [m != "film", m not in ("film", "audio")] for m in setup.spec.modalities}
    np.testing.assert_array_equal(batch["inputs"]["text"], test["inputs"]["text"][:2])


@pytest.mark.parametrize("change, message", [
    ({"audio": "none.wav"}, r"line 3: audio: no such file \(/.*/none.wav\); give its path, or leave the cell empty"),
    ({"visual": "0.wav"}, r"line 3: visual is broken \(/.*/0.wav: ValueError: 0.wav: "),
    ({"pose:vector": "wide.npy"}, "new.csv: pose has rows of shape \\(4,\\); the model was trained on rows of shape \\(3,\\)"),
    ({"id": "x0"}, "line 3 has the id 'x0', as line 2 has"),
    ({m: "" for m in ("audio", "visual", "faces:frames", "film:video", "text", "pose:vector")},
     "1 rows without any modality, the first row 1"),
], ids=lambda value: None if isinstance(value, str) else next(iter(value)))
def test_a_bad_row_of_a_table_is_one_line(tabled, change, message):
    folder, rows, *_ = tabled
    np.save(folder / "wide.npy", np.arange(4.0))
    rows = [without(row, "split") for row in rows[:2]]
    with pytest.raises(UserError, match=message):
        read_table(tabled, [rows[0], rows[1] | change])


@pytest.mark.parametrize("columns, split, message", [
    (["film:frames"], "", "the column 'film:frames' is of the kind frames, in training video; call it film:video"),
    (["smell:vector"], "", "'smell' is not a modality of the model"),
    (["id"], "", "has the columns id; expected at least one modality: audio, visual, text or NAME:KIND"),
    (["lable", "text"], "", "unknown column 'lable'; did you mean label"),
    (["text", "split"], "", "has the splits test, train; name one by --split"),
    (["text", "split"], "val", "has the splits test, train; name one by --split"),
    (["text"], "test", "--split=test: .*new.csv has no column split"),
])
def test_a_table_of_other_columns_is_one_line(tabled, columns, split, message):
    with pytest.raises(UserError, match=message):
        read_table(tabled, [{c: ["train", "test"][i] if c == "split" else f"{c} {i}" for c in columns} for i in (0, 1)],
                   split)


def test_other_runs_do_not_take_tables(run, tmp_path):
    (tmp_path / "new.csv").write_text("text\na\n")
    with pytest.raises(UserError, match="is a table of files, and the model was not trained on one"):
        predict.blocks_of(run.setup, str(tmp_path / "new.csv"), "")
