import csv
import functools
import json

import chex
import jax
import numpy as np
import pytest

from jaxmm.config import EncoderConfig, replace
from jaxmm.errors import UserError
from jaxmm.experiments import compare, configs, folders, planning
from jaxmm.report import comparison
from jaxmm.report.analysis import probe_run
from jaxmm.train import folder as folder_lib, schedule
from jaxmm.train.predictions import predict_split
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]
pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(name="config_for", scope="module")
def make_config_for(make_config):
    def config_for(method):
        config = make_config(method, epochs=1)
        if method == "unimodal":
            config.method.modality = ""
        return config
    return config_for



def test_plan_has_a_run_for_each_method_modality_and_seed(config_for, make_dataset, tmp_path):
    runs = planning.plan_runs(config_for, ["unimodal", "mla", "mla"], 2, make_dataset(), tmp_path)
    assert [str(r.workdir.relative_to(tmp_path)) for r in runs] == [
        "unimodal_image/seed_0", "unimodal_image/seed_1", "unimodal_sound/seed_0",
        "unimodal_sound/seed_1", "mla/seed_0", "mla/seed_1"]
    assert [r.variant.method for r in runs] == 4 * ["unimodal"] + 2 * ["mla"]
    assert [r.config.train.seed for r in runs] == [0, 1, 0, 1, 0, 1]
    assert {r.config.data.seed for r in runs} == {0}
    assert [r.config.method.modality for r in runs[:4]] == 2 * ["image"] + 2 * ["sound"]


def test_seeds_start_at_that_of_the_config(config_for, make_dataset, tmp_path):
    def from_seven(method):
        config = config_for(method)
        config.train.seed = 7
        return config

    runs = planning.plan_runs(from_seven, ["late"], 2, make_dataset(), tmp_path)
    assert [(r.config.train.seed, r.workdir.name) for r in runs] == [(7, "seed_7"), (8, "seed_8")]


def test_runs_are_made_once_and_give_the_table(config_for, make_dataset, tmp_path, capsys):
    dataset = make_dataset()

    def compare_methods(*methods):
        runs = planning.plan_runs(config_for, methods, 1, dataset, tmp_path)
        return list(compare.make_runs(runs, dataset, progress=False))

    first = compare_methods("unimodal")
    assert [list(r.scores) for r in first] == [["image"], ["sound"]]
    metrics = tmp_path / "unimodal_sound/seed_0/metrics.jsonl"
    written = metrics.read_text()
    capsys.readouterr()
    results = compare_methods("unimodal", "late")
    assert metrics.read_text() == written and results[:2] == first      # reused
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["[1/3]", "[2/3]", "[3/3]"]
    assert f"image {100 * first[0].scores['image']['accuracy']:.1f} (" in lines[0]

    def cells(scores):
        return [f"{100 * scores[h]['accuracy']:.1f}" if h in scores else ""
                for h in ("image", "sound", "fused")]

    table = comparison.write(results, dataset, tmp_path, "command")
    assert [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[::2]] == [
        ["method", "image", "sound", "fused"],
        ["unimodal", *cells(first[0].scores | first[1].scores)]]
    assert [c.strip() for c in table.splitlines()[3].split("|")[1:-1]] == [
        "late", *cells(results[2].scores)]


def test_a_comparison_has_one_test_set(config_for, make_dataset, tmp_path):
    """A run that was scored before test labels were corrected, and one that comes after."""
    old = make_dataset()
    test = old.splits["test"]
    new = old._replace(splits=old.splits | {"test": test | {"label": (test["label"] + 1) % 3}})
    runs = planning.plan_runs(config_for, ["concat"], 1, old, tmp_path)
    first, = compare.make_runs(runs, old, progress=False)
    runs = planning.plan_runs(config_for, ["concat", "late"], 1, new, tmp_path)
    again, _ = compare.make_runs(runs, new, progress=False)
    expected, = compare.make_runs(planning.plan_runs(config_for, ["concat"], 1, new, tmp_path / "new"),
                                  new, progress=False)
    assert again.scores == expected.scores != first.scores
    assert (again.changed, expected.changed) == (("test",), ())
    # Other training data are found before anything is made.
    train = old.splits["train"]
    other = old._replace(splits=old.splits | {"train": train | {"label": (train["label"] + 1) % 3}})
    with pytest.raises(UserError, match="concat/seed_0: tiny is not the data this run was trained on"):
        planning.plan_runs(config_for, ["sum", "concat"], 1, other, tmp_path)
    assert not (tmp_path / "sum").exists()


def test_methods_that_diverge_are_marked_and_the_others_go_on(config_for, make_dataset, tmp_path,
                                                             capsys):
    """The unimodal teachers of ume diverge, and late itself."""
    def with_rates(method):
        rate = 0.1 if method == "concat" else 1e30
        return replace(config_for(method), {"optimizer.learning_rate": rate, "train.epochs": 3})

    dataset = make_dataset()
    runs = planning.plan_runs(with_rates, ["late", "ume", "concat"], 1, dataset, tmp_path)
    late, ume, concat = compare.make_runs(runs, dataset, progress=False)
    assert late.diverged and ume.diverged and concat.scores["fused"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"[1/3] diverged: {tmp_path}/late/seed_0: the loss of step ")
    assert lines[1].startswith(f"[2/3] diverged: {tmp_path}/ume/seed_0 starts from unimodal_image: "
                               f"{tmp_path}/unimodal_image/seed_0: the loss of step ")
    assert lines[2].startswith(f"[3/3] {tmp_path}/concat/seed_0: ")


