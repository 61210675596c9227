"""A table of files, as users write it, becomes a prepared data set; or one line says why not."""
import csv
import dataclasses
import shutil
import types

import jax
import numpy as np
import pytest

from jaxmm import data
from jaxmm.config import DataConfig, FramesConfig, TextConfig
from jaxmm.data.dataset import by_number
from jaxmm.data.prepared import open_prepared
from jaxmm.data.rows import Rows
from jaxmm.errors import UserError
from jaxmm.prepare.decode import Options
from jaxmm.prepare.run import prepare, prepare_table

LABELS = {"classes": lambda i: ["cat", "dog"][i % 2], "labels": lambda i: ["a", "a|b", "c"][i % 3],
          "numbers": lambda i: f"{i / 4 - 1}"}


def make_rows(count=20, label=LABELS["classes"], **more):
    """Rows with a text of their own each; more columns by functions of the row."""
    return [{"id": f"x{i:02d}", "label": label(i), "text": f"word {i}"} | {k: f(i) for k, f in more.items()}
            for i in range(count)]


def write(path, rows, encoding="utf-8", **how):
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, rows[0], **how)
        writer.writeheader()
        writer.writerows(rows)
    return path


def labels_by_key(folder):
    return {r["key"]: r["label"] for split in open_prepared(folder).splits.values() for r in split}


def test_all_kinds_of_files_are_read_relative_to_the_table(layouts, tmp_path, monkeypatch):
    source, home = tmp_path / "source", tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    layouts.write_wav(home / "0.wav")
    layouts.write_wav(source / "s/1.wav", pitch=600)
    for i in (0, 1):
        layouts.write_image(source / f"i/{i}.jpg", (100 + i, 0, 0))
        layouts.write_frames(source / f"f/{i}", count=2 + i)
        layouts.write_video(source / f"v/{i}.mp4", seconds=1.0 + i)
        layouts.write_lines(source / f"t/{i}.txt", [f"text {i}"])
    np.save(source / "0.npy", np.arange(3.0))
    np.savez(source / "1.npz", np.arange(3.0) + 1)
    rows = [{"split": "training", "label": f"l{i}", "id": f"x{i}", "audio": ["~/0.wav", "s/1.wav"][i],
             "visual": f"i/{i}.jpg", "faces:frames": str(source / f"f/{i}"), "film:video": f"v/{i}.mp4",
             "text": f"t/{i}.TXT", "title:text": 'one, "two"; three', "pose:vector": ["0.npy", "1.npz"][i]} for i in (0, 1)]
    summary = prepare("table", write(source / "t.csv", rows, "utf-8-sig", delimiter="\t"), tmp_path / "out", progress=False)
    assert {m: (x["kind"], x["column"]) for m, x in summary["modalities"].items()} == {
        "audio": ("audio", "sound"), "visual": ("frames", "image"), "faces": ("frames", "frames"),
        "film": ("frames", "video"), "text": ("text", "text"), "title": ("text", "text"), "pose": ("features", "vector")}
    assert summary["notes"]["title: the cell is the text"]["count"] == 2
    assert not summary["drawn"]
    first, second = open_prepared(tmp_path / "out/table").splits["train"]
    assert (first["key"], first["label"], second["label"]) == ("x0", 0, 1)
    assert second["inputs"]["text"] == "text 1" and second["inputs"]["title"] == 'one, "two"; three'
    np.testing.assert_array_equal(second["inputs"]["pose"], [1, 2, 3])
    assert [len(r["inputs"][m]) for r in (first, second) for m in ("faces", "film", "visual")] == [2, 1, 1, 3, 2, 1]
    assert first["inputs"]["audio"].rate == layouts.RATE


