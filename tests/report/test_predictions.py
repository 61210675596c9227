"""What the heads say of each row, for every kind of task."""
import csv

import numpy as np
import pytest

from jaxmm import task as tasks
from jaxmm.errors import WriteError
from jaxmm.report import predictions

PRESENT = {"image": np.array([True, True]), "sound": np.array([True, False])}


def table(task, outputs, path, names, **options):
    columns = predictions.describe(task, outputs, PRESENT, options.get("weights", {}),
                                   options.get("probabilities", True))
    with predictions.open_table(path, names) as add:
        add(["a", "=b"], columns)
    with open(path, newline="", encoding="utf-8") as file:
        return columns, list(csv.DictReader(file))


def test_classes(tmp_path):
    names = ("cat", "=dog()", "Ä, b")
    z = np.log(np.array([[0.25, 0.25, 0.5], [0, 1, 0]]) + 1e-30).astype(np.float32)
    columns, rows = table(tasks.classification(names), {"fused": z, "sound": z}, tmp_path / "p.csv", names,
                          weights={"sound": np.array([0.5, 0.0])})
    assert list(rows[0]) == ["id", "sound/class", "sound/entropy", *(f"sound/probability/{n}" for n in names),
                             "sound/weight", "fused/class", "fused/entropy",
                             *(f"fused/probability/{n}" for n in names)]
    assert [r["fused/class"] for r in rows] == ["Ä, b", "'=dog()"]      # never a formula
    assert [r["id"] for r in rows] == ["a", "'=b"]
    assert [float(r["fused/entropy"]) for r in rows] == pytest.approx([1.5 * np.log(2), 0], abs=1e-6)
    assert float(rows[0]["fused/probability/Ä, b"]) == columns["fused/probability"][0, 2]
    assert (rows[0]["sound/weight"], rows[1]["sound/weight"], rows[1]["sound/class"]) == ("0.5", "", "")


def test_labels_and_numbers(tmp_path):
    z = np.array([[2.0, -1.0, 0.5], [-1.0, -2.0, -3.0]], np.float32)
    _, rows = table(tasks.multilabel(("x", "y", "w")), {"sound": z}, tmp_path / "l.csv", "xyw")
    assert [r["sound/labels"] for r in rows] == ["x; w", ""]
    assert float(rows[0]["sound/probability/y"]) == pytest.approx(1 / (1 + np.e))
    assert rows[1]["sound/probability/y"] == ""
    _, rows = table(tasks.regression(("x", "y", "w")), {"fused": z}, tmp_path / "r.csv", "xyw")
    assert list(rows[0]) == ["id", "fused/value/x", "fused/value/y", "fused/value/w"]
    assert [[float(r[f"fused/value/{n}"]) for n in "xyw"] for r in rows] == z.tolist()


@pytest.mark.parametrize("name", ["p.csv", "p.npz"])
def test_a_file_is_there_as_a_whole_or_not(tmp_path, name):
    path = tmp_path / name
    path.write_text("of before")
    with pytest.raises(KeyboardInterrupt):
        with predictions.open_table(path, ("a",)) as add:
            add([0], {"fused/class": np.zeros(1, np.int32)})
            raise KeyboardInterrupt
    assert path.read_text() == "of before" and [p.name for p in tmp_path.iterdir()] == [name]
    (tmp_path / "gone").mkdir()
    with pytest.raises(WriteError, match=f"{name} could not be written"):
        with predictions.files.open_whole(tmp_path / "gone" / "x" / name):
            pass


def test_arrays_are_appended(tmp_path):
    with predictions.open_table(tmp_path / "p.npz", ("a", "b")) as add:
        for i in range(3):
            add([f"row {i}", f"other {i}"], {"h/value": np.full((2, 2), i, np.float32)})
    with np.load(tmp_path / "p.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["h/value", "id", "names"]
        assert file["id"].tolist() == ["row 0", "other 0", "row 1", "other 1", "row 2", "other 2"]
        np.testing.assert_array_equal(file["h/value"][:, 1], [0, 0, 1, 1, 2, 2])
