import dataclasses

import chex
import jax
import numpy as np
import pytest

from configs import (cremad, dom_vggsound, food101, gcil_vggsound, iemocap, iemocap_features, mvsa,
                     seq_vggsound, synthetic, ucf101, vggsound)
from jaxmm.batch import make_batch
from jaxmm.config import EncoderConfig
from jaxmm.data.dataset import Dataset
from jaxmm.encoders import make_encoder
from jaxmm.methods import METHODS, method_config
from jaxmm.report import comparison, published, variants
from jaxmm.report.published import Value
from jaxmm.report.records import Record
from jaxmm.train.options import to_dict


def dataset(name, train, val, test, modalities=("audio", "visual")):
    """Rows without any content: an array of one number, seen `rows` times."""
    splits = {split: make_batch({m: np.broadcast_to(np.float32(0), (n, 1)) for m in modalities},
                                np.zeros(n, int))
              for split, n in (("train", train), ("val", val), ("test", test))}
    return Dataset(name, splits, ("a", "b"))


def models(config, *rows, capacities=()):
    """Of a config for all methods, or of a function that has one for each."""
    config_for = config if callable(config) else lambda name: dataclasses.replace(
        config, method=method_config(name))
    return variants.expand(rows, config_for, capacities, tuple(config_for("late").encoders))


def records(method, *heads):
    return [Record(method, None, 0, "test", None, head, "accuracy", 0.5) for head in heads]


CREMAD, STREAM = dataset("cremad", 6028, 670, 744), dataset("vggsound", 45000, 5000, 5000)


def values(config, data, *rows, metric="accuracy", **options):
    """Published percentages, by row and head."""
    found = published.find(models(config, *rows, **options), data)[metric]
    return {row: {h: round(100 * v.mean, 2) for h, v in heads.items()}
            for row, heads in found.items()}


def differences(config, data, *rows, **options):
    """Why the values of all rows and heads cannot be compared, each reason once."""
    found = published.find(models(config, *rows, **options), data)["accuracy"]
    assert found
    return list(dict.fromkeys(d for heads in found.values() for v in heads.values()
                              for d in v.differences))


def test_values_are_found_by_data_set_method_and_head():
    found = published.find(models(cremad.get_config(), "concat", "mla", "sgd"), CREMAD)["accuracy"]
    source, notes = "arXiv 2311.10707, table 1", (
        "the paper's epoch is the best on test data, here it is the last",)
    assert found["mla", None] == {
        "audio": Value(pytest.approx(0.5927), pytest.approx(0.0123), source, (), notes),
        "visual": Value(pytest.approx(0.6491), pytest.approx(0.0110), source, (), notes),
        "fused": Value(pytest.approx(0.7970), pytest.approx(0.0087), source, (), notes)}
    assert {k: round(100 * v.mean, 2) for k, v in found["concat", None].items()}["audio"] == 55.65
    assert set(found) == {("concat", None), ("mla", None)}
    tiny = published.find(models(cremad.get_config(), "concat", "mla"), CREMAD._replace(name="tiny"))
    assert tiny == {"accuracy": {}, "probe": {}}


def test_balancing_methods_have_the_values_that_others_measured():
    """Not those of code that does something else, as that of BalanceBenchmark for agm and smv."""
    assert values(cremad.get_config, CREMAD, "agm", "opm", "smv") == {
        ("agm", None): {"fused": 69.71, "audio": 59.32, "visual": 43.72}, ("opm", None): {"fused": 68.75}}
    assert differences(cremad.get_config, CREMAD, "agm") == [
        "optimizer.learning_rate is 0.001, the paper's 0.002", "optimizer.decay_epochs is 70, the paper's 40",
        "train.epochs is 100, the paper's 80"]


