"""The interface of scikit-learn: the runs are those of the commands, whatever form rows and labels have."""
import csv
import functools
import json
import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import GridSearchCV, cross_val_score

import jaxmm
from jaxmm import estimators
from jaxmm.config import DataConfig, replace
from jaxmm.errors import UserError
from jaxmm.experiments import compare, configs
from jaxmm.methods import METHODS
from jaxmm.train import schedule
from jaxmm.train.predictions import predict_split, split_features
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]
NAMES = np.array(["low", "high", "middle"])
TINY = {"epochs": 2, "train__batch_size": 8, "encoders__sound__width": 6, "encoders__image__width": 6,
        "encoders__sound__depth": 1, "encoders__image__depth": 1}
OPTIONS = {name: value for name, value in TINY.items() if name != "epochs"}


@pytest.fixture(name="one_device", autouse=True)
def use_one_device(monkeypatch):
    for module, name, fn in ((estimators, "train", schedule.train), (estimators, "restore", restore),
                             (compare, "train_many", schedule.train_many)):
        monkeypatch.setattr(module, name, functools.partial(fn, devices=ONE))


@pytest.fixture(name="splits")
def make_splits(make_dataset):
    """(X, y) by split, labels as text."""
    dataset = make_dataset(missing=True)
    return {split: (dict(batch["inputs"]) | {f"present/{m}": x for m, x in batch["present"].items()},
                    NAMES[batch["label"]]) for split, batch in dataset.splits.items()}


def write_file(path, splits):
    np.savez(path, **{f"{split}/{name}": x for split, (X, y) in splits.items()
                      for name, x in (X | {"label": y}).items()})


def test_fit_trains_the_run_of_the_command_and_load_predicts_like_it(splits, tmp_path):
    write_file(tmp_path / "data.npz", splits)
    config = replace(configs.load("arrays:concat"), {
        "data.path": str(tmp_path / "data.npz"), "train.epochs": 2, "train.batch_size": 8})
    for m in ("sound", "image"):
        config.encoders[m].width, config.encoders[m].depth = 6, 1
    run = schedule.train(config, tmp_path / "command", devices=ONE, progress=False)
    model = jaxmm.Classifier("concat", workdir=tmp_path / "python", **TINY)
    assert model.fit(*splits["train"], val=splits["val"]) is model
    jax.tree.map(np.testing.assert_array_equal, run.setup.programs.fetch(run.state).params,
                 run.setup.programs.fetch(model.run_.state).params)
    assert model.run_.history == [r for r in run.history if r["split"] == "val"]

    # Against the logits, and classes in the order of their names.
    X, y = splits["test"]
    test = run.setup.dataset.splits["test"]
    z = predict_split(run.setup, run.state, test)["fused"].astype(float)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    names = np.array(["high", "low", "middle"])
    assert model.classes_.tolist() == names.tolist()
    np.testing.assert_allclose(model.predict_proba(X), p, rtol=1e-5)
    assert model.predict(X).tolist() == names[z.argmax(1)].tolist()
    assert model.score(X, y) == np.mean(names[z.argmax(1)] == y) == [
        r for r in run.history if r["split"] == "test"][0]["scores"]["fused"]["accuracy"]
    features = split_features(run.setup, run.state, test)
    for m, h in model.transform(X).items():
        np.testing.assert_array_equal(h, np.where(test["present"][m][:, None], features[m], np.nan))

    # The folder is that of the command, whose report is of the test split.
    made, fitted = ({p.name for p in (tmp_path / name).iterdir()} for name in ("command", "python"))
    assert fitted - made == {"accuracy.png", "classes.json", "learning_curves.png", "metrics.csv",
                             "predictions.png", "report.md"} and made <= fitted
    report, (val,) = (tmp_path / "python/report.md").read_text(), model.run_.history[-1:]
    assert f"head `fused` on the validation split: **{100 * val['scores']['fused']['accuracy']:.1f}%**" in report
    assert "32 train, 16 val examples" in report and "The table is of the last epoch, 2." in report
    assert report.count("| fused") == 1 and "jaxmm predict --workdir=" in report

    # What modalities contribute is that of the run, labels as y has them.
    found, there = model.contribution(X, y, value="prob"), test["present"]["sound"] & test["present"]["image"]
    assert found.ids.tolist() == np.flatnonzero(there).tolist() and "\n| image " in str(found)
    np.testing.assert_allclose(found.probability, p[range(16), np.searchsorted(names, y)][there], rtol=1e-5)
    np.testing.assert_allclose(sum(found.phi.values()), found.probability - found.game[()], atol=1e-5)
    with pytest.raises(UserError, match="y has 15 rows, X 16; expected as many"):
        model.contribution(X, y[1:])

    # As a list, from a folder that was moved, without the file.
    listed = jaxmm.rows(X)
    assert [sorted(row) for row in listed] == [
        [m for m in ("image", "sound") if X[f"present/{m}"][i]] for i in range(len(y))]
    (tmp_path / "python").rename(tmp_path / "moved")
    (tmp_path / "data.npz").unlink()
    expected = model.predict_proba(X)
    for other in (jaxmm.load(tmp_path / "moved"), jaxmm.load(tmp_path / "command"), model):
        assert is_classifier(other) and other.classes_.tolist() == names.tolist()
        np.testing.assert_array_equal(other.predict_proba(listed), expected)
        assert other.get_params() == TINY | {"method": "concat", "verbose": False,
                                             "workdir": other is model and tmp_path / "python" or None}
    with pytest.raises(UserError, match="moved: the data it was trained on are needed for this"):
        jaxmm.load(tmp_path / "moved").contribution(X, y)
    with pytest.raises(UserError, match="moved: the data it was trained on .* were given from Python; name"):
        restore(tmp_path / "moved", devices=ONE).setup.dataset.splits["test"]     # pylint: disable=W0106


