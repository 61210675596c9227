import csv

import numpy as np
import pytest

from jaxmm.config import Config, StreamConfig
from jaxmm.methods import method_config
from jaxmm.report import comparison
from jaxmm.report.comparison import Result
from jaxmm.report.variants import Variant


def scores(**accuracy):
    return {head: {"accuracy": a, "nll": 1 - a} for head, a in accuracy.items()}


# The runs of one modality each are one method; "both" has seeds 0, 1 and 2.
RESULTS = [
    Result("single", 0, scores(sound=0.5)), Result("single", 1, scores(sound=0.7)),
    Result("single", 2, scores(sound=0.6)), Result("single", 0, scores(image=0.25)),
    Result("single", 1, scores(image=0.25)), Result("single", 2, scores(image=0.25)),
    Result("both", 0, scores(fused=0.8, image=0.3, sound=0.5)),
    Result("both", 1, scores(fused=0.9, image=0.3, sound=0.5)),
    Result("both", 2, scores(fused=1.0, image=0.6, sound=0.5)),
]


def table_of(results):
    return comparison.score_table(comparison.records(results), ["sound", "image"])


def test_score_table():
    assert table_of(RESULTS) == (
        "| method |       sound |       image |       fused |\n"
        "| ------ | ----------: | ----------: | ----------: |\n"
        "| single | 60.0 ± 10.0 |  25.0 ± 0.0 |             |\n"
        "| both   |  50.0 ± 0.0 | 40.0 ± 17.3 | 90.0 ± 10.0 |\n")


def test_write(tmp_path, make_dataset):
    command = "python -m launch.compare --seeds=1"
    results = [Result("single", 3, scores(sound=0.5)), Result("both", 3, scores(fused=0.75))]
    table = comparison.write(results, make_dataset(), tmp_path, command)
    assert table == ("| method | sound | fused |\n"
                     "| ------ | ----: | ----: |\n"
                     "| single |  50.0 |       |\n"
                     "| both   |       |  75.0 |\n")
    assert (tmp_path / "comparison.csv").read_text() == (
        "method,buffer,head,metric,mean,std,seeds\n"
        "single,,sound,accuracy,0.5,,1\n"
        "single,,sound,nll,0.5,,1\n"
        "both,,fused,accuracy,0.75,,1\n"
        "both,,fused,nll,0.25,,1\n")
    with (tmp_path / "seeds.csv").open() as file:
        assert list(csv.reader(file))[:2] == [
            ["method", "buffer", "head", "metric", "seed", "value"],
            ["single", "", "sound", "accuracy", "3", "0.5"]]
    report = (tmp_path / "report.md").read_text()
    assert table in report and f"\n    {command}\n" in report and "(accuracy.png)" in report


def history(heads, rows):
    """Records of a run whose heads all have the accuracies `rows` [tasks learned, T]."""
    def record(task, accuracy):
        by_head = {head: accuracy for head in heads}
        return {"task": task, "split": "test", "class_incremental": by_head,
                "task_incremental": by_head, "scores": {h: {"accuracy": 0.1} for h in heads}}
    return [record(-1, [0.0] * len(rows[0])), *map(record, range(len(rows)), rows)]


def variant(method, modality="", buffer=None, kind="class"):
    name = "sgd" if method == "joint" else method.partition("+")[0]
    return Variant(method, modality, buffer, Config(method=method_config(name),
                                                    stream=StreamConfig(kind=kind)))


ROWS = [[0.8, 0.0], [0.4, 0.6]]


def test_a_model_of_one_modality_has_no_fused_head_unless_it_says_something_else():
    records = history(["sound", "fused"], ROWS)

    def columns(method, modality):
        result = comparison.read_result(variant(method, modality, 9), 3, records)
        assert (result.seed, result.buffer, list(result.seen)) == (3, 9, list(result.scores))
        return list(result.scores)

    assert columns("er", "") == ["sound", "fused"]
    assert columns("er", "sound") == columns("unimodal", "sound") == ["sound"]
    records[-1]["scores"]["fused"]["accuracy"] = 0.2
    assert columns("samm", "sound") == ["sound", "fused"]
    assert columns("unimodal", "sound") == ["sound"]