def test_the_table_is_complete_where_a_method_diverges(choose_arrays, tmp_path):
    """Also if it is the baseline of the others, and the last one. Where all do there is an error."""
    chosen = choose_arrays((24, 16, 8), {"train.epochs": 3, "train.batch_size": 8})
    lost = "qmf+weight=1e30"

    def run(methods, **options):
        return compare.compare(chosen, methods, 1, str(tmp_path / "work"), (), False, "command", **options)

    said = run(["late", lost], baseline=lost).splitlines()
    rows = {line.split("|")[1].strip(): line for line in said if line.startswith("| ")}
    assert "diverged" in rows[lost] and "diverged" not in rows["late"]
    assert said[-2].endswith("work/late/seed_0")
    assert said[-1] == f"Diverged: {lost} (1 of 1 runs); the lines on these runs say what to do."
    report = (tmp_path / "work/report.md").read_text()
    assert rows["late"] in report and rows[lost] in report and "There are no seeds in which both" in report
    with pytest.raises(FloatingPointError, match="work: all 1 runs diverged"):
        run([lost])


def test_everything_wrong_is_found_before_anything_is_made(config_for, make_dataset, tmp_path):
    dataset, workdir = make_dataset(), tmp_path / "work"

    def plan(methods, seeds=1, change=lambda config: None):
        def changed(method):
            config = config_for(method)
            change(config)
            return config
        return planning.plan_runs(changed, methods, seeds, dataset, workdir)

    def widen(config):
        config.encoders["sound"] = EncoderConfig(name="mlp", width=9, depth=1)

    def rename(config):
        config.method.name = "sum"

    with pytest.raises(UserError, match="method 'mlb' is unknown; did you mean mla. Expected one of unimodal, "):
        plan(["concat", "mlb"])
    with pytest.raises(UserError, match="--seeds=0; expected 1 to 1000"):
        plan(["concat"], 0)
    with pytest.raises(UserError, match="--methods is empty"):
        plan([])
    with pytest.raises(UserError, match="mla shares one head"):     # only its shapes tell
        plan(["concat", "mla"], change=widen)
    with pytest.raises(UserError, match="here --methods names the methods"):
        plan(["concat"], change=rename)
    with pytest.raises(UserError, match="method.modality='smell'; expected"):
        plan(["unimodal"], change=lambda c: setattr(c.method, "modality", "smell"))
    with pytest.raises(UserError, match="train.seeds=3 is for `jaxmm train`"):
        plan(["concat", "mla"], change=lambda c: setattr(c.train, "seeds", 3))
    with pytest.raises(UserError, match="typo/unimodal_image is not a run folder"):
        plan(["umt"], change=lambda c: setattr(c.method, "teachers", "typo/{teacher}"))
    assert not workdir.exists()
    plan(["late"])
    before = sorted(workdir.rglob("*"))
    with pytest.raises(UserError, match="late/seed_0 belongs to a run with another config: "
                                        "train.eval_epochs was 1, is 2"):
        plan(["concat", "late"], 2, lambda c: setattr(c.train, "eval_epochs", 2))
    assert sorted(workdir.rglob("*")) == before


def test_a_run_that_another_process_trains_is_found_before_anything_is_made(config_for, make_dataset,
                                                                            tmp_path):
    dataset = make_dataset()
    run, = planning.plan_runs(config_for, ["late"], 1, dataset, tmp_path)
    with folder_lib.lock(run.workdir):
        with pytest.raises(UserError, match="late/seed_0 is in use by process"):
            planning.plan_runs(config_for, ["concat", "late"], 1, dataset, tmp_path)
    assert not (tmp_path / "concat").exists()


@pytest.mark.parametrize("name, methods, data", [
    ("synthetic", ("unimodal", "mlp_head"), "synthetic_B"), ("av_digits", None, "av_digits"),
    ("seq_av_digits", None, "av_digits_class")])
def test_a_config_file_may_name_the_methods_worth_comparing(name, methods, data):
    assert configs.default_methods(name) == configs.default_methods(f"configs/{name}.py:mla") == methods
    assert folders.data_name(configs.load(name)) == data