def test_a_finished_folder_is_used_as_it_is_and_another_is_refused(splits, tmp_path):
    """Without test data, whether the epochs or the patience ended it."""
    X, y = splits["train"]
    options = TINY | {"epochs": 9, "train__patience": 1, "optimizer__learning_rate": 1e-12}
    model = jaxmm.Classifier("late", workdir=tmp_path / "run", **options).fit(X, y)
    assert len(model.run_.history) == 3 and model.run_.finished
    written = (tmp_path / "run/metrics.jsonl").read_bytes()
    again = clone(model).fit(X, y)
    assert again.run_.history == model.run_.history
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == written
    longer = jaxmm.Classifier("late", workdir=tmp_path / "run", **options | {"train__patience": 0})
    with pytest.raises(UserError, match="another config: train.patience was 1, is 0"):
        longer.fit(X, y)
    with pytest.raises(UserError, match="is not the data this run was trained on"):
        again.fit(X | {"sound": X["sound"] + 1}, y)
    shorter = jaxmm.Classifier("late", **TINY).fit(X, y)
    folder = shorter.workdir_
    with pytest.raises(UserError, match="its run folder is the model"):
        pickle.dumps(shorter)
    assert pickle.loads(pickle.dumps(clone(shorter))).get_params() == shorter.get_params()
    assert folder.is_dir()
    del shorter
    assert not folder.exists()


@pytest.mark.parametrize("y, classes", [
    (np.array([30, 10, 20]), [10, 20, 30]), (np.array([True, False, True]), [False, True]),
    (np.array(["b", "a", "10"], object), ["10", "a", "b"]), (["x", "y", "x"], ["x", "y"])])
def test_classes_are_what_the_labels_are(y, classes, tmp_path):
    X = {"sound": np.eye(6), "image": np.ones((6, 2))}
    config = estimators.make_config("concat", 1, {"data__val_fraction": 0.5})
    y = list(y) * 2
    dataset, found = estimators.make_dataset(config, {"train": (X, y), "test": (X, y)}, False)
    assert found.tolist() == classes and dataset.class_names == tuple(map(str, classes))
    assert dataset.splits["test"]["label"].tolist() == [classes.index(value) for value in y]
    (tmp_path / estimators.CLASSES_FILE).write_text(json.dumps(found.tolist()))
    kept = estimators.read_classes(tmp_path, dataset.class_names)
    assert kept.tolist() == classes and kept.dtype == found.dtype
    with pytest.raises(UserError, match="does not hold the classes of the run"):
        estimators.read_classes(tmp_path, ["other"])