def test_methods_with_phases_have_the_values_of_their_papers_or_of_others():
    """ReconBoost's own value is of another head, and is not shown."""
    rows = ["g2d", "g2d+tau=0", "pmr", "pmr+fusion=film", "reconboost", "reconboost+agreement=false", "relearn"]
    assert values(cremad.get_config, CREMAD, *rows) == {
        ("g2d", None): {"fused": 85.89}, ("g2d+tau=0", None): {"fused": 78.63},
        ("pmr", None): {"fused": 61.1, "audio": 57.83, "visual": 38.91}, ("pmr+fusion=film", None): {"fused": 61.8},
        ("reconboost+agreement=false", None): {"fused": 74.01}, ("relearn", None): {"fused": 71.02}}
    assert differences(cremad.get_config, CREMAD, "pmr+fusion=film") == []
    assert differences(cremad.get_config, CREMAD, "g2d") == [
        "optimizer.decay_epochs is 70, the paper's 200", "train.epochs is 100, the paper's 300",
        "train.batch_size is 64, the paper's 16", "data.preprocess.visual.frames is 3, the paper's 1"]


def test_options_belong_to_the_method_whatever_their_order_and_spelling():
    rows = ["mla+projection=none", "mla+dynamic_fusion=false+projection=none", "mla+alpha=0.5"]
    found = published.find(models(cremad.get_config(), *rows), CREMAD)["accuracy"]
    assert {row: round(100 * heads["fused"].mean, 2) for (row, _), heads in found.items()} == {
        rows[0]: 72.79, rows[1]: 66.32}
    assert found[rows[0], None]["fused"].source == "arXiv 2311.10707, table 3"
    assert not any(v.differences for heads in found.values() for v in heads.values())


def test_on_streams_kind_memory_and_modality_choose_the_value():
    config = seq_vggsound.get_config()
    assert values(config, STREAM, "er", "er:audio", "joint:visual", capacities=[500, 700]) == {
        ("er", 500): {"fused": 21.44}, ("er:audio", 500): {"audio": 13.92},
        ("joint:visual", None): {"visual": 34.52}}
    config.stream = gcil_vggsound.get_config().stream
    config.stream.long_tailed = True
    assert values(config, STREAM, "sgd")["sgd", None]["fused"] == 22.03


MLA_TABLE = ("sum", "concat", "late", "film", "gated", "ogm_ge", "qmf", "mla", "mla+projection=none")


@pytest.mark.parametrize("config, data, rows, capacities", [
    (cremad, CREMAD, MLA_TABLE, ()),
    (seq_vggsound, STREAM, ("joint", "sgd", "er", "er:audio", "samm"), (500, 1000)),
    (dom_vggsound, STREAM, ("joint", "sgd:visual", "er", "samm"), (500, 2000)),
    (gcil_vggsound, STREAM, ("joint", "sgd", "er", "samm"), (500, 2000)),
    (synthetic, dataset("synthetic_b", 3600, 400, 1000, ("first", "second")),
     ("unimodal", "mlp_head"), ())], ids=lambda x: getattr(x, "__name__", ""))
def test_nothing_is_starred_in_the_setting_of_the_paper(config, data, rows, capacities):
    assert not differences(config.get_config, data, *rows, capacities=capacities)


TRAINING = {        # what is wrong on every data set
    "train.epochs": (1, "train.epochs is 1, the paper's {}"),
    "train.batch_size": (8, "train.batch_size is 8, the paper's {}"),
    "train.accumulate": (4, "train.accumulate is 4, the paper's 1"),
    "optimizer.name": ("adam", "optimizer.name is adam, the paper's sgd"),
    "optimizer.momentum": (0.5, "optimizer.momentum is 0.5, the paper's {}"),
    "optimizer.weight_decay": (0.1, "optimizer.weight_decay is 0.1, the paper's {}"),
    "optimizer.schedule": ("cosine", "optimizer.schedule is cosine, the paper's {}"),
    "optimizer.clip_norm": (1.0, "optimizer.clip_norm is 1.0, the paper's 0"),
    "data.missing_rate": (0.5, "data.missing_rate is 0.5, the paper's 0"),
    "data.missing_modality": ("audio", "data.missing_modality is audio, the paper's none"),
    "data.preprocess.visual.frames": (1, "data.preprocess.visual.frames is 1, the paper's {}"),
    "data.preprocess.audio.n_fft": (1024, "data.preprocess.audio.n_fft is 1024, the paper's {}"),
    "encoders.audio.name": ("cnn", "the encoder of audio is cnn, the paper's resnet18"),
    "encoders.visual.width": (16, "encoders.visual.width is 16, the paper's 64"),
    "encoders.visual.stem": ("small", "encoders.visual.stem is small, the paper's standard"),
    "augment.audio.noise": (0.3, "augment.audio.noise is 0.3, the paper has none"),
}
PAPER = {"train.epochs": (100, 50), "train.batch_size": (64, 32), "optimizer.momentum": (0.9, 0),
         "optimizer.weight_decay": (0.0001, 0), "optimizer.schedule": ("step", "constant"),
         "data.preprocess.visual.frames": (3, 4), "data.preprocess.audio.n_fft": (512, 256)}
