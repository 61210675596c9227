import dataclasses

import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import METHOD_CONFIGS, Config, EncoderConfig, StreamConfig, method_config
from jaxmm.data.dataset import Dataset
from jaxmm.report import comparison, published, variants
from jaxmm.report.comparison import Summary
from jaxmm.report.published import Value


def dataset(name, train, val, test, modalities=("audio", "visual")):
    """Rows without any content: an array of one number, seen `rows` times."""
    splits = {split: make_batch({m: np.broadcast_to(np.float32(0), (n, 1)) for m in modalities},
                                np.zeros(n, int))
              for split, n in (("train", train), ("val", val), ("test", test))}
    return Dataset(name, splits, ("a", "b"))


def models(*rows, encoder="resnet18", stream=None, capacities=()):
    config = Config(stream=stream or StreamConfig(), encoders={
        m: EncoderConfig(encoder) for m in ("audio", "visual")})
    return variants.expand(rows, lambda name: dataclasses.replace(
        config, method=method_config(name)), capacities, ("audio", "visual"))


CREMAD = dataset("cremad", 6028, 670, 744)


def test_values_are_found_by_data_set_method_and_head():
    found = published.find(models("concat", "mla", "sgd"), CREMAD)["accuracy"]
    source = "arXiv 2311.10707, table 1"
    assert found["mla", None] == {
        "audio": Value(pytest.approx(0.5927), pytest.approx(0.0123), source, ()),
        "visual": Value(pytest.approx(0.6491), pytest.approx(0.0110), source, ()),
        "fused": Value(pytest.approx(0.7970), pytest.approx(0.0087), source, ())}
    assert {k: round(100 * v.mean, 2) for k, v in found["concat", None].items()}["audio"] == 55.65
    assert set(found) == {("concat", None), ("mla", None)}
    assert published.find(models("concat", "mla"), CREMAD._replace(name="tiny")) == {
        "accuracy": {}, "probe": {}}


def test_options_belong_to_the_method_whatever_their_order_and_spelling():
    rows = ["mla+projection=none", "mla+dynamic_fusion=false+projection=none", "mla+alpha=0.5"]
    found = published.find(models(*rows), CREMAD)["accuracy"]
    assert {row: round(100 * heads["fused"].mean, 2) for (row, _), heads in found.items()} == {
        rows[0]: 72.79, rows[1]: 66.32}
    assert found[rows[0], None]["fused"].source == "arXiv 2311.10707, table 3"


def test_on_streams_kind_memory_and_modality_choose_the_value():
    data = dataset("vggsound", 45000, 5000, 5000)
    runs = models("er", "er:audio", "joint:visual", capacities=[500, 700],
                  stream=StreamConfig(kind="class"))
    found = published.find(runs, data)["accuracy"]
    assert {row: {h: round(100 * v.mean, 2) for h, v in heads.items()}
            for row, heads in found.items()} == {
        ("er", 500): {"fused": 21.44}, ("er:audio", 500): {"audio": 13.92},
        ("joint:visual", None): {"visual": 34.52}}
    assert not any(v.differences for heads in found.values() for v in heads.values())
    tailed = StreamConfig(kind="generalized", long_tailed=True)
    assert published.find(models("sgd", stream=tailed), data)["accuracy"]["sgd", None][
        "fused"].mean == pytest.approx(0.2203)


def test_values_of_another_setting_are_marked_with_the_reason():
    small = dataset("cremad", 1000, 200, 744)
    value = published.find(models("mla", encoder="cnn"), small)["accuracy"]["mla", None]["audio"]
    assert value.differences == (
        "the encoder of audio is cnn, the paper's resnet18",
        "the encoder of visual is cnn, the paper's resnet18",
        "1200 training and validation examples, the paper has 6698")
    text = dataset("mvsa", 1555, 518, 519, ("text", "visual"))
    first, *_ = published.find(models("late"), text)["accuracy"]["late", None]["text"].differences
    assert first == "the encoder of text is auto, the paper's a pre-trained m3ae"


def test_the_table_has_a_column_of_published_values_beside_the_head_that_has_some():
    summaries = [Summary("late", None, h, "accuracy", 0.5, None, 1) for h in ("audio", "fused")]
    found = {("late", None): {"fused": Value(0.664, 0.012, "arXiv 1, table 2", ()),
                              "other": Value(0.1, None, "elsewhere", ())}}
    assert comparison.accuracy_table(summaries, ["audio"], published=found) == (
        "| method | audio | fused | fused, paper |\n"
        "| ------ | ----: | ----: | -----------: |\n"
        "| late   |  50.0 |  50.0 |   66.4 ± 1.2 |\n"
        "\nPaper: arXiv 1, table 2.\n")
    other = {("late", None): {"fused": Value(0.664, None, "arXiv 1, table 2", ("less", "more"))}}
    table = comparison.accuracy_table(summaries, ["audio"], published=other)
    assert r"|       66.4\* |" in table
    assert table.endswith("\nPaper: arXiv 1, table 2.\n\n\\* Not comparable: less; more.\n")
    assert "paper" not in comparison.accuracy_table(summaries, ["audio"]).lower()


def test_linear_probes_are_values_of_their_own(make_dataset, tmp_path):
    data = dataset("vggsound", 170000, 5000, 15000)
    found = published.find(models("concat", "unimodal", "umt"), data)
    assert {row: {h: round(100 * v.mean, 2) for h, v in heads.items()}
            for (row, _), heads in found["probe"].items()} == {
        "concat": {"visual": 15.56, "audio": 43.44}, "unimodal": {"visual": 23.17, "audio": 45.15},
        "umt": {"visual": 24.4, "audio": 45.9}}
    assert {row: list(heads) for (row, _), heads in found["accuracy"].items()} == {
        "concat": ["fused"], "umt": ["fused"]}
    scores = {"fused": {"accuracy": 0.5}, "audio": {"accuracy": 0.3, "probe": 0.4}}
    table, probes = comparison.write([comparison.Result("concat", 0, scores)], make_dataset(),
                                     tmp_path, "command", "", found).split("Linear probes:")
    assert r"49.5\*" in table and "43.4" not in table
    assert r"43.4\*" in probes and "49.5" not in probes


def test_every_published_value_can_be_read_and_has_a_protocol():
    protocols = {(r["paper"], r["dataset"]) for r in published._read("protocols")}
    assert len(list(published._rows())) == 282 + 96 + 150
    for row in published._rows():
        assert 0 < float(row["mean"]) <= 100
        if not row["setting"]:
            assert (row["paper"], row["dataset"]) in protocols, row
            published._canonical(row["method"])


def test_options_in_published_rows_are_options_of_their_methods():
    checked = set()
    for row in published._rows():
        method, _, options = variants.parse(row["method"]) if not row["setting"] else ("", "", {})
        if method in METHOD_CONFIGS:
            for option, value in options.items():
                variants.set_option(method_config(method), option, value)
                checked.add(f"{method}+{option}")
    assert checked == {"mla+projection", "mla+dynamic_fusion", "umt+weight",
                       "finetune+encoder_scale"}
