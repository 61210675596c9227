import csv

import numpy as np
import pytest

from jaxmm.report import missing, vary
from jaxmm.report.comparison import Result


def result(method, seed, **values):
    """(mean accuracy, plasticity, stability, recency) by head."""
    names = ("mean_accuracy", "plasticity", "stability", "task_recency")
    return Result(method, seed, {head: dict(zip(names, found)) for head, found in values.items()}, 9)


# A method of two heads with two seeds, one that learned all at once, and one that diverged at a value.
RESULTS = {
    8000: [result("er", 0, image=(0.3, 0.5, 0.1, 0.9), fused=(0.6, 0.8, 0.4, 0.5)),
           result("er", 1, image=(0.3, 0.5, 0.1, 0.9), fused=(0.8, 0.6, 0.6, 0.7)),
           Result("joint", 0, {"fused": {"mean_accuracy": 0.9}}), Result("lost", 0, {}, diverged=True)],
    1000: [result("er", 0, image=(0.2, 0.4, 0.0, 1.0), fused=(0.4, 0.5, 0.3, 0.8)),
           Result("joint", 0, {"fused": {"mean_accuracy": 0.7}}), result("lost", 0, fused=(0.1, 0.2, 0.0, 1.0))]}


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]


def test_methods_by_value_and_what_they_kept(make_dataset, tmp_path):
    table = vary.write(RESULTS, "data.audio_rate", make_dataset(), tmp_path, "the command", "class")
    assert cells(table)[0] == ["method", "head", "1000", "8000"]
    assert cells(table)[2:] == [["joint", "fused", "70.0", "90.0"], ["er", "fused", "40.0", "70.0 ± 14.1"],
                                ["lost", "fused", "10.0", "diverged"]]
    report = (tmp_path / "report.md").read_text()
    assert "    the command\n" in report and "by `data.audio_rate`" in report
    recency, stability, plasticity = (cells(part)[2] for part in report.split(":\n\n")[1:4])
    assert (recency, stability, plasticity) == (
        ["er", "fused", "80.0", "60.0 ± 14.1"], ["er", "fused", "30.0", "50.0 ± 14.1"],
        ["er", "fused", "50.0", "70.0 ± 14.1"])
    assert "joint" not in report.split("## Over the tasks")[1]
    with open(tmp_path / "vary.csv", encoding="utf-8") as file:
        rows = {(r["method"], r["audio_rate"], r["head"], r["metric"]): r["mean"] for r in csv.DictReader(file)}
    assert float(rows["er", "8000", "fused", "stability"]) == pytest.approx(0.5)
    assert r"er & fused & 40.0 & 70.0 $\pm$ 14.1 \\" in (tmp_path / "vary.tex").read_text()
    assert {path.name for path in tmp_path.glob("*.png")} == {"vary.png", "stability_plasticity.png"}
    # Without a stream there are scores alone, and values may be text.
    other = {value: [Result("late", 0, {"fused": {"accuracy": x}})] for value, x in (("b", 0.5), ("a", 0.25))}
    (tmp_path / "other").mkdir()
    table = vary.write(other, "encoders.sound.name", make_dataset(), tmp_path / "other", "", "")
    assert cells(table)[::2] == [["method", "head", "a", "b"], ["late", "fused", "25.0", "50.0"]]
    assert "Over the tasks" not in (tmp_path / "other/report.md").read_text()


def test_curves_go_through_the_means_of_each_head_along_the_values():
    curves = vary.trade_offs(missing.records(RESULTS), ["image", "sound"])
    assert list(curves) == ["image", "fused"] and list(curves["fused"]) == ["er", "lost"]
    np.testing.assert_allclose([*curves["fused"]["er"].values()], [[0.5, 0.3], [0.7, 0.5]])
    assert list(curves["fused"]["er"]) == [1000, 8000]
    axes = vary.trade_off_curves(curves, "title").axes
    np.testing.assert_allclose(axes[1].lines[0].get_xydata(), [[50, 30], [70, 50]])
    assert [text.get_text() for text in axes[0].texts] == ["1000", "8000"]
