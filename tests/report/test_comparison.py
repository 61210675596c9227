import csv

import pytest

from jaxmm.report import comparison
from jaxmm.report.comparison import Result, Summary


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


def test_summarize_means_and_sample_deviations():
    found = {(s.method, s.head, s.metric): s[4:] for s in comparison.summarize(RESULTS)}
    assert len(found) == 10
    assert found["single", "sound", "accuracy"] == (pytest.approx(0.6), pytest.approx(0.1), 3)
    assert found["single", "sound", "nll"] == (pytest.approx(0.4), pytest.approx(0.1), 3)
    assert found["single", "image", "accuracy"] == (0.25, 0, 3)
    # Deviations -0.1, -0.1, 0.2: squares 0.06, over 2.
    assert found["both", "image", "accuracy"] == (pytest.approx(0.4), pytest.approx(0.03 ** 0.5), 3)


def test_a_single_seed_has_no_deviation():
    assert comparison.summarize([Result("a", 4, {"fused": {"accuracy": 0.5}})]) == [
        Summary("a", None, "fused", "accuracy", 0.5, None, 1)]


def test_accuracy_table():
    text = comparison.accuracy_table(comparison.summarize(RESULTS), ["sound", "image"])
    assert text == (
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
        assert list(csv.reader(file))[:2] == [["method", "buffer", "head", "metric", "seed", "value"],
                                              ["single", "", "sound", "accuracy", "3", "0.5"]]
    report = (tmp_path / "report.md").read_text()
    assert table in report and f"\n    {command}\n" in report and "(accuracy.png)" in report
