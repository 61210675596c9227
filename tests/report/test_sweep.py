import csv

import numpy as np

from jaxmm.report import sweep

MODALITIES = ("sound", "image")


def point(value, seed, val, test):
    """A run whose heads "sound" and "fused" have these accuracies."""
    def record(split, accuracies):
        return {"split": split, "scores": {head: {"accuracy": a} for head, a in
                                           zip(("sound", "fused"), accuracies)}}

    return sweep.Point(value, seed, [record("val", (0.0, 0.0)), record("val", val),
                                     record("test", test)])


# The second value is best on validation data, the third on test data; one run of the last is lost.
POINTS = [point(0.1, 0, (0.5, 0.4), (0.3, 0.3)), point(0.1, 1, (0.5, 0.6), (0.3, 0.3)),
          point(0.01, 0, (0.2, 0.8), (0.3, 0.25)), point(0.01, 1, (0.2, 0.8), (0.3, 0.35)),
          point(1.0, 0, (0.1, 0.7), (0.3, 0.9)), point(1.0, 1, (0.1, 0.7), (0.3, 0.9)),
          point(5.0, 0, (0.1, 0.9), (0.1, 0.9)), sweep.Point(5.0, 1, None)]


def summarize(points, metric="accuracy", kind=""):
    return sweep.summarize(sweep.records(points, metric, kind))


def test_the_choice_is_made_on_validation_data_among_values_without_a_lost_run():
    summaries = summarize(POINTS)
    assert list(summaries) == [0.01, 0.1, 1.0, 5.0]
    mean, std, _ = summaries[0.1]["val", "fused"]
    assert abs(mean - 0.5) < 1e-9 and abs(std - 0.02 ** 0.5) < 1e-9
    assert sweep.best(summaries) == 0.01
    assert sweep.best(summarize([sweep.Point(1.0, 0, None)])) is None


def test_on_a_stream_the_choice_is_made_by_the_mean_over_its_tasks():
    """Tasks of unequal size: the accuracy over all examples would choose the other value."""
    def run(value, pooled, *tasks):
        record = {"scores": {"fused": {"accuracy": pooled}}, "class_incremental": {"fused": tasks},
                  "task_incremental": {"fused": tasks}}
        return sweep.Point(value, 0, [record | {"split": split} for split in ("val", "test")])

    points = [run(0.1, 0.8, 0.9, 0.1), run(1.0, 0.5, 0.5, 0.7)]
    assert sweep.best(summarize(points, "mean_accuracy", "class"), "mean_accuracy") == 1.0
    assert summarize(points, "mean_accuracy", "domain")[1.0]["val", "fused"][:2] == (0.6, None)
    assert summarize(
        points, "cumulative_accuracy", "generalized")[0.1]["test", "fused"][:2] == (0.1, None)
    assert sweep.best(summarize(points)) == 0.1


def test_table():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in
            sweep.table(summarize(POINTS), "method.alpha", MODALITIES).splitlines()]
    assert rows[0] == ["method.alpha", "val sound", "val fused", "test fused", ""]
    assert rows[2] == ["0.01", "20.0 ± 0.0", "80.0 ± 0.0", "30.0 ± 7.1", "best"]
    assert rows[5] == ["5", "10.0", "90.0", "90.0", "loss not finite"]


def test_the_report_shows_everything(make_dataset, tmp_path):
    sweep.write(POINTS, "method.alpha", make_dataset(), tmp_path, "the command")
    text = (tmp_path / "report.md").read_text()
    assert "**method.alpha=0.01**" in text and "the command" in text and "2 seeds" in text
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert len(rows) == 7 * 2 * 2
    assert {"value": "0.01", "seed": "1", "split": "test", "head": "fused",
            "accuracy": "0.35"} in rows


def test_without_any_run_left(make_dataset, tmp_path):
    sweep.write([sweep.Point(1.0, 0, None)], "method.alpha", make_dataset(), tmp_path, "command")
    assert "No value has runs" in (tmp_path / "report.md").read_text()


def test_of_a_regression_the_least_error_is_the_best(make_dataset, tmp_path):
    def run(value, val):
        return sweep.Point(value, 0, [{"split": split, "scores": {"fused": {"mae": x}}}
                                      for split, x in (("val", val), ("test", 9 - val))])

    data = make_dataset(rows=(3, 3, 3))
    data = data._replace(class_names=("strength",), splits={
        split: batch | {"label": np.array([[0], [2], [5]], np.float32)}
        for split, batch in data.splits.items()})
    points = [run(0.1, 1.5), run(1.0, 0.25), run(10.0, 2.0)]
    table = sweep.write(points, "method.alpha", data, tmp_path, "command")
    assert [cell.strip() for cell in table.splitlines()[3].split("|")[1:-1]] == [
        "1", "0.2500", "8.750", "best"]
    text = (tmp_path / "report.md").read_text()
    assert "**method.alpha=1**" in text and "MAE, in units of the labels, less is better, after" in text
    assert (tmp_path / "sweep.csv").read_text().splitlines()[:2] == [
        "value,seed,split,head,mae", "0.1,0,val,fused,1.5"]
    figure = sweep.curves(sweep.summarize(sweep.records(points, "mae")), "alpha", [], 5 / 3, "title", "mae")
    axes, = figure.axes
    assert axes.get_ylim()[0] == 0 < 2 < axes.get_ylim()[1] < 10
    assert [t.get_text() for t in axes.texts] == ["median"]
