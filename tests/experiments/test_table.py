"""A table of files whose labels hold or not, or are numbers: from the CSV file to predictions and folds."""
import csv
import functools
import re
import shutil

import jax
import numpy as np
import pytest
from sklearn.metrics import f1_score

from jaxmm.data.prepared import open_prepared
from jaxmm.experiments import compare, configs, evaluate, predict
from jaxmm.prepare.run import prepare
from jaxmm.report import run_report
from jaxmm.train import schedule
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]
SMALL = {"data.preprocess.text.length": 4, "encoders.pose.depth": 1, "train.epochs": 2, "train.batch_size": 8} | {
    f"encoders.{m}.{size}": 4 for m in ("pose", "text") for size in ("width", "features")}


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mean_error(rows):
    return np.mean([abs(float(r["fused/value/label"]) - float(r["label/value/label"])) for r in rows])


def macro_f1(rows):
    """Of the labels' names, as they stand in the cells."""
    held = [[set(r[column].split("; ")) for r in rows] for column in ("label/labels", "fused/labels")]
    return np.mean([f1_score(*([name in cell for cell in cells] for cells in held), zero_division=0)
                    for name in ("a", "b", "c")])


@pytest.fixture(name="one_device", autouse=True)
def use_one_device(monkeypatch):
    monkeypatch.setattr(compare, "train_many", functools.partial(schedule.train_many, devices=ONE))
    monkeypatch.setattr(evaluate, "restore", functools.partial(restore, devices=ONE))


@pytest.mark.parametrize("label, headline, recomputed, scale", [
    (lambda i: ["a", "a|b", "c"][i % 3], "macro_f1", macro_f1, 100),
    (lambda i: f"{i / 4 - 1}", "mae", mean_error, 1)], ids=["multilabel", "regression"])
def test_a_table_is_prepared_trained_on_evaluated_and_predicted(label, headline, recomputed, scale, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        np.save(tmp_path / f"{i}.npy", rng.normal(size=3).astype(np.float32) + i % 3)
    lines = [f"x{i},{label(i)},word {i % 3},{i}.npy" for i in range(24)]
    (tmp_path / "t.csv").write_text("\n".join(["id,label,text,pose:vector", *lines]))
    prepare("table", tmp_path / "t.csv", tmp_path, progress=False)
    path, workdir = f"table:concat,{tmp_path}/table", tmp_path / "run"
    chosen = configs.Chosen(path, configs.load(path), SMALL)
    chosen = chosen._replace(config=configs.config_for(chosen, "concat"))
    run = schedule.train(chosen.config, workdir, devices=ONE, progress=False)
    score = run.history[-1]["scores"]["fused"][headline]

    # The report, the table of `evaluate` and its file of predictions have the same score.
    run_report.write(run, workdir)
    said = evaluate.evaluate(workdir, None, "test", [], [], predictions=str(tmp_path / "test.csv"))
    found = read(tmp_path / "test.csv")
    assert len(found) == len(run.setup.dataset.splits["test"]["id"]) and recomputed(found) == pytest.approx(score)
    shown, = re.findall(r"\| fused +\| +([\d.]+)", said)
    assert float(shown) == pytest.approx(scale * score, abs=0.051 if scale == 100 else 1e-3)
    assert f"({headline}.png)" in (workdir / "report.md").read_text() and (workdir / "predictions.png").exists()

    # Folds of the same table test every row once.
    compare.compare(chosen, ["concat"], 1, str(tmp_path / "folds"), [], False, "command", folds=2)
    means, = (row for row in read(tmp_path / "folds/comparison.csv")
              if (row["head"], row["metric"]) == ("fused", headline))
    folds = [restore(tmp_path / f"folds/concat/fold_{i}/seed_0", devices=ONE) for i in range(2)]
    assert float(means["mean"]) == pytest.approx(np.mean(
        [fold.history[-1]["scores"]["fused"][headline] for fold in folds]))
    assert sorted(np.concatenate([fold.setup.dataset.splits["test"]["id"] for fold in folds])) == list(range(24))

    # The files of the test rows without labels, after what was prepared of all is gone.
    keys = [record["key"] for record in open_prepared(tmp_path / "table").splits["test"]]
    shutil.rmtree(tmp_path / "table")
    new = [f"{i}.npy,{i},word {int(i) % 3}" for i in (key.removeprefix("x") for key in keys)]
    (tmp_path / "new.csv").write_text("\n".join(["pose:vector,id,text", *new]))
    predict.predict(restore(workdir, data=None, devices=ONE), str(tmp_path / "new.csv"), "",
                    tmp_path / "predictions.csv", None, True)
    again = read(tmp_path / "predictions.csv")
    assert [f"x{row.pop('id')}" for row in again] == keys
    assert again == [{column: row[column] for column in again[0]} for row in found]
