"""Scores by class, label and number, from counts by hand."""
import numpy as np
import pytest

from jaxmm.report import classes
from jaxmm.task import classification, multilabel, regression, segmentation


def batch(label, sound=True):
    present = np.broadcast_to(np.asarray(sound, bool), len(label)).copy()
    return {"label": np.asarray(label), "present": {"sound": present}}


def cells(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines[:1] + lines[2:]]


def test_classes_by_hand():
    """True a a a b, predicted a a b c; what is never predicted, or never occurs, has no such score."""
    z = np.eye(4)[[0, 0, 1, 2]]
    text, draw = classes.section(classification(("a", "b", "c|", "d")), {"fused": z},
                                 batch([0, 0, 0, 1]))
    assert "head `fused`, 4 examples" in text
    assert cells(text.replace("c\\|", "c")) == [
        ["class", "precision", "recall", "F1", "support"], ["a", "100.0", "66.7", "80.0", "3"],
        ["b", "0.0", "0.0", "0.0", "1"], ["c", "0.0", "", "0.0", "0"], ["d", "", "", "", "0"]]
    drawn = draw().axes[0]
    assert [t.get_text() for t in drawn.texts] == list("2100" "0010" "0000" "0000")
    assert drawn.images[0].get_array()[0].tolist() == pytest.approx([200 / 3, 100 / 3, 0, 0])


def test_of_many_classes_the_worst_are_listed_and_it_is_said():
    label = np.repeat(np.arange(101), 2)
    z = np.eye(101)[label]
    z[label == 77] = np.eye(101)[3]
    text, draw = classes.section(classification(tuple(map(str, range(101)))), {"fused": z}, batch(label))
    assert draw is None and "matrix of 101 classes is not drawn" in text
    assert "The 30 of 101 classes with the lowest F1 are listed" in text
    assert [row[0] for row in cells(text)[1:4]] == ["77", "3", "0"] and len(cells(text)) == 31


def test_labels_by_hand():
    y = np.array([[1, 0], [1, 1], [0, 1], [1, 0]], bool)
    z = np.array([[2, -1], [-1, 1], [1, 1], [1, -1.0]])
    text, draw = classes.section(multilabel(("x", "y")), {"fused": z}, batch(y))
    assert cells(text)[1:] == [["x", "66.7", "66.7", "66.7", "3"], ["y", "100.0", "100.0", "100.0", "2"]]
    assert [b.get_width() for b in draw().axes[0].patches] == pytest.approx([200 / 3, 100])


def test_numbers_by_hand():
    y = np.array([[0, 5], [2, 5], [4, 5.0]])
    text, draw = classes.section(regression(("x", "y")), {"fused": y + [[1, 0], [-1, 0], [1, 0]]}, batch(y))
    assert cells(text)[1:] == [["x", "1.000", "1.633", "0.625"], ["y", "0.000", "0.000", ""]]
    np.testing.assert_array_equal(draw().axes[0].collections[0].get_offsets(), [[0, 1], [2, 1], [4, 5]])


def test_a_head_without_examples():
    text, draw = classes.section(classification(("a", "b")), {"sound": np.eye(2)}, batch([0, 1], False))
    assert "No example has what the head `sound` needs" in text and draw is None


def test_pixels_by_hand():
    """Two pictures; class c is only predicted, d neither there nor predicted."""
    counts = np.zeros((2, 4, 4), int)
    counts[0, :2, :3] = [[2, 0, 1], [0, 1, 0]]
    counts[1, :2, :3] = [[0, 1, 0], [0, 2, 1]]
    text, draw = classes.section(segmentation(("a", "b", "c", "d")), {"fused": counts}, batch([0, 0]))
    assert "head `fused`, 2 examples" in text and "not void" in text
    assert cells(text) == [
        ["class", "IoU", "recall", "precision", "pixels"], ["a", "50.0", "50.0", "100.0", "50.00"],
        ["b", "60.0", "75.0", "75.0", "50.00"], ["c", "0.0", "", "0.0", "0.00"], ["d", "", "", "", "0.00"]]
    bars, confusion = draw().axes[:2]
    assert [b.get_width() for b in bars.patches] == pytest.approx([50, 60])        # of classes that are there
    np.testing.assert_allclose(confusion.images[0].get_array()[:2], [[50, 25, 25, 0], [0, 75, 25, 0]])
    assert [t.get_text() for t in confusion.texts][:8] == ["50", "25", "25", "0", "0", "75", "25", "0"]


def test_counts_of_pairs_of_classes_are_not_made_where_they_are_not_drawn(monkeypatch):
    monkeypatch.setattr(classes.sklearn.metrics, "confusion_matrix", None)
    names = tuple(map(str, range(classes.DRAWN + 1)))
    text, draw = classes.section(classification(names), {"fused": np.eye(len(names))}, batch(range(len(names))))
    assert draw is None and f"of {len(names)} classes is not drawn" in text