def test_results_on_a_stream_have_the_metrics_over_its_tasks():
    result = comparison.read_result(variant("er", buffer=5), 0, history(["fused"], ROWS))
    assert result.scores["fused"]["accuracy"] == 0.1
    assert result.scores["fused"]["mean_accuracy"] == pytest.approx(0.5)
    assert result.scores["fused"]["forgetting"] == pytest.approx(0.4)
    np.testing.assert_allclose(result.seen["fused"], [0.8, 0.5])
    joint = comparison.read_result(variant("joint"), 0, history(["fused"], ROWS[1:]))
    assert "stability" not in joint.scores["fused"] and len(joint.seen["fused"]) == 1
    last = comparison.read_result(variant("er", kind="generalized"), 0, history(["fused"], ROWS))
    assert last.scores["fused"]["cumulative_accuracy"] == 0.6


@pytest.fixture(name="stream_results")
def make_stream_results():
    """Two seeds; of `er` with two sizes of memory."""
    found = []
    for seed, shift in enumerate((0.0, 0.2)):
        rows = [[0.8, 0.0], [0.4 + shift, 0.6]]
        found += [comparison.read_result(variant("er", buffer=20), seed, history(["fused"], rows)),
                  comparison.read_result(variant("er", buffer=10), seed, history(["fused"], ROWS)),
                  comparison.read_result(variant("samm", buffer=10), seed,
                                         history(["sound", "fused", "dynamic"], rows)),
                  comparison.read_result(variant("joint"), seed, history(["fused"], rows[1:])),
                  comparison.read_result(variant("joint", "sound"), seed,
                                         history(["sound", "fused"], [[0.2, 0.0]]))]
    return found


def test_rows_come_in_blocks_by_the_size_of_the_memory(stream_results):
    table = comparison.records(stream_results)
    assert comparison.score_table(table, ["sound"], "mean_accuracy") == (
        "| method | buffer |      sound |      fused |    dynamic |\n"
        "| ------ | -----: | ---------: | ---------: | ---------: |\n"
        "| joint  |        | 10.0 ± 0.0 | 55.0 ± 7.1 |            |\n"
        "| er     |     10 |            | 50.0 ± 0.0 |            |\n"
        "| samm   |     10 | 55.0 ± 7.1 | 55.0 ± 7.1 | 55.0 ± 7.1 |\n"
        "| er     |     20 |            | 55.0 ± 7.1 |            |\n")
    # Stability 0.4 and 0.6, plasticity 0.7: trade-offs 0.56 / 1.1 and 0.84 / 1.3.
    assert comparison.over_time_table(table) == (
        "| method | buffer |    head |   stability | plasticity |  trade-off |  forgetting |\n"
        "| ------ | -----: | ------: | ----------: | ---------: | ---------: | ----------: |\n"
        "| er     |     10 |   fused |  40.0 ± 0.0 | 70.0 ± 0.0 | 50.9 ± 0.0 |  40.0 ± 0.0 |\n"
        "| samm   |     10 | dynamic | 50.0 ± 14.1 | 70.0 ± 0.0 | 57.8 ± 9.7 | 30.0 ± 14.1 |\n"
        "| er     |     20 |   fused | 50.0 ± 14.1 | 70.0 ± 0.0 | 57.8 ± 9.7 | 30.0 ± 14.1 |\n")


def test_curves_have_a_panel_for_each_size_with_the_methods_that_have_no_memory(stream_results):
    panels = comparison.curve_panels(comparison.records(stream_results))
    assert {name: list(curves) for name, curves in panels.items()} == {
        "memory of 10 examples": ["joint", "er", "samm"],
        "memory of 20 examples": ["joint", "er"]}
    curves = panels["memory of 20 examples"]
    assert {task: [value for _, value in cell.values] for task, cell in curves["er"].items()} == {
        1: [0.8, 0.8], 2: pytest.approx([0.5, 0.6])}
    assert {task: cell.mean for task, cell in curves["joint"].items()} == {1: pytest.approx(0.55)}
    short = stream_results[0]._replace(seen={"fused": np.array([0.3])})
    found = comparison.curve_panels(comparison.records([short, *stream_results[5:6]]))
    assert {task: dict(cell.values) for task, cell in found["memory of 20 examples"]["er"].items()} == {
        1: {0: 0.3, 1: 0.8}, 2: {1: pytest.approx(0.6)}}