def test_numbers_and_labels_that_hold_or_not_are_predicted_too(splits, tmp_path):
    X, y = splits["train"]
    number = X["image"] @ np.arange(5)
    model = jaxmm.Regressor(workdir=tmp_path / "run", **TINY).fit(X, number)
    assert model.run_.setup.config.optimizer.name == "adam"
    loaded = jaxmm.load(tmp_path / "run")
    assert is_regressor(loaded) and not hasattr(loaded, "predict_proba") and model.predict(X).shape == (32,)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.get_params() == clone(model).set_params(workdir=None).get_params()
    value = model.predict(X).astype(float)
    assert model.score(X, number) == pytest.approx(
        1 - np.sum((number - value) ** 2) / np.sum((number - number.mean()) ** 2))
    # What diverges is said, also where it is scored before its next loss: here, after one step.
    lost = jaxmm.Regressor("concat", optimizer__learning_rate=1e30, **TINY)
    rows = [{m: x[i:i + 8] for m, x in X.items()} for i in (0, 8)]
    with pytest.raises(FloatingPointError, match="the loss of step 2 is nan"):
        lost.fit(rows[0], number[:8], val=(rows[1], number[8:16]))
    holds = y[:, None] == NAMES
    labels = jaxmm.Classifier("concat", **TINY).fit(X, holds)
    p = labels.predict_proba(X)
    assert p.shape == (32, 3) and not np.allclose(p.sum(1), 1)
    np.testing.assert_array_equal(labels.predict(X), p > 0.5)
    with pytest.raises(UserError, match="contribution of modalities needs a classification; the task is multilabel"):
        labels.contribution(X, holds)


def test_scikit_learn_searches_and_validates(splits):
    X, y = splits["train"]
    model = jaxmm.Classifier("concat", **TINY)
    copy = clone(model)
    assert copy is not model and copy.get_params() == model.get_params()
    rows = jaxmm.rows(X)
    folds = [(np.arange(0, 32, 2), np.arange(1, 32, 2))]
    (kept, held), = folds
    fold = clone(model).fit({name: x[kept] for name, x in X.items()}, y[kept])
    score = fold.score({name: x[held] for name, x in X.items()}, y[held])
    assert cross_val_score(model, rows, y, cv=folds, error_score="raise").tolist() == [score]
    rates = {"optimizer__learning_rate": np.array([1e-9, 0.02])}        # the second is the default
    search = GridSearchCV(model, rates, cv=folds, refit=False, error_score="raise").fit(rows, y)
    assert search.cv_results_["mean_test_score"][1] == score
    # By default folds have all classes in equal shares, as of any classifier.
    assert is_classifier(model) and not is_regressor(model)


def test_compare_is_that_of_the_command_on_arrays_and_on_files(splits, tmp_path):
    write_file(tmp_path / "data.npz", splits)
    methods = ["unimodal:sound", "mla+alpha=0.3"]
    found = jaxmm.compare(*splits["train"], val=splits["val"], test=splits["test"], methods=methods, seeds=2,
                          workdir=tmp_path / "arrays", **TINY)
    path = str(tmp_path / "data.npz")
    other = jaxmm.compare("arrays", methods=methods[1:], seeds=2, data__path=path, **TINY)
    # Text labels of a file are in the order of their names as well.
    assert [row for row in found if row["method"] != "unimodal"] == other
    assert str(found).splitlines()[-1].split() == str(other).splitlines()[-1].split()
    with open(tmp_path / "arrays/comparison.csv", newline="", encoding="utf-8") as file:
        assert [[row["method"], row["head"], row["metric"], float(row["mean"]), int(row["seeds"])]
                for row in csv.DictReader(file)] == [
                    [row["method"], row["head"], row["metric"], row["mean"], 2] for row in found]
    assert str(found) in (tmp_path / "arrays/report.md").read_text()
    assert {row["method"] for row in found} == {name.partition(":")[0] for name in methods}


