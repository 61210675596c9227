"""The head "experts" of runs: fitted on validation data, kept with the model."""
import chex
import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.methods.common import Method, TrainState
from jaxmm.state.calibration import fit_temperature
from jaxmm.train import checkpoints, experts, schedule, setup as setup_lib
from jaxmm.train.predictions import predict_split
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]


def run(config, workdir, dataset, devices=ONE):
    return schedule.train(config, workdir, dataset=dataset, devices=devices, progress=False)


def leaves(found):
    return checkpoints.flatten(found.setup.programs.fetch(found.state))


@pytest.fixture(name="dataset", scope="module")
def make_missing(make_dataset):
    return make_dataset(missing=True, rows=(40, 24, 16))


@pytest.fixture(name="equal", scope="module")
def train_equal(dataset, make_config, tmp_path_factory):
    """A run and its folder."""
    folder = tmp_path_factory.mktemp("equal") / "run"
    return run(make_config("late", experts="equal"), folder, dataset), folder


def test_the_head_is_bayes_rule_on_predictions_calibrated_on_validation_data(equal, dataset):
    result, folder = equal
    val, test = dataset.splits["val"], dataset.splits["test"]
    on_val, on_test = (predict_split(result.setup, result.state, split) for split in (val, test))
    counts = np.bincount(dataset.splits["train"]["label"], minlength=3)
    prior = np.log(counts / counts.sum())
    z = np.broadcast_to(prior, (16, 3))
    for m in dataset.modalities:
        there = val["present"][m]
        t = fit_temperature(on_val[m][there], val["label"][there])
        z = z + test["present"][m][:, None] * (log_softmax(on_test[m] / np.float64(t), axis=1) - prior)
    np.testing.assert_allclose(log_softmax(on_test["experts"], axis=1), log_softmax(z, axis=1), atol=1e-4)
    scored = {r["split"]: r["scores"] for r in result.history}
    assert scored["test"]["experts"]["accuracy"] == (z.argmax(1) == test["label"]).mean()
    assert scored["val"]["experts"]["accuracy"] == (on_val["experts"].argmax(1) == val["label"]).mean()
    # Its numbers are kept with the model.
    again = restore(folder, dataset=dataset, devices=ONE)
    chex.assert_trees_all_equal(predict_split(again.setup, again.state, test), on_test)


def test_seeds_together_and_resumed_runs_have_the_experts_of_each_alone(equal, dataset, make_config, tmp_path):
    """Of a run of one epoch that goes on to two, beside one with another seed."""
    config = make_config("late", experts="equal")
    configs = [config, replace(config, {"train.seed": 1})]
    workdirs = [tmp_path / str(seed) for seed in (0, 1)]
    for epochs in (1, 2):
        first, second = schedule.train_many([replace(c, {"train.epochs": epochs}) for c in configs], workdirs,
                                            dataset=dataset, devices=ONE, progress=False)
    chex.assert_trees_all_equal(leaves(first), leaves(equal[0]))
    assert [r["scores"] for r in first.history] == [r["scores"] for r in equal[0].history]
    assert any((leaves(second)[k] != x).any() for k, x in leaves(first).items() if k.startswith("experts/temp"))


def test_several_devices_find_the_experts_of_one(equal, dataset, make_config, tmp_path):
    found = run(make_config("late", experts="equal"), tmp_path / "run", dataset, jax.devices()[:2])
    chex.assert_trees_all_close(leaves(found), leaves(equal[0]), rtol=1e-3, atol=1e-4)


def fake(*heads):
    """A method that predicts what a batch has for these heads, and a batch of two rows."""
    method = Method(lambda key, batch: TrainState({}, {}, {}, key, 0), None,
                    lambda state, batch: {h: batch[h] for h in heads}, lambda state, batch: {})
    return method, {h: np.float32([[1, 0], [0, 2]]) for h in heads} | {
        "label": np.array([0, 1]), "present": {"a": np.array([True, False]), "b": np.array([False, False])}}


def test_the_fused_head_takes_part_where_a_modality_is_there():
    """Of two rows one has a modality, and the other gets the prior."""
    method, batch = fake("a", "b", "fused")
    prior = np.log(np.float32([0.75, 0.25]))
    for kind, count in (("all", 3), ("fitted", 2)):
        found = experts.with_experts(method, kind, prior, ["a", "b"])
        state = found.init(jax.random.key(0), batch)
        assert len(state.experts.weight) == count
        p = np.exp(log_softmax(np.asarray(found.predict(state, batch)["experts"]), axis=1))
        one = np.exp([1, 0]) / np.exp([1, 0]).sum()
        expected = one ** (count - 1) * np.array([0.75, 0.25]) ** (2 - count)
        np.testing.assert_allclose(p, [expected / expected.sum(), [0.75, 0.25]], rtol=1e-5)
        fitted = experts.fit(found.predict(state, batch), batch, state.experts, kind)
        # One is right in the only row that has it; no row says anything of the other.
        assert float(fitted.temperature["a"]) == pytest.approx(0.05)
        assert float(fitted.temperature["b"]) == float(fitted.weight["b"]) == 1


def test_what_has_no_experts_is_refused_or_said(dataset, make_config, caplog):
    with pytest.raises(UserError, match="train.experts='fited'; did you mean fitted"):
        setup_lib.build(make_config("late", experts="fited"), dataset=dataset, devices=ONE)
    stream = replace(make_config("late", experts="all"), {"stream.kind": "class", "stream.num_tasks": 3})
    with pytest.raises(UserError, match="train.experts=all: its prior is of classes that a stream does not know"):
        setup_lib.build(stream, dataset=dataset, devices=ONE)
    numbers = dataset._replace(splits={split: batch | {"label": batch["inputs"]["sound"][:, :2]}
                                       for split, batch in dataset.splits.items()}, class_names=("x", "y"))
    with pytest.raises(UserError, match="a product of predictions needs a classification"):
        setup_lib.build(make_config("concat", experts="all"), dataset=numbers, devices=ONE)
    method, batch = fake("fused")
    alone = experts.with_experts(method, "all", np.zeros(2), ["a"])
    state = alone.init(jax.random.key(0), batch)
    assert state.experts == () and list(alone.predict(state, batch)) == ["fused"]
    assert "has no heads of single modalities" in caplog.text