OWN = ({"optimizer.learning_rate": (9.0, "optimizer.learning_rate is 9.0, the paper's 0.001"),
        "optimizer.decay_epochs": (7, "optimizer.decay_epochs is 7, the paper's 70")},
       {"stream.num_tasks": (5, "stream.num_tasks is 5, the paper's 10")})


@pytest.mark.parametrize("number, config, data, rows", [
    (0, cremad.get_config, CREMAD, ("mla", "concat")),
    (1, seq_vggsound.get_config, STREAM, ("joint", "er"))], ids=["cremad", "seq_vggsound"])
def test_every_difference_is_named_alone(number, config, data, rows):
    wrong = TRAINING | OWN[number]
    assert len(wrong) >= 10
    for path, (value, reason) in wrong.items():
        made = config()
        *sections, name = path.split(".")
        section = made
        for key in sections:
            section = section[key] if isinstance(section, dict) else getattr(section, key)
        setattr(section, name, value)
        paper = PAPER.get(path, ("", ""))[number]
        assert differences(made, data, *rows, capacities=[500] * number) == [
            reason.format(paper)], path


def test_one_epoch_of_adam_on_half_missing_data_is_starred_in_the_table():
    config = cremad.get_config()
    config.train.epochs, config.optimizer.name, config.optimizer.learning_rate = 1, "adam", 9.0
    config.data.missing_rate = 0.5
    found = published.find(models(config, "mla"), CREMAD)["accuracy"]
    table = comparison.score_table(records("mla", "fused"), ["audio"], published=found)
    assert " 79.7 ± 0.9* |" in table
    assert table.endswith(
        "\nPaper: arXiv 2311.10707, table 1 (the paper's epoch is the best on test data, here it is "
        "the last).\n\n\\* Not comparable: data.missing_rate is 0.5, the paper's 0; optimizer.name is "
        "adam, the paper's sgd; optimizer.learning_rate is 9.0, the paper's 0.001; train.epochs is "
        "1, the paper's 100.\n")


def test_options_of_the_method_that_its_name_does_not_say_are_named():
    """Each data set has its own strength of OGM-GE, and image and text their weight of QMF."""
    def found(config, data, **options):
        made = config.get_config("ogm_ge")
        for name, value in options.items():
            setattr(made.method, name, value)
        model = models(lambda name: made, "ogm_ge")
        value = published.find(model, data)["accuracy"]["ogm_ge", None]["fused"]
        return [d for d in value.differences if "method" in d]

    clips = dataset("vggsound", 170000, 5000, 15000)
    assert found(vggsound, clips) == []
    assert found(vggsound, clips, alpha=0.8) == [
        "method.alpha of ogm_ge is 0.8, the paper's 0.1"]
    assert found(cremad, CREMAD, alpha=0.1, noise=False) == [
        "method.alpha of ogm_ge is 0.1, the paper's 0.8",
        "method.noise of ogm_ge is False, the paper's True"]
    assert food101.get_config("qmf").method.weight == mvsa.get_config("qmf").method.weight == 1
    assert cremad.get_config("qmf").method.weight == iemocap.get_config("qmf").method.weight == 0.1