def test_folds_and_groups_are_those_of_the_command(splits, tmp_path):
    X, y = splits["train"]
    groups = np.array([f"speaker {i // 2}" for i in range(32)])
    np.savez(tmp_path / "rows.npz", **{f"train/{m}": x for m, x in (X | {"label": y, "group": groups}).items()})
    found = jaxmm.compare(jaxmm.rows(X), y, folds=2, groups=groups.astype(object), methods=["late"],
                          workdir=tmp_path / "arrays", **TINY)
    other = jaxmm.compare("arrays", folds=2, methods=["late"], data__path=str(tmp_path / "rows.npz"), **TINY)
    assert found == other and {row["seeds"] for row in found} == {2}
    test = [set(groups[rows["id"]]) for rows in (
        estimators.dataset_of(estimators.as_file({"train": (X, y)}, False, groups)[0], DataConfig(
            folds=2, fold=fold)).splits["test"] for fold in range(2))]
    assert len(test[0]) + len(test[1]) == 16 == len(test[0] | test[1])
    assert "mean and deviation of 2 folds" in (tmp_path / "arrays/report.md").read_text()


@pytest.mark.parametrize("options, said", [
    ({"test": True}, "folds=2 does not go with test and val, which are taken of the rows"),
    ({"seeds": 3}, "--folds=2 does not go with --seeds=3"),
    ({"groups": np.ones((32, 1))}, r"groups is of shape \(32, 1\); expected one for each row"),
    ({"groups": np.arange(31)}, "train/group has 31 rows, train/label 32"),
    ({"groups": np.linspace(0, 1, 32)}, "train/group is float64; expected whole numbers or text")])
def test_what_folds_do_not_go_with_is_one_line(splits, options, said):
    X, y = splits["train"]
    if "test" in options:
        options = {"test": (X, y)}
    with pytest.raises(UserError, match=said):
        jaxmm.compare(X, y, folds=2, **options)


@pytest.mark.parametrize("arguments, options, said", [
    (["mlb"], {}, "method: 'mlb' is unknown; did you mean mla?"),
    ([], {"learning_rate": 1}, "'learning_rate' is not an option; did you mean optimizer__learning_rate?"),
    ([], {"encoders__sound__widht": 1}, "did you mean encoders__sound__width?"),
    ([], {"encoders__width": 1}, "'encoders__width' is not an option"),
    ([], {"encoders": {}}, "'encoders' is not an option"),
    ([], {"stream__kind": "class"}, "'stream__kind' is not an option"),
    ([], {"data__path": "x"}, "'data__path' is not an option"),
    (["concat"], {"method__projection": "none"}, "'method__projection' is not an option")])
def test_a_slip_in_an_option_is_said_at_once(arguments, options, said):
    for make in (jaxmm.Classifier, functools.partial(jaxmm.compare, {}, [], methods=arguments or ["mla"])):
        with pytest.raises(UserError, match=said.replace("?", r"\?")) as error:
            make(*arguments if make is jaxmm.Classifier else [], **options)
        assert "\n" not in str(error.value)
    if not arguments:
        model = jaxmm.Classifier()
        with pytest.raises(UserError, match=said.replace("?", r"\?")):
            model.set_params(epochs=3, **options)
        assert model.get_params() == jaxmm.Classifier().get_params()    # nothing is set by halves


def test_options_are_set_by_name_and_reach_the_config():
    model = jaxmm.Classifier(encoders__a__b__width=3, method__projection="none")
    model.set_params(epochs=np.int64(5), optimizer__learning_rate=np.float32(0.5),
                     **{"augment__my clip__noise": 1})
    params = model.get_params()
    config = estimators.make_config("mla", params["epochs"], model.options)
    assert config.encoders["a__b"].width == 3 and config.augment["my clip"].noise == 1.0
    assert (config.train.epochs, config.optimizer.learning_rate, config.method.projection) == (5, 0.5, "none")
    assert estimators.changed_options(config, "classification") == model.options
    for task, optimizer, dynamic in (("classification", "sgd", True), ("multilabel", "sgd", False),
                                     ("regression", "adam", False)):
        config = estimators.make_config("mla", None, {"method__alpha": 0.5}, estimators.DEFAULTS[task])
        assert (config.optimizer.name, config.method.dynamic_fusion) == (optimizer, dynamic)
        assert estimators.changed_options(config, task) == {"method__alpha": 0.5}
    assert [estimators.defaults_for(y, regression) for y, regression in (
        ([1, 2], False), ([[True]], False), ([1, 2], True))] == [*estimators.DEFAULTS.values()]
    with pytest.raises(UserError, match='train.batch_size is "many"; expected a whole number'):
        estimators.make_config("mla", 1, {"train__batch_size": "many"})
    with pytest.raises(UserError, match="not an option"):       # of the method that it is to be
        model.set_params(method="late")


