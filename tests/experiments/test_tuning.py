import csv
import json

import jax
import numpy as np
import pytest

from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.experiments import compare, configs, tuning
from jaxmm.report import comparison
from jaxmm.report import tuning as report
from jaxmm.report.records import Record
from jaxmm.train import schedule
from jaxmm.train.folder import read_config
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]


pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(name="chosen")
def make_chosen(choose_arrays):
    """A config of arrays of two modalities in an .npz file: 24, 16 and 8 rows."""
    return choose_arrays((24, 16, 8), {"train.epochs": 2, "train.batch_size": 8})


def run(chosen, methods, folder, tune, seeds=1, **options):
    return compare.compare(chosen, methods, seeds, str(folder), (), False, "command", tune=tune, **options)


def history(folder):
    return [record for record in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            if record["kind"] == "eval"]


def test_the_best_setting_on_validation_is_that_of_the_runs_and_test_data_are_used_once(
        chosen, tmp_path, capsys):
    folder, tune = tmp_path / "work", "optimizer.learning_rate=1e-30,0.05,1e30"
    run(chosen, ["late", "umt+weight=0.1"], folder, tune, seeds=2, baseline="late")
    said, report = capsys.readouterr().out, (folder / "report.md").read_text()
    with open(folder / "tuning.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == 3 * ["late"] + 3 * ["umt+weight=0.1"]
    for name in "late", "umt+weight=0.1":
        trials = {value: folder / f"tuning/{name}/learning_rate_{value}/seed_0" for value in ("1e-30", "0.05")}
        reached = {value: history(path)[-1]["scores"]["fused"]["accuracy"] for value, path in trials.items()}
        assert reached["0.05"] > reached["1e-30"]        # or this test says nothing
        written = {r["optimizer.learning_rate"]: r["accuracy"] for r in rows if r["method"] == name}
        assert {value: float(x) for value, x in written.items() if x} == reached and written["1e30"] == ""
        assert all(record["split"] == "val" for path in trials.values() for record in history(path))
        for seed in 0, 1:
            assert read_config(folder / f"{name}/seed_{seed}").optimizer.learning_rate == 0.05
        assert f"{name}: 1e-30: {100 * reached['1e-30']:.1f}, 0.05: {100 * reached['0.05']:.1f}, " in said
    # Teachers of a run have its options, and are its own.
    teacher = read_config(folder / "umt+weight=0.1/seed_1/teachers/unimodal_image")
    assert (teacher.optimizer.learning_rate, teacher.train.seed) == (0.05, 1001)
    # It is the run that these options make alone.
    alone = schedule.train(replace(chosen.config, {"optimizer.learning_rate": 0.05}), tmp_path / "alone",
                           devices=ONE, progress=False)
    assert restore(folder / "late/seed_0", devices=ONE).history[-1]["scores"] == alone.history[-1]["scores"]
    # 24 rows, 2 epochs: 48 examples of every trial that did not diverge before its first record, 2 * 48 in runs.
    late, = (line.split("|")[1:-1] for line in report.splitlines() if line.startswith("| late") and "0.05" in line)
    assert [cell.strip() for cell in late][4:7] == ["0.05", "9.6e-05", "9.6e-05"]
    assert "Every method had the same trials: 3 settings of `optimizer.learning_rate`" in report
    assert "## Against late" in report
    before = (folder / "late/seed_0/metrics.jsonl").stat().st_mtime_ns
    run(chosen, ["late"], folder, tune, seeds=2)
    assert (folder / "late/seed_0/metrics.jsonl").stat().st_mtime_ns == before       # reused


def test_a_method_of_which_all_trials_diverge_does_not_stop_the_others(chosen, tmp_path, monkeypatch):
    """Nor does it as the baseline of the others; where no method is left, that is the error."""
    def config_for(chosen, method):
        rate = 0.1 if method == "concat" else 1e30
        return replace(configs.load(f"arrays:{method}"), chosen.overrides | {
            "optimizer.learning_rate": rate, "train.epochs": 3})

    monkeypatch.setattr(configs, "config_for", config_for)
    tune = "optimizer.weight_decay=0,1e-4"
    shown = run(chosen, ["concat", "late"], tmp_path / "work", tune, baseline="late")
    row, = (line for line in shown.splitlines() if line.startswith("| late"))
    assert "diverged" in row and not (tmp_path / "work/late").exists()
    # The run that one is told to look into is one that there is.
    assert shown.splitlines()[-2].endswith("work/concat/seed_0")
    assert shown.splitlines()[-1].startswith("Diverged: late (1 of 1 runs);")
    report = (tmp_path / "work/report.md").read_text().splitlines()
    assert ["late", "diverged", "diverged", "none"] in [
        [cell.strip() for cell in line.split("|")[1:5]] for line in report]
    assert "There are no seeds in which both late and another method have a result." in report
    with pytest.raises(FloatingPointError, match="work: all 1 methods diverged"):
        run(chosen, ["late"], tmp_path / "work", tune)


def test_all_sizes_of_a_memory_have_the_options_chosen_with_one(choose_arrays, tmp_path):
    """Trials are those of that size alone, and of methods without a memory."""
    chosen = choose_arrays((24, 16, 8), {"train.epochs": 1, "train.batch_size": 8, "stream.kind": "class",
                                         "stream.num_tasks": 2})
    folder, values = tmp_path / "work", ("1e-30", "0.05")
    compare.compare(chosen, ["er", "sgd"], 1, str(folder), ["8", "16"], False, "command",
                    tune=f"optimizer.learning_rate={','.join(values)}", tune_capacity=16)
    assert {path.name for path in (folder / "tuning").iterdir() if path.is_dir()} == {"er_16", "sgd"}
    rows = list(csv.DictReader((folder / "tuning.csv").read_text().splitlines()))
    scores = {row["optimizer.learning_rate"]: float(row["mean_accuracy"]) for row in rows if row["method"] == "er"}
    best = max(values, key=scores.get)      # the first of equal ones
    for size in (8, 16):
        assert read_config(folder / f"er_{size}/seed_0").optimizer.learning_rate == float(best)
    report = (folder / "report.md").read_text()
    assert "chosen with a memory of 16 examples, and those of other sizes have them too" in report
    # Examples of the runs of both sizes: twice those of a trial, of which there are two.
    er, = (line.split("|")[1:-1] for line in report.splitlines()
           if line.startswith("| er ") and best in [cell.strip(" *\\") for cell in line.split("|")])
    assert er[-3].strip() == er[-2].strip() != "0"


def test_trials_of_options_of_the_method_share_their_teachers(chosen, tmp_path):
    run(chosen, ["umt"], tmp_path / "work", "method.weight=0,0.1", tune_seeds=2)
    own = tmp_path / "work/tuning/umt"
    assert sorted(str(p.parent.relative_to(own)) for p in own.rglob("config.json")) == sorted(
        [f"weight_{value}/seed_{seed}" for value in ("0", "0.1") for seed in (0, 1)] +
        [f"teachers/unimodal_{m}/seed_{seed}" for m in ("image", "sound") for seed in (1000, 1001)])


def test_on_a_stream_options_are_chosen_by_validation_after_the_last_task(chosen, tmp_path):
    """Trials see no test data; the runs are tested after every task, and say what they cost."""
    options = {"stream.kind": "class", "stream.num_tasks": 2, "train.epochs": 1}
    chosen = chosen._replace(config=replace(chosen.config, options), overrides=chosen.overrides | options)
    folder = tmp_path / "work"
    run(chosen, ["er+capacity=8"], folder, "optimizer.learning_rate=1e-30,0.05")
    with open(folder / "tuning.csv", encoding="utf-8") as file:
        written = {row["optimizer.learning_rate"]: float(row["mean_accuracy"]) for row in csv.DictReader(file)}
    for value, score in written.items():
        found = history(folder / f"tuning/er_8/learning_rate_{value}/seed_0")
        assert [(r["split"], r["task"]) for r in found] == [("val", 0), ("val", 1)]
        assert np.mean(found[-1]["class_incremental"]["fused"]) == pytest.approx(score)
    best = max(written, key=written.get)
    assert read_config(folder / "er_8/seed_0").optimizer.learning_rate == float(best)
    tested = [r for r in history(folder / "er_8/seed_0") if r["split"] == "test"]
    assert [r["task"] for r in tested] == [-1, 0, 1] and sum(tested[-1]["exposure"]) == 24
    report = (folder / "report.md").read_text()
    size = sum(x.nbytes for x in jax.tree.leaves(restore(folder / "er_8/seed_0", devices=ONE).state))
    with open(folder / "seeds.csv", encoding="utf-8") as file:
        found, = (float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "state_bytes")
    assert found == pytest.approx(size, abs=16)        # of keys what they are depends on who is asked
    assert f" {found:.0f} |" in report.partition("## Cost")[2] and "## By class" not in report


def test_differences_are_paired_by_seed():
    values = {("late", "fused"): (0.5, 0.7, 0.9), ("mla", "fused"): (0.6, 0.7, 1.0), ("mla", "dynamic"): (0.5, 0.9, 0.9),
              ("unimodal", "image"): (0.4, 0.7), ("unimodal", "sound"): (0.5, 0.6)}
    table = [Record(method, None, seed, "test", None, head, "accuracy", value)
             for (method, head), found in values.items() for seed, value in enumerate(found)]
    rows = comparison.difference_rows(table, "accuracy", "late")
    # mla's head is dynamic: 0, 0.2, 0; mean 0.0667, deviation 0.1155, over the root of 3.
    assert [(r["method"], r["head"], r["difference"], r["seeds"]) for r in rows] == [
        ("mla", "dynamic", "+6.7 ± 6.7", "3"), ("unimodal", "image", "-5.0 ± 5.0", "2"),
        ("unimodal", "sound", "-5.0 ± 5.0", "2")]
    assert not comparison.difference_rows(table, "accuracy", "sum")       # all runs of it diverged


def test_differences_are_to_the_baseline_with_a_memory_of_the_same_size():
    values = {("er", 50): 0.5, ("er", 100): 0.6, ("samm", 50): 0.7, ("samm", 100): 0.7, ("sgd", None): 0.2}
    table = [Record(method, size, 0, "test", None, "fused", "accuracy", value)
             for (method, size), value in values.items()]

    def found(baseline):
        return [(r["method"], r["buffer"], r["difference"])
                for r in comparison.difference_rows(table, "accuracy", baseline)]

    assert found("er") == [("samm", 50, "+20.0"), ("samm", 100, "+10.0"), ("sgd", 50, "-30.0"), ("sgd", 100, "-40.0")]
    assert found("sgd") == [("er", 50, "+30.0"), ("er", 100, "+40.0"), ("samm", 50, "+50.0"), ("samm", 100, "+50.0")]


def test_examples_are_counted_by_modality():
    assert report.millions({"image": 2_000_000, "sound": 2_000_000}) == "2"
    assert report.millions({"image": 2_000_000, "sound": 0}) == "image 2"
    assert report.millions({"image": 0, "sound": 0}) == "0"


def test_settings_are_all_combinations():
    assert tuning.parse("optimizer.name=sgd,adam; method.alpha=1") == [
        {"optimizer.name": "sgd", "method.alpha": "1"}, {"optimizer.name": "adam", "method.alpha": "1"}]
    config = configs.load("arrays:mla")
    assert tuning.typed(config, {"optimizer.name": "adam", "train.batch_size": "4", "method.alpha": "1e-2"}) == {
        "optimizer.name": "adam", "train.batch_size": 4, "method.alpha": 0.01}


@pytest.mark.parametrize("tune, options, message", [
    ("optimizer.learning_rate", {}, "expected OPTION=VALUE,VALUE"),
    ("optimizer.learning_rate=0.1,", {}, "expected OPTION=VALUE,VALUE"),
    ("optimizer.learning_rate=0.1,0.1", {}, "is there twice"),
    ("method.alpha=1;method.alpha=2", {}, "is there twice"),
    ("data.missing_rate=0,0.5", {}, "'data.missing_rate' cannot be tuned; expected an option of method, optimizer"),
    ("train.seed=0,1", {}, "'train.seed' cannot be tuned"),
    ("train.epochs=1,2", {}, "--tune sets train.epochs; leave out --config.train.epochs"),
    ("optimizer.learning_rat=1", {}, "--tune: optimizer has no option 'learning_rat'; did you mean learning_rate"),
    ("optimizer.learning_rate=fast", {}, "--tune: learning_rate='fast' of optimizer; expected a number"),
    ("method.alpha=1", {}, "--tune: late has no option 'alpha'; expected one of modalities"),
    ("method.name=mla", {}, "--tune: late has no option 'name'"),
    ("", {"tune_seeds": 2}, "--tune_seeds=2 needs --tune"),
    ("optimizer.learning_rate=1", {"tune_seeds": 0}, "--tune_seeds=0; expected 1 to"),
    ("", {"tune_capacity": 8}, "--tune_capacity=8 needs --tune"),
    ("optimizer.learning_rate=1", {"tune_capacity": 8}, "--tune_capacity=8; expected one of --capacities=none"),
    ("optimizer.learning_rate=1", {"folds": 2}, "--tune does not go with --folds=2"),
    ("optimizer.learning_rate=1", {"baseline": "lat"}, "--baseline=lat: not in this comparison; did you mean late"),
    ("optimizer.learning_rate=-1", {}, "learning_rate"),
    (";".join(f"optimizer.{o}=0,1,2,3,4,5,6,7,8,9" for o in ("momentum", "clip_norm", "weight_decay", "decay_rate")),
     {}, "has 10000 settings; expected at most"),
])
def test_what_cannot_be_tuned_is_refused_before_anything_is_made(chosen, tune, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(chosen, ["late"], tmp_path / "work", tune, **options)
    assert not (tmp_path / "work").exists()