def test_rates_of_missing_modalities_choose_among_the_values_of_table_2():
    data = dataset("iemocap", 2986, 332, 1107, ("audio", "text", "visual"))
    config = iemocap_features.get_config()
    for rate, value in ((0.1, 75.07), (0.5, 63.48)):
        config.data.missing_rate = rate
        found = published.find(models(config, "mla", "late"), data)["accuracy"]["mla", None]
        assert found["fused"].mean == pytest.approx(value / 100) and not found["fused"].differences
        assert found["fused"].source == "arXiv 2311.10707, table 2" and list(found) == ["fused"]
    # What the paper leaves open is no difference, and said; other masks and rates of learning are.
    assert "the paper does not give optimizer.name, " in found["fused"].notes[0]
    config.encoders["text"].depth, config.data.missing_modality = 2, "audio"
    config.data.missing_scheme, config.optimizer.learning_rate = "independent", 0.01
    assert differences(config, data, "mla") == [
        "data.missing_modality is audio, the paper's none", "optimizer.learning_rate is 0.01, the paper's 0.001",
        "data.missing_scheme is independent, the paper's exact",
        "encoders.text.depth is 2, the paper's 3"]
    config.data.missing_rate = 0.25
    assert published.find(models(config, "mla"), data)["accuracy"] == {}


def test_other_numbers_of_examples_and_absent_modalities_are_named():
    config = cremad.get_config()
    assert differences(config, dataset("cremad", 1000, 200, 744), "mla") == [
        "1200 training and validation examples, the paper has 6698",
        "1000 training examples, the paper has 6698"]
    assert differences(config, dataset("cremad", 3349, 3349, 744), "mla") == [
        "3349 training examples, the paper has 6698"]
    assert differences(config, dataset("cremad", 6028, 670, 7440), "mla") == [
        "7440 test examples, the paper has 744"]
    data = dataset("cremad", 6028, 670, 744)
    data.splits["train"]["present"]["audio"] = np.arange(6028) % 4 > 0
    assert differences(config, data, "mla") == ["25.0% of the training examples lack a modality"]


MVSA = dataset("mvsa", 1555, 518, 519, ("text", "visual"))


@pytest.mark.parametrize("config, data", [
    (mvsa, MVSA), (food101, dataset("food101", 56673, 6297, 22714, ("text", "visual"))),
    (iemocap, dataset("iemocap", 2986, 332, 1107, ("audio", "text", "visual")))])
def test_configs_with_the_encoders_of_the_paper_can_be_compared(config, data):
    assert differences(config.get_config(), data, "late", "mla") == []


def test_other_starts_of_the_encoders_are_named():
    config = mvsa.get_config()
    config.encoders["text"].weights = ""
    config.encoders["visual"].pool, config.encoders["visual"].frozen = "mean", True
    assert differences(config, MVSA, "late") == [
        "the encoder of text starts from scratch, the paper's from pretrained weights",
        "encoders.visual.pool is mean, the paper's all", "encoders.visual.frozen is True, the paper's False"]
    config = mvsa.get_config()
    config.encoders["text"] = EncoderConfig(name="bert", weights="minilm.safetensors")
    assert differences(config, MVSA, "late") == ["the encoder of text is bert, the paper's a pre-trained m3ae"]
    config = cremad.get_config()
    config.encoders["visual"].weights = "resnet18.safetensors"
    assert differences(config, CREMAD, "late") == [
        "the encoder of visual starts from pretrained weights, the paper's from scratch"]


def test_a_width_of_the_network_itself_is_the_one_that_is_published():
    x = np.zeros((1, 32, 32, 3), np.float32)
    for name, width in published.OWN_WIDTH.items():
        shapes = [jax.eval_shape(lambda c=EncoderConfig(name, width=w): make_encoder(c, 3).init(
            jax.random.key(0), x)) for w in (0, width)]
        chex.assert_trees_all_equal(*shapes)


def test_the_table_has_a_column_of_published_values_beside_the_head_that_has_some():
    table = records("late", "audio", "fused")
    found = {("late", None): {"fused": Value(0.664, 0.012, "arXiv 1, table 2", ()),
                              "other": Value(0.1, None, "elsewhere", ())}}
    assert comparison.score_table(table, ["audio"], published=found) == (
        "| method | audio | fused | fused, paper |\n"
        "| ------ | ----: | ----: | -----------: |\n"
        "| late   |  50.0 |  50.0 |   66.4 ± 1.2 |\n"
        "\nPaper: arXiv 1, table 2.\n")
    other = {("late", None): {"fused": Value(0.664, None, "arXiv 1, table 2", ("less", "more"))}}
    shown = comparison.score_table(table, ["audio"], published=other)
    assert "|        66.4* |" in shown
    assert shown.endswith("\nPaper: arXiv 1, table 2.\n\n\\* Not comparable: less; more.\n")
    assert "paper" not in comparison.score_table(table, ["audio"]).lower()