def test_teachers_are_runs_of_the_comparison_and_probes_a_table(config_for, make_dataset, tmp_path):
    """ume trains unimodal models of its seed, which the row of unimodal then reuses; umt other ones."""
    dataset = make_dataset()
    runs = planning.plan_runs(config_for, ["ume", "unimodal", "umt"], 1, dataset, tmp_path / "all")
    ume, image, sound, _ = compare.make_runs(runs, dataset, probe=True, progress=False)
    assert not (tmp_path / "all/ume/seed_0/teachers").exists()
    assert not (tmp_path / "all/umt/seed_0/teachers").exists()
    for m, alone in (("image", image), ("sound", sound)):
        assert ume.scores[m] == alone.scores[m]
        trained = restore(tmp_path / f"all/unimodal_{m}/seed_0", dataset=dataset, devices=ONE)
        assert alone.scores[m]["probe"] == probe_run(trained)[m]
        imitated = json.loads((tmp_path / f"all/unimodal_{m}/seed_1000/config.json").read_text())
        assert imitated["train"]["seed"] == 1000
    table = comparison.write([ume, image, sound], dataset, tmp_path / "all", "command")
    probes = [f"{100 * r.scores[m]['probe']:.1f}" for r, m in ((image, "image"), (sound, "sound"))]
    assert table.splitlines()[-1].split() == ["|", "unimodal", "|", probes[0], "|", probes[1], "|"]
    assert "## What the encoders know" in (tmp_path / "all/report.md").read_text()


@pytest.fixture(name="chosen")
def make_chosen(make_dataset, tmp_path):
    """Rows without a test split, in an .npz file, as a config and the methods to compare on it."""
    train = make_dataset(rows=(30, 3, 3)).splits["train"]
    np.savez(tmp_path / "rows.npz", **{f"train/{m}": x for m, x in train["inputs"].items()},
             **{"train/label": train["label"], "train/group": np.arange(30) // 2})
    overrides = {"data.path": str(tmp_path / "rows.npz"), "train.epochs": 1, "train.batch_size": 8}
    return configs.Chosen("arrays:late", replace(configs.load("arrays:late"), overrides), overrides)


def test_folds_test_every_row_once_and_take_the_place_of_seeds(chosen, tmp_path):
    folder = tmp_path / "work"
    said = compare.compare(chosen, ["late", "ume"], 1, str(folder), [], False, "command", folds=3)
    tested, values = [], {}
    for fold in range(3):
        run = restore(folder / f"late/fold_{fold}/seed_0", devices=ONE)
        tested += run.setup.dataset.splits["test"]["id"].tolist()
        values[fold] = run.history[-1]["scores"]["fused"]["accuracy"]
        # Teachers are of the same fold: others have seen what it tests.
        teacher = json.loads((folder / f"unimodal_image/fold_{fold}/seed_0/config.json").read_text())
        assert (teacher["data"]["folds"], teacher["data"]["fold"]) == (3, fold)
    assert sorted(tested) == list(range(30))
    with open(folder / "seeds.csv", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if (r["method"], r["head"], r["metric"]) == ("late", "fused", "accuracy")]
    assert {int(r["seed"]): float(r["value"]) for r in rows} == pytest.approx(values)
    mean, std = 100 * np.mean([*values.values()]), 100 * np.std([*values.values()], ddof=1)
    assert f"{mean:.1f} ± {std:.1f}" in said
    report = (folder / "report.md").read_text()
    assert "mean and deviation of 3 folds" in report and "seeds," not in report
    assert "n = 3 folds" in (folder / "comparison.tex").read_text()
    # One fold by itself is the same run.
    config = replace(chosen.config, {"data.folds": 3, "data.fold": 1})
    alone = schedule.train(config, tmp_path / "alone", devices=ONE, progress=False)
    assert alone.history[-1]["scores"]["fused"]["accuracy"] == values[1]


def test_folds_on_several_devices_are_those_of_one(chosen, tmp_path, monkeypatch):
    runs = {}
    for count in (1, 2):
        monkeypatch.setattr(compare, "train_many", functools.partial(
            schedule.train_many, devices=jax.devices()[:count]))
        compare.compare(chosen, ["late"], 1, str(tmp_path / f"{count}"), [], False, "command", folds=2)
        runs[count] = [restore(tmp_path / f"{count}/late/fold_{fold}/seed_0", devices=ONE) for fold in range(2)]
    for one, two in zip(*runs.values()):
        test = one.setup.dataset.splits["test"]
        assert test["id"].tolist() == two.setup.dataset.splits["test"]["id"].tolist()
        chex.assert_trees_all_close(predict_split(one.setup, one.state, test),
                                    predict_split(two.setup, two.state, test), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("folds, seeds, change, message", [
    (1, 1, {}, "--folds=1; expected 2 to 1000"),
    (3, 2, {}, "--folds=3 does not go with --seeds=2: folds take the place of seeds"),
    (3, 1, {"stream.kind": "class"}, "--folds=3 does not go with stream.kind=class"),
    (3, 1, {"data.fold": 1}, "--folds=3 does not go with data.fold=1"),
    (0, 1, {"data.folds": 3}, "data.folds=3 is one fold of a cross-validation.*use --folds=3"),
    (16, 1, {}, "rows.npz has 15 groups, too few for 16 parts"),
])
def test_what_folds_do_not_go_with_is_refused(chosen, folds, seeds, change, message, tmp_path):
    config = replace(chosen.config, change)
    with pytest.raises(UserError, match=message):
        compare.compare(chosen._replace(config=config), ["late"], seeds, str(tmp_path / "work"), [], False, "", folds=folds)
    assert not (tmp_path / "work").exists()
