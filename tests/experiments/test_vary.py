import json

import jax
import pytest

from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.experiments import vary
from jaxmm.train import schedule
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]
pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(name="chosen")
def make_chosen(choose_arrays):
    return choose_arrays((24, 8, 8), {"train.epochs": 1, "train.batch_size": 8})


def test_every_value_has_its_runs_which_are_those_of_the_option(chosen, tmp_path):
    folder = tmp_path / "work"
    said = vary.compare(chosen, ["late"], "optimizer.weight_decay=0.1,0", 1, str(folder), "command")
    written = (folder / "late/weight_decay_0/seed_0/metrics.jsonl").stat().st_mtime_ns
    scores = {}
    for value in (0.0, 0.1):
        run = restore(folder / f"late/weight_decay_{value:g}/seed_0", devices=ONE)
        assert run.setup.config.optimizer.weight_decay == value
        scores[value] = run.history[-1]["scores"]["fused"]["accuracy"]
        alone = schedule.train(replace(chosen.config, {"optimizer.weight_decay": value}), tmp_path / f"{value}",
                               devices=ONE, progress=False)
        assert alone.history[-1]["scores"]["fused"] == run.history[-1]["scores"]["fused"]
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in said.splitlines() if "|" in line]
    assert rows[0] == ["method", "head", "0", "0.1"]
    assert rows[2][2:] == [f"{100 * x:.1f}" for x in scores.values()]
    vary.compare(chosen, ["late"], "optimizer.weight_decay=0,0.1", 1, str(folder), "command")
    assert (folder / "late/weight_decay_0/seed_0/metrics.jsonl").stat().st_mtime_ns == written     # reused


def test_options_of_the_data_are_loaded_by_value(chosen, tmp_path):
    vary.compare(chosen, ["late"], "data.missing_rate=0,0.5", 1, str(tmp_path / "work"), "command")
    shares = []
    for value in ("0", "0.5"):
        folder = tmp_path / f"work/late/missing_rate_{value}/seed_0"
        assert json.loads((folder / "config.json").read_text())["data"]["missing_rate"] == float(value)
        present = restore(folder, devices=ONE).setup.dataset.splits["train"]["present"]
        shares.append(min(x.mean() for x in present.values()))
    assert shares[0] == 1 > shares[1]


@pytest.mark.parametrize("text, overrides, others, message", [
    ("optimizer.learning_rate", {}, {}, "--vary=optimizer.learning_rate; expected OPTION=VALUE,VALUE"),
    ("optimizer.learning_rate=0.1", {}, {}, "has one value; expected two or more, or --config.optimizer.learning_rate"),
    ("optimizer.learning_rate=0.1,0.10", {}, {}, "has a value twice"),
    ("optimizer.learning_rate=0.1,fast", {}, {}, "--vary: learning_rate='fast' of optimizer; expected a number"),
    ("optimizer.rate=1,2", {}, {}, "--vary: optimizer has no option 'rate'"),
    ("optimiser.learning_rate=1,2", {}, {}, "there is no 'optimiser'; did you mean optimizer?"),
    ("data.preprocess.smell.rate=1,2", {}, {}, "there is no 'smell'"),
    ("data.preprocess=1,2", {}, {}, "--vary=data.preprocess: expected an option that is a number, text"),
    ("train=1,2", {}, {}, "--vary=train: expected an option that is a number"),
    ("train.seed=1,2", {}, {}, "train.seed is not varied by this option; see --seeds"),
    ("method.capacity=8,16", {}, {}, "--vary: late has no option 'capacity'"),
    ("train.epochs=1,2", {"train.epochs": 3}, {}, "--vary sets train.epochs; leave out --config.train.epochs"),
    ("train.epochs=1,2", {}, {"tune": "", "capacities": ["9"]}, "--capacities; leave it out, or vary method.capacity"),
    ("train.epochs=1,2", {}, {"tune": "train.epochs=1"}, "--vary does not go with --tune; leave it out"),
    ("train.epochs=0,2", {}, {}, "train.epochs=0; expected a number of at least 1"),
])
def test_what_cannot_be_varied_is_refused(chosen, text, overrides, others, message, tmp_path):
    chosen = chosen._replace(overrides=overrides)
    with pytest.raises(UserError) as error:
        vary.check_alone(others)
        vary.compare(chosen, ["late"], text, 1, str(tmp_path / "work"), "")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "work").exists()