def test_linear_probes_are_values_of_their_own(make_dataset, tmp_path):
    data = dataset("vggsound", 170000, 5000, 15000)
    found = published.find(models(vggsound.get_config(), "concat", "unimodal", "umt"), data)
    assert {row: {h: round(100 * v.mean, 2) for h, v in heads.items()}
            for (row, _), heads in found["probe"].items()} == {
        "concat": {"visual": 15.56, "audio": 43.44}, "unimodal": {"visual": 23.17, "audio": 45.15},
        "umt": {"visual": 24.4, "audio": 45.9}}
    assert {row: list(heads) for (row, _), heads in found["accuracy"].items()} == {
        "concat": ["fused"], "umt": ["fused"]}
    scores = {"fused": {"accuracy": 0.5}, "audio": {"accuracy": 0.3, "probe": 0.4}}
    table, probes = comparison.write([comparison.Result("concat", 0, scores)], make_dataset(),
                                     tmp_path, "command", "", found).split("Linear probes:")
    assert "49.5*" in table and "43.4" not in table
    assert "43.4*" in probes and "49.5" not in probes


def test_every_published_value_can_be_read_and_has_a_protocol():
    assert len(list(published._rows())) == 282 + 96 + 150 + 2 * (42 + 8) + 12 + 12 + 5 + 3 + 11 + 2
    for row in published._rows():
        assert 0 < float(row["mean"]) <= 100
        if not row["setting"] or row["setting"].startswith("data."):
            method = variants.parse(row["method"])[0]
            protocol = published._protocol(row["paper"], row["dataset"], method)
            assert {"examples.train", "examples.val", "examples.test", "optimizer.name",
                    "train.epochs", "train.batch_size"} <= set(protocol), row
            published._canonical(row["method"])


def test_protocols_have_options_that_there_are():
    """An option that is misspelt would star every value, or none."""
    configs = {"seq_vggsound": seq_vggsound, "ucf101": ucf101, "food101": food101, "": cremad}
    for row in published._read("protocols"):
        section, _, name = row["option"].partition(".")
        if section in ("data", "stream", "optimizer", "train"):
            made = configs.get(row["dataset"], cremad).get_config()
            made.data.preprocess |= food101.get_config().data.preprocess
            assert published._get(to_dict(made), row["option"]) is not None, row
        elif section == "encoders":
            assert {pair.split("=")[0] for pair in row["value"].split()[1:]} <= set(
                published.NETWORK + published.LEARNED), row
        elif section == "method":
            variants.set_option(method_config(row["method"]), name, row["value"], "published")
        else:
            assert section in ("examples", "selection"), row


def test_slices_of_a_head_on_frozen_encoders_are_not_those_of_joint_training():
    data = dataset("ucf101", 8600, 900, 3800, ("flow", "visual"))
    found = values(ucf101.get_config("umt"), data, "frozen_linear", "concat")
    assert found["frozen_linear", None] == {"fused": 84.4, "visual": 68.2, "flow": 52.9}
    assert found["concat", None] == {"fused": 82.3}


def test_options_in_published_rows_are_options_of_their_methods():
    checked = set()
    for row in published._rows():
        method, _, options = variants.parse(row["method"]) if not row["setting"] else ("", "", {})
        if method in METHODS:
            for option, value in options.items():
                variants.set_option(method_config(method), option, value, "published")
                checked.add(f"{method}+{option}")
    assert checked == {"mla+projection", "mla+dynamic_fusion", "umt+weight",
                       "finetune+encoder_scale", "g2d+alpha", "g2d+beta", "g2d+tau", "pmr+fusion", "reconboost+agreement"}
