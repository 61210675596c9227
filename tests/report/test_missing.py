import csv

import numpy as np
import pytest

from jaxmm.config import DataConfig
from jaxmm.data import missing as masks
from jaxmm.report import missing
from jaxmm.report.comparison import Result
from jaxmm.report.published import Value

MASK = missing.Mask("exact", "", 3)


def result(method, seed, **accuracy):
    return Result(method, seed, {head: {"accuracy": x, "weighted_f1": x / 2, "mean_recall": x / 4, "nll": 9.0}
                                 for head, x in accuracy.items()})


# Three methods: one with a fused head, one without, and one that diverged in one run, or in all.
RESULTS = {
    0.5: [result("both", 0, sound=0.3, fused=0.5), result("both", 1, sound=0.3, fused=0.6),
          result("unimodal", 0, image=0.2), result("unimodal", 0, sound=0.4),
          Result("lost", 0, {}, diverged=True), result("lost", 1, fused=0.3), Result("gone", 0, {}, diverged=True)],
    0.0: [result("both", 0, sound=0.4, fused=0.9), result("both", 1, sound=0.4, fused=0.9),
          result("unimodal", 0, image=0.25), Result("lost", 0, {}, diverged=True),
          Result("gone", 0, {}, diverged=True)]}
PUBLISHED = {0.5: {("both", None): {"fused": Value(0.55, None, "arXiv 1, table 2", ("less",)),
                                    "other": Value(0.1, None, "elsewhere", ())}}}


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]


@pytest.fixture(name="datasets")
def make_datasets(make_dataset):
    """Masked at 0 and 0.5 in that order, of the two modalities sound and image."""
    data = make_dataset(rows=(40, 10, 20))
    return {rate: masks.mask(data, DataConfig(missing_rate=rate, missing_scheme="exact")) for rate in (0.0, 0.5)}


def test_methods_by_rate_beside_published_values(datasets, tmp_path):
    table = missing.write(RESULTS, datasets, MASK, tmp_path, "the command", PUBLISHED)
    assert cells(table)[0] == ["method", "head", "0", "0.5", "0.5, paper"]
    assert cells(table)[2:] == [
        ["both", "fused", "90.0 ± 0.0", "55.0 ± 7.1", "55.0*"], ["unimodal", "image", "25.0", "20.0", ""],
        ["unimodal", "sound", "", "40.0", ""], ["lost", "fused", "diverged", "30.0 (1 of 2 diverged)", ""],
        ["gone", "", "diverged", "diverged", ""]]
    assert "\nPaper: arXiv 1, table 2.\n" in table and table.endswith("\\* Not comparable: less.\n")
    report = (tmp_path / "report.md").read_text()
    assert "    the command\n" in report and table in report and "drawn by data.seed=3" in report
    _, f1, recall, shares = (cells(part) for part in report.split("\n## ") if "|" in part)
    assert f1[2] == ["both", "fused", "45.0 ± 0.0", "27.5 ± 3.5"] and recall[2][3] == "13.8 ± 1.8"
    # One of two modalities is left in each example.
    assert shares[2:] == [["0", "0.0", "100.0", "0.0", "100.0"], ["0.5", "50.0", "0.0", "50.0", "0.0"]]
    with open(tmp_path / "missing.csv", encoding="utf-8") as file:
        rows = {(r["method"], r["rate"], r["head"], r["metric"]): r for r in csv.DictReader(file)}
    fused = rows["both", "0.5", "fused", "accuracy"]
    assert (float(fused["mean"]), fused["seeds"]) == (pytest.approx(0.55), "2")
    assert float(fused["std"]) == pytest.approx(np.sqrt(0.005))
    assert rows["lost", "0.5", "", "diverged"]["mean"] == "0.5" and ("both", "0.0", "sound", "nll") in rows
    with open(tmp_path / "seeds.csv", encoding="utf-8") as file:
        assert {"method": "both", "rate": "0.5", "head": "fused", "metric": "accuracy", "seed": "1",
                "value": "0.6"} in list(csv.DictReader(file))
    tex = (tmp_path / "missing.tex").read_text()
    assert r"both & fused & \textbf{90.0 $\pm$ 0.0} & \textbf{55.0 $\pm$ 7.1} & 55.0† \\" in tex
    assert (tmp_path / "missing.png").read_bytes().startswith(b"\x89PNG")


def test_of_one_modality_every_head_is_shown(datasets, tmp_path):
    only = missing.Mask("independent", "sound", 0)
    table = missing.write(RESULTS, datasets, only, tmp_path, "the command", PUBLISHED)
    assert [row[:2] for row in cells(table)[2:]] == [
        ["both", "sound"], ["both", "fused"], ["unimodal", "image"], ["unimodal", "sound"], ["lost", "fused"],
        ["gone", ""]]
    assert "a share lacks sound; validation and test data are as they are" in (tmp_path / "report.md").read_text()
    assert r"\textbf{90.0" in (tmp_path / "missing.tex").read_text()        # heads that stand for methods compete


def test_lines_go_through_the_means_and_papers_are_open_markers():
    scores = missing.scores_of(missing.records(RESULTS), "accuracy", ["image", "sound"], False)
    known = missing.published_of(PUBLISHED, scores)
    lines = missing.of_all(scores, ["image", "sound"], known)
    figure = missing.curves(*lines, "rate", 0.25, "title")
    axes, = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 90], [0.5, 55]])
    paper, = (line for line in axes.lines if line.get_markerfacecolor() == "white")
    assert (paper.get_xdata(), paper.get_ydata()) == ([0.5], pytest.approx([55]))
    legend, = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "both", "unimodal image", "unimodal sound", "lost", "paper"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.5"]
    every = missing.scores_of(missing.records(RESULTS), "accuracy", ["image", "sound"], True)
    panels = missing.curves(*missing.by_method(every, ["image", "sound"], {}), "rate", None, "title").axes
    assert [p.get_title(loc="left") for p in panels if p.get_title(loc="left")] == ["both", "unimodal", "lost"]
    assert len(panels[0].lines) == 2