@pytest.mark.parametrize("delimiter, quoting", [(",", csv.QUOTE_MINIMAL), (";", csv.QUOTE_ALL), ("\t", csv.QUOTE_ALL)])
def test_separators_quotes_and_dictionaries_give_the_same(delimiter, quoting, tmp_path):
    rows = make_rows(label=lambda i: ["a; \"b\", c\nd", "é"][i % 2], text=lambda i: f'say "{i}", or;\tnot')
    prepare("table", write(tmp_path / "t.csv", rows, delimiter=delimiter, quoting=quoting), tmp_path / "csv",
            progress=False)
    frame = types.SimpleNamespace(to_dict=lambda how: rows if how == "records" else None)      # as of pandas
    summary = prepare_table(frame, tmp_path / "rows", progress=False)
    assert summary["class_names"] == ["a; \"b\", c\nd", "é"]
    assert labels_by_key(tmp_path / "csv/table") == labels_by_key(tmp_path / "rows/table")
    assert {r["inputs"]["text"] for r in open_prepared(tmp_path / "csv/table").splits["test"]} <= {
        row["text"] for row in rows}


@pytest.mark.parametrize("variant", ["", "named"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_classes_labels_or_numbers(kind, variant, tmp_path):
    rows = make_rows(label=LABELS[kind])
    summary = prepare_table(rows, tmp_path, options=Options(variant=kind if variant else ""), progress=False)
    said, = (note for note in summary["notes"] if note.startswith("labels taken as"))
    assert said == {"classes": "labels taken as one of 2 classes: cat, dog", "numbers": "labels taken as numbers from "
                    "-1 to 3.75", "labels": "labels taken as any of 3 labels: a, b, c"}[kind]
    expected = {"classes": lambda i: i % 2, "numbers": lambda i: [i / 4 - 1],
                "labels": lambda i: [[1, 0, 0], [1, 1, 0], [0, 0, 1]][i % 3]}[kind]
    found = labels_by_key(tmp_path / summary["name"])
    assert {key: np.asarray(x).tolist() for key, x in found.items()} == {f"x{i:02d}": expected(i) for i in range(20)}
    config = DataConfig(name="table", path=str(tmp_path / summary["name"]), preprocess={"text": TextConfig(length=4)})
    label = data.load(config).splits["test"]["label"]
    assert label.dtype == {"classes": np.int32, "labels": bool, "numbers": np.float32}[kind]


@pytest.mark.parametrize("variant, label, expected", [
    ("", lambda i: str(i % 2), [0, 1]), ("numbers", lambda i: str(i % 2), [[0], [1]]),
    ("classes", lambda i: ["0.5", "1.5|"][i % 2], [0, 1]), ("labels", lambda i: ["", "a"][i % 2], [[0], [1]])])
def test_a_variant_settles_what_labels_are(variant, label, expected, tmp_path):
    summary = prepare_table(make_rows(label=label), tmp_path, options=Options(variant=variant), progress=False)
    found = labels_by_key(tmp_path / summary["name"])
    assert [np.asarray(found[f"x{i:02d}"]).tolist() for i in (0, 1)] == expected


def test_a_split_is_drawn_with_the_shares_of_classes_and_whole_groups(tmp_path):
    rows = make_rows(40, group=lambda i: f"g{i // 2}")
    summary = prepare_table(rows, tmp_path / "a", progress=False)
    assert {s: part["classes"] for s, part in summary["splits"].items()} == {
        "train": {"cat": 16, "dog": 16}, "test": {"cat": 4, "dog": 4}}
    assert summary["notes"]["drawn for test by seed 0, as the table has no splits"]["count"] == 8
    prepared = open_prepared(tmp_path / "a/table")
    groups = {split: {int(r["key"][1:]) // 2 for r in records} for split, records in prepared.splits.items()}
    assert not groups["train"] & groups["test"] and len(groups["test"]) == 4
    for split, records in prepared.splits.items():      # as `folds` will have them
        pairs = {(number, int(r["key"][1:]) // 2) for number, r in zip(prepared.groups([split]), records)}
        assert len(pairs) == len(groups[split])
    again = prepare_table(rows, tmp_path / "b", progress=False)
    assert again["fingerprint"] == summary["fingerprint"]
    with pytest.raises(UserError, match="is there already, made from other files or with other options"):
        prepare_table([row | {"group": "z" + row["group"]} for row in rows], tmp_path / "a", progress=False)


def test_folds_of_a_table_take_all_rows_in_turn(tmp_path):
    summary = prepare_table(make_rows(40, group=lambda i: f"g{i // 2}"), tmp_path, progress=False)
    config = DataConfig(name="table", path=str(tmp_path / "table"), folds=5, preprocess={"text": TextConfig(length=8)})
    prepared = open_prepared(tmp_path / "table")
    keys = [r["key"] for records in prepared.splits.values() for r in records]
    tested = []
    for fold in range(5):
        found = data.load(dataclasses.replace(config, fold=fold))
        splits = {s: [keys[i] for i in batch["id"]] for s, batch in found.splits.items()}
        assert {row[1:] for row in splits["test"]} == {k[1:] for k in splits["test"]}
        tested += splits["test"]
        assert np.bincount(found.splits["test"]["label"]).tolist() == [4, 4]
        # What is tested is not known in training: numbers of its texts are pieces, not words.
        test = [int(key[1:]) for key in splits["test"]]
        assert not {f"{i}" for i in test if i > 9} & set(found.vocabularies["text"])
    assert sorted(tested) == [f"x{i:02d}" for i in range(40)] == sorted(keys)
    assert summary["drawn"]
    prepare_table(make_rows(split=lambda i: ["train", "test"][i // 10]), tmp_path / "given", progress=False)
    with pytest.raises(UserError, match="has the splits train, test; folds are for a table without the column split"):
        data.load(dataclasses.replace(config, path=str(tmp_path / "given/table")))


def test_folds_are_read_once(layouts, tmp_path):
    """Each is that which is read alone, also when the records are gone."""
    for i in range(12):
        layouts.write_image(tmp_path / f"{i}.jpg", (20 * i, 0, 100))
    rows = write(tmp_path / "t.csv", make_rows(12, visual=lambda i: f"{i}.jpg"))
    prepare("table", rows, tmp_path, progress=False)
    config = DataConfig(name="table", path=str(tmp_path / "table"), folds=3, preprocess={
        "text": TextConfig(length=8), "visual": FramesConfig(height=8, width=8, size=8)})
    alone = [data.load(dataclasses.replace(config, fold=fold)) for fold in range(3)]
    keys = [r["key"] for records in open_prepared(tmp_path / "table").splits.values() for r in records]
    streamed = data.load_folds(dataclasses.replace(config, placement="host"))
    load = data.load_folds(config)
    shutil.rmtree(tmp_path / "table")
    for fold, expected in enumerate(alone):
        found = load(fold)
        jax.tree.map(np.testing.assert_array_equal, found.splits, expected.splits)
        assert found._replace(splits={}) == expected._replace(splits={})
        test = found.splits["test"]
        red = np.round(test["inputs"]["visual"][:, 4:, 4:, 0].mean((1, 2)) / 20)
        assert [keys[i] for i in test["id"]] == [f"x{n:02.0f}" for n in red]
    assert isinstance(streamed(0).splits["test"]["inputs"]["visual"], Rows)


def test_what_is_missing_is_named_with_the_path_that_was_looked_for(layouts, tmp_path):
    for i in range(20):
        layouts.write_image(tmp_path / f"{i}.jpg", (i, 0, 100))
    rows = make_rows(visual=lambda i: f"{i}.jpg")
    (tmp_path / "7.jpg").unlink()
    source = write(tmp_path / "t.csv", rows)
    summary = prepare("table", source, tmp_path / "out", progress=False)
    assert summary["skipped"] == {"no visual: no such file": {"count": 1, "first": ["x07"]}}
    lines = (tmp_path / "out/table/1.1.0/skipped.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 and lines[0].split("\t")[1:] == ["x07", "no visual: no such file", f"{tmp_path}/7.jpg"]
    (tmp_path / "8.jpg").unlink()
    with pytest.raises(UserError, match=rf"2 of 20 examples would be left out.*\({tmp_path}/7.jpg\).*--allow_skipped=0.1"):
        prepare("table", source, tmp_path / "more", progress=False)
    summary = prepare("table", source, tmp_path / "kept", allow_missing=True, progress=False)
    assert summary["used"] == 20 and summary["modalities"]["visual"]["present"] == 18


LONE = {"label": "a", "text": "b"}


@pytest.mark.parametrize("rows, message", [
    ([], "rows has the columns none; expected label and at least one modality: audio, visual, text or NAME:KIND"),
    ([{"text": "a"}], "has the columns text; expected label"),
    ([LONE, LONE | {"id": "3"}], "rows: row 1 has the columns id, label, text; expected those of the first, label, text"),
    ([LONE | {"lable": "a"}], "unknown column 'lable'; did you mean label"),
    ([LONE | {"x:sounds": "a"}], "unknown column 'x:sounds'; .*NAME:KIND with a kind of sound, image, video"),
    ([LONE | {"head:vector": "a"}], "the column 'head:vector' cannot be a modality called 'head'"),
    ([LONE | {"text:text": "a"}], "the column 'text:text' cannot be a modality called 'text'"),
    ([LONE, LONE | {"label": float("nan")}], "rows: row 1 has no label"),
    ([LONE | {"label": None}], "rows: row 0 has no label"),
    ([LONE | {"id": "x"}, LONE | {"id": "x"}], "rows: row 1 has the id 'x', as row 0 has"),
    ([LONE | {"id": ""}], "rows: row 0 has no id"),
    ([LONE | {"group": ""}], "rows: row 0 has no group"),
    ([LONE | {"split": "tset"}], "rows: row 0 has the split 'tset'; expected one of train, training, val"),
    ([LONE | {"label": "a||b"}], r"rows: row 0 has the label 'a\|\|b'; expected names separated by"),
    ([LONE | {"label": "a|a"}], "none empty and none twice"),
    ([LONE | {"text": "a.txt", "split": "val"}, LONE | {"split": "val"}], "rows: row 1: text is 'b', and in other rows a .txt file"),
    ([LONE | {"text": np.zeros(2)}], "rows: row 0 has ndarray as text; expected text, a path or a number"),
    ([LONE, LONE], "rows has 2 rows, too few for 5 parts; add some, or give it the column split"),
])
def test_what_is_wrong_with_a_table_is_one_line(rows, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        prepare_table(rows, tmp_path / "out", progress=False)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content, message", [
    ("label,text\nä,b\n".encode("latin-1"), "line 2 is not UTF-8 .byte 0xe4.; save the file as UTF-8"),
    ("label,text\n".encode("utf-16"), "line 1 is not UTF-8"),
    (b"label,text\na,b,c\n", "line 2 has 3 cells, the first line 2; quote cells that hold the separator"),
    (b'label,text\na,"b\n', "line 2 is not CSV"),
    (b"label,text,label\na,b,c\n", "has two columns 'label'"),
    (b"label,text\n", "has no rows; expected one for each example"),
    (b"", "has the columns none"),
])
def test_files_that_are_no_table_are_refused(content, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        prepare("table", tmp_path / "t.csv", tmp_path / "out", progress=False)
    with pytest.raises(UserError, match="--source=.*none.csv: no such file; expected the CSV file"):
        prepare("table", tmp_path / "none.csv", tmp_path / "out", progress=False)


@pytest.mark.parametrize("label, message", [
    (lambda i: f"{i},5", "row 0 has the label '0,5'; write numbers with a point, as 1.5, or pass --variant=classes"),
    (lambda i: ["0.5", "n/a", "2"][i % 3], "row 1 has the label 'n/a', where others are numbers; fix it, or pass"),
])
def test_numbers_that_cannot_be_read_are_no_classes(label, message, tmp_path):
    with pytest.raises(UserError, match=message):
        prepare_table(make_rows(label=label), tmp_path / "out", progress=False)
    options = Options(variant="classes")
    assert prepare_table(make_rows(label=label), tmp_path / "out", options=options, allow_skipped=1, progress=False)[
        "class_names"] == sorted({label(i) for i in range(20)}, key=by_number)


@pytest.mark.parametrize("label", ["1,5", "1e39", "1_0", "inf"])
def test_numbers_are_numbers(label, tmp_path):
    with pytest.raises(UserError, match=f"row 0 has the label '{label}'; expected a number"):
        prepare_table(make_rows(label=lambda i: label), tmp_path, options=Options(variant="numbers"), progress=False)