def test_write_of_a_stream(stream_results, tmp_path, make_dataset):
    shown = comparison.write(stream_results, make_dataset(), tmp_path, "command", "class")
    table = comparison.records(stream_results)
    assert shown == comparison.score_table(table, ["sound", "image"], "mean_accuracy")
    report = (tmp_path / "report.md").read_text()
    assert "Mean accuracy over the tasks after the last one, mean and deviation of 2" in report
    for part in (shown, comparison.over_time_table(table), "(tasks_seen.png)"):
        assert part in report
    assert (tmp_path / "tasks_seen.png").exists()
    with (tmp_path / "comparison.csv").open() as file:
        rows = {(r["method"], r["buffer"], r["head"], r["metric"]): r["mean"]
                for r in csv.DictReader(file)}
    assert float(rows["er", "20", "fused", "forgetting"]) == pytest.approx(0.3)
    assert float(rows["joint", "", "sound", "mean_accuracy"]) == pytest.approx(0.1)


def test_numbers_that_are_nan_do_not_count():
    results = [Result("a", 0, {"fused": {"accuracy": 0.5}}),
               Result("a", 1, {"fused": {"accuracy": np.nan}})]
    assert "|  50.0 |" in table_of(results)


LOST = [Result("all", 0, {}, diverged=True), Result("all", 1, {}, diverged=True),
        Result("some", 0, scores(fused=0.5)), Result("some", 1, {}, diverged=True),
        Result("none", 0, scores(fused=0.25)), Result("none", 1, scores(fused=0.25))]


def test_runs_that_diverged_are_marked_and_have_no_part_in_means(tmp_path, make_dataset, monkeypatch):
    drawn = []
    bars = comparison.plots.comparison_bars
    monkeypatch.setattr(comparison.plots, "comparison_bars",
                        lambda *args, **options: drawn.append(args[0]) or bars(*args))
    table = comparison.write(LOST, make_dataset(), tmp_path, "command")
    assert table == ("| method |      fused |                 |\n"
                     "| ------ | ---------: | --------------: |\n"
                     "| all    |            |        diverged |\n"
                     "| some   |       50.0 | 1 of 2 diverged |\n"
                     "| none   | 25.0 ± 0.0 |                 |\n")
    assert drawn == [{"all\ndiverged": {}, "some\n1 of 2 diverged": {"fused": (0.5, None)},
                      "none": {"fused": (0.25, 0.0)}}]
    csv_lines = (tmp_path / "comparison.csv").read_text().splitlines()
    assert "all,,,diverged,1.0,,2" in csv_lines and "some,,,diverged,0.5,,2" in csv_lines
    assert not any(line.startswith("none,,,") for line in csv_lines)
    seeds = (tmp_path / "seeds.csv").read_text().splitlines()
    assert [x for x in seeds if "diverged" in x] == ["all,,,diverged,0,1.0", "all,,,diverged,1,1.0",
                                                     "some,,,diverged,1,1.0"]
    assert "Means are of the runs that did not diverge." in (tmp_path / "report.md").read_text()


def test_a_run_without_a_history_diverged_also_on_a_stream(stream_results):
    lost = comparison.read_result(variant("er", buffer=20), 2, None)
    assert lost == Result("er", 2, {}, 20, diverged=True)
    panels, others = (comparison.curve_panels(comparison.records(results))
                      for results in ([*stream_results, lost], stream_results))
    assert panels == others


def test_what_was_scored_anew_is_said(tmp_path, make_dataset):
    results = [Result("a", 0, scores(fused=0.5)), Result("a", 1, scores(fused=0.5), changed=["test"])]
    comparison.write(results, make_dataset(), tmp_path, "command")
    text = (tmp_path / "report.md").read_text()
    assert text.count(" changed after ") == text.count("a, seed 1: the split test of tiny changed") == 1


def numbers(make_dataset):
    """A regression: labels 0, 2, 4 of training have the median 2, which errs by 1 on test data."""
    data = make_dataset(rows=(3, 3, 2))
    labels = {"train": [0, 2, 4], "val": [2, 2, 5], "test": [1, 3]}
    return data._replace(class_names=("strength",), splits={
        split: batch | {"label": np.array(labels[split], np.float32)[:, None]}
        for split, batch in data.splits.items()})


ERRORS = [Result(method, seed, {"fused": {"mae": error + 0.01 * seed**power, "pearson": 0.5},
                                "sound": {"mae": 2.0}})
          for method, error, power in (("concat", 0.75, 2), ("mla_x", 0.5, 2), ("late", 1.5, 3))
          for seed in range(3)]