@pytest.mark.parametrize("change, said", [
    (lambda X, y: (X, y[:9]), "train/sound has 32 rows, arrays: train/label has 9"),
    (lambda X, y: (X["sound"], y), r"X of train is ndarray; expected {modality: array \[rows, ...\]}, or"),
    (lambda X, y: (X | dict(label=y), y), "a modality 'label'"),
    (lambda X, y: (X | dict(group=np.arange(32)), y), "a modality 'group' with one number for each row"),
    (lambda X, y: (X | dict(sound=X["sound"].astype(str)), y), "X of train: sound is <U[0-9]+ of shape"),
    (lambda X, y: ([{"sound": np.ones(3)}, {"sound": np.ones(2)}], y[:2]),
     r"sound has rows of float64 \[2\] and of float64 \[3\]; expected one type and shape"),
    (lambda X, y: (X, np.linspace(0, 1, 32)), "y of train is float64; expected classes as text, integers or"),
    (lambda X, y: (X, np.eye(32, dtype=int)), "y of train is int64 of shape .*argmax"),
    (lambda X, y: (X, [None, *y[1:]]), "y of train holds values of the types NoneType, str"),
    (lambda X, y: (X, np.ma.masked_array(np.arange(32), y == "low")), "masked array, whose mask would"),
])
def test_what_is_wrong_with_rows_or_labels_is_one_line(splits, change, said):
    with pytest.raises(UserError, match=said) as error:
        jaxmm.Classifier("concat").fit(*change(*splits["train"]))
    assert "\n" not in str(error.value)


def test_new_rows_are_checked_as_those_of_a_file(splits):
    X, y = splits["train"]
    with pytest.raises(UserError, match="y of val is 'none' in row 2, which is not a class .*high, low, mid"):
        jaxmm.Classifier("concat").fit(X, y, val=(X, ["low", "low", "none"]))
    with pytest.raises(UserError, match="y of train is <U6; a Regressor predicts numbers"):
        jaxmm.Regressor("concat").fit(X, y)
    with pytest.raises(UserError, match=r"y and test are missing; expected compare\(X, y, test="):
        jaxmm.compare(X, y)
    model = jaxmm.Classifier("unimodal", method__modality="sound", **TINY)
    model.fit({m: x for m, x in X.items() if not m.startswith("present")}, y)
    for rows, said in ((X | dict(sound=X["sound"][:, :2]), r"X: sound has rows of shape \(2,\); the model"),
                       (X | dict(sound=X["sound"][:5]), "X: image has 32 rows, sound has 5"),
                       ({"smell": X["sound"]}, "X: 'smell' is no"),
                       ({"image": X["image"]}, "row 0 has no modality that unimodal was trained on .sound"),
                       ({"sound": np.full((2, 3), np.nan)}, "X/sound has values that are not finite")):
        with pytest.raises(UserError, match=said):
            model.predict(rows)
    assert np.isnan(model.transform({"image": X["image"]})["sound"]).all()


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    text = pathlib.Path("README.md").read_text(encoding="utf-8")
    block = text.partition("## From Python")[2].partition("```python\n")[2].partition("```")[0]
    assert 8 <= len([line for line in block.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block, names)      # pylint: disable=exec-used
    printed = capsys.readouterr().out
    assert str(names["model"].score(names["rows"][500:], names["y"][500:])) in printed.splitlines()
    assert "| concat" in printed and "| mla" in printed
    np.testing.assert_array_equal(names["again"].predict_proba(names["rows"]),
                                  names["model"].predict_proba(names["rows"]))


def test_importing_is_cheap_and_names_are_there():
    code = """if True:
        import sys, jaxmm
        large = {"jax", "numpy", "sklearn", "flax", "scipy"} & set(sys.modules)
        assert not large, large
        assert set(jaxmm.__all__) <= set(dir(jaxmm))
        assert not hasattr(jaxmm, "other")
        assert "arXiv 2311.10707" in jaxmm.METHODS["mla"] and jaxmm.METHODS is jaxmm.METHODS
        assert "jaxmm.estimators" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(jaxmm.METHODS) == list(METHODS)
    assert all(entry.about in said and entry.source in said
               for said, entry in zip(jaxmm.METHODS.values(), METHODS.values()))
