import json

import jax
import pytest

from jaxmm import data
from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.experiments import series
from jaxmm.train import schedule


@pytest.fixture(name="tiny", autouse=True)
def use_tiny_data_on_one_device(make_dataset, monkeypatch):
    monkeypatch.setattr(series, "train_many", lambda *args, **kwargs: schedule.train_many(
        *args, devices=jax.devices()[:1], progress=False, **kwargs))
    monkeypatch.setattr(data, "load", lambda config: make_dataset())


@pytest.mark.parametrize("text, message", [
    ("method.beta=1", "'method.beta' cannot be varied; did you mean method.alpha. Expected one of optimizer.learning_rate"),
    ("train.batch_size=8", "'train.batch_size' cannot"), ("method.alpha", "expected numbers"),
    ("method.alpha=0.1,many", "expected numbers, as in method.alpha=0.001")])
def test_sweeps_that_cannot_be_made(text, message, make_config):
    with pytest.raises(UserError, match=message):
        series.parse_sweep(text, make_config("mla"))


def test_sweep_values_are_sorted_numbers(make_config):
    assert series.parse_sweep("method.alpha=1e-1,0.001", make_config("mla")) == (
        "method.alpha", [0.001, 0.1])


def test_seeds_have_folders_reports_and_a_table(make_config, tmp_path):
    config = make_config("late", epochs=1, seed=3, seeds=2)
    table = series.train_seeds(config, tmp_path, "command")
    assert "late" in table and "±" in table
    for seed in (3, 4):
        written = json.loads((tmp_path / f"seed_{seed}" / "config.json").read_text())
        assert (written["train"]["seed"], written["train"]["seeds"]) == (seed, 1)
        assert (tmp_path / f"seed_{seed}" / "report.md").exists()
    assert "2 seeds" in (tmp_path / "report.md").read_text().replace("\n", " ")
    metrics = (tmp_path / "seed_3/metrics.jsonl").read_text()
    assert series.train_seeds(config, tmp_path, "command") == table     # reused
    assert (tmp_path / "seed_3/metrics.jsonl").read_text() == metrics


def test_a_sweep_goes_on_where_a_value_diverges(make_config, tmp_path):
    config = make_config("late", epochs=3)
    table = series.train_sweep(config, tmp_path, "optimizer.learning_rate", [0.1, 1e30], "command")
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["0.1", "1e+30"]
    assert [row[-1] for row in rows] == ["best", "loss not finite"]
    written = json.loads((tmp_path / "learning_rate_0.1/config.json").read_text())
    assert written["optimizer"]["learning_rate"] == 0.1
    assert (tmp_path / "sweep.png").exists()


def test_seeds_go_on_where_one_diverges_and_fail_where_all_do(make_config, tmp_path, monkeypatch, capsys):
    config = make_config("late", epochs=3, seed=3, seeds=2)
    over_seeds = series.over_seeds
    rates = {3: 0.1, 4: 1e30}
    monkeypatch.setattr(series, "over_seeds", lambda config: [
        replace(c, {"optimizer.learning_rate": rates[c.train.seed]}) for c in over_seeds(config)])
    table = series.train_seeds(config, tmp_path / "one", "command")
    assert "1 of 2 diverged" in table and (tmp_path / "one/report.md").exists()
    assert f"diverged: {tmp_path / 'one/seed_4'}: the loss of step " in capsys.readouterr().err
    rates[3] = 1e30
    with pytest.raises(FloatingPointError, match="all 2 runs diverged; start again in another folder"):
        series.train_seeds(config, tmp_path / "all", "command")
    monkeypatch.undo()
    monkeypatch.setattr(series, "train_many", lambda *args, **kwargs: 2 * [FloatingPointError("lost")])
    with pytest.raises(FloatingPointError, match="all 2 runs diverged"):
        series.train_sweep(config, tmp_path, "optimizer.learning_rate", [1e30], "command")


def test_the_folder_of_a_single_run_is_refused(make_config, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a single run"):
        series.train_seeds(make_config("late", seeds=2), tmp_path, "command")
    with pytest.raises(UserError, match="holds a single run"):
        series.train_sweep(make_config("late"), tmp_path, "optimizer.learning_rate", [0.1], "command")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_function_for_single_runs_refuses_several_seeds(make_config, make_dataset, tmp_path):
    with pytest.raises(UserError, match="train.seeds=2 is for `jaxmm train`"):
        schedule.train(make_config("late", seeds=2), tmp_path / "run", dataset=make_dataset())
    assert not (tmp_path / "run").exists()