def test_a_regression_is_compared_by_its_error(tmp_path, make_dataset, monkeypatch):
    drawn = []
    monkeypatch.setattr(comparison.plots, "comparison_bars", lambda *args, **options: drawn.append(
        args) or comparison.plots.Figure())
    table = comparison.write(ERRORS, numbers(make_dataset), tmp_path, "command")
    assert [c.strip() for c in table.splitlines()[3].split("|")[1:-1]] == [
        "mla_x", "2.000 ± 0.000", "0.5167 ± 0.0208"]
    bars, _, chance, title, metric = drawn[0]
    assert bars["concat"]["fused"][0] == pytest.approx(0.75 + 0.05 / 3)
    assert (chance, title, metric) == (1.0, "tiny: test MAE, mean and deviation of 3 seeds", "mae")
    report = (tmp_path / "report.md").read_text()
    assert "Test MAE, mean and deviation of 3 seeds, in units of the labels, less is better, after" in report
    assert "The dashed line is the median of the training labels" in report and "(mae.png)" in report
    assert "Pearson are in" in report and "ccuracy" not in report


def test_latex_has_the_best_in_bold_and_a_star_where_it_is_better_than_each(tmp_path, make_dataset):
    comparison.write(ERRORS, numbers(make_dataset), tmp_path, "command")
    text = (tmp_path / "comparison.tex").read_text()
    assert text.startswith("% Needs \\usepackage{booktabs}.\n% fused, n = 3: p of the best against "
                           "concat 0, late ")
    assert "\n% sound, n = 3: p of the best against mla_x (equal), late (equal)\n" in text
    best, = (line for line in text.splitlines() if "textbf" in line)
    assert best == r"  mla\_x & 2.000 $\pm$ 0.000 & \textbf{0.5167 $\pm$ 0.0208}\textsuperscript{{*}} \\"
    assert "n = 3 seeds; {*} better than each other method of its column: two-sided paired t tests" in text
    comparison.write([r for r in ERRORS if r.seed < 2], numbers(make_dataset), tmp_path, "command")
    text = (tmp_path / "comparison.tex").read_text()
    assert "% fused, n = 2: no test with so few seeds" in text and "textsuperscript" not in text
    assert r"\textbf{0.505" in text and "Best in bold; n = 2 seeds." in text


def test_figures_of_a_page_lie_beside_those_of_the_report(stream_results, tmp_path, make_dataset):
    comparison.write(stream_results, make_dataset(), tmp_path, "command", "class",
                     page=comparison.plots.Page(3.25, "pdf"))
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.p[nd][gf]")}
    assert names == {"accuracy.png", "tasks_seen.png", "figures/accuracy.pdf", "figures/tasks_seen.pdf"}
    text = (tmp_path / "comparison.tex").read_text()
    assert text.count(r"\begin{tabular}") == 2 and "over the tasks" in text and "joint" in text


def test_a_stream_has_what_classes_reached_and_what_methods_cost(tmp_path, make_dataset):
    by_class = {"class_accuracy": 0.4, "rare_accuracy": 0.2, "middle_accuracy": 0.3, "frequent_accuracy": 0.7,
                "class_forgetting": 0.1, "ece": 0.05}
    results = [Result("er", seed, {"fused": {"cumulative_accuracy": 0.5} | by_class}, 50,
                      {"fused": np.array([0.5])}, cost={"state_bytes": 2048.0, "step_ms": 1.0 + seed})
               for seed in (0, 2)]
    comparison.write(results, make_dataset(), tmp_path, "", "generalized")
    report = (tmp_path / "report.md").read_text()
    shown, cost = (report.split(f"## {title}")[1] for title in ("By class", "Cost"))
    cells = [[c.strip() for c in part.split("\n| ")[3].split("|")] for part in (shown, cost)]
    assert cells[0][:8] == ["er", "50", "fused", "40.0 ± 0.0", "20.0 ± 0.0", "30.0 ± 0.0", "70.0 ± 0.0", "10.0 ± 0.0"]
    assert cells[1][:4] == ["er", "50", "2048 ± 0", "2.000 ± 1.414"]
    assert "er,50,,state_bytes,2048.0,0.0,2" in (tmp_path / "comparison.csv").read_text()
