"""The model that is best on validation, an end by patience, and the schedule that goes by a plateau."""
import json
import signal

import chex
import jax
import numpy as np
import pytest

from jaxmm.config import OptimizerConfig, StreamConfig, replace
from jaxmm.errors import UserError
from jaxmm.signals import Preempted
from jaxmm.train import checkpoints, scores
from jaxmm.train.group import Group
from jaxmm.train.predictions import predict_split
from jaxmm.train.restore import restore
from jaxmm.train.schedule import train, train_many
from jaxmm.train.setup import build

ONE = jax.devices()[:1]
# Validation accuracy after each epoch of 4 steps: the best is the third, and first of two equals.
ACCURACY = {4: 0.5, 8: 0.4, 12: 0.75, 16: 0.75, 20: 0.6, 24: 0.1}


@pytest.fixture(name="scripted")
def script_scores(monkeypatch):
    """Validation finds what ACCURACY says."""
    record = Group._record

    def scripted(self, i, logits, step, task, epoch, split):
        record(self, i, logits, step, task, epoch, split)
        if split == "val":
            self.runs[i].history[-1]["scores"]["fused"]["accuracy"] = ACCURACY[step]

    monkeypatch.setattr(Group, "_record", scripted)


def leaves(run):
    return checkpoints.flatten(run.setup.programs.fetch(run.state))


def run(config, workdir, dataset, devices=ONE):
    return train(config, workdir, dataset=dataset, devices=devices, progress=False)


def test_the_best_epoch_is_kept_tested_and_restored(scripted, make_dataset, make_config, tmp_path):
    dataset = make_dataset()
    third = run(make_config("concat", epochs=3), tmp_path / "three", dataset)
    config = make_config("concat", epochs=6, keep="best", keep_checkpoints=1)
    result = run(config, tmp_path / "best", dataset)
    chex.assert_trees_all_equal(leaves(result), leaves(third))
    assert [(r["epoch"], r["step"], r["split"]) for r in result.history] == [
        (epoch, 4 * epoch, "val") for epoch in range(1, 7)] + [(3, 12, "test")]
    assert result.history[-1]["scores"] == third.history[-1]["scores"]
    logits = predict_split(result.setup, result.state, dataset.splits["test"])
    assert scores.score(logits, dataset.splits["test"]) == result.history[-1]["scores"]
    assert sorted(checkpoints.open_manager(tmp_path / "best").all_steps()) == [12, 24]
    for again in (restore(tmp_path / "best", dataset=dataset), run(config, tmp_path / "best", dataset)):
        chex.assert_trees_all_equal(leaves(again), leaves(third))
        assert again.finished and again.history == result.history
    assert restore(tmp_path / "best", 24, dataset=dataset, devices=ONE).state.step == 24


@pytest.mark.parametrize("options, optimizer", [
    ({"keep": "best"}, {}), ({"patience": 1, "keep": "best", "checkpoint_epochs": 5}, {}),
    ({}, {"schedule": "plateau", "patience": 0, "decay_rate": 0.5})])
def test_resumed_after_any_epoch_is_undisturbed(options, optimizer, scripted, make_dataset, make_config,
                                                tmp_path, monkeypatch):
    dataset = make_dataset()
    config = make_config("concat", epochs=6, keep_checkpoints=1, **options,
                         optimizer=OptimizerConfig(learning_rate=0.1, **({"schedule": "constant"} | optimizer)))
    whole = run(config, tmp_path / "whole", dataset)
    save = Group.save

    stopped = []        # a second signal would end the process

    def save_and_stop(self, last=False):
        save(self, last)
        if not stopped:
            stopped.append(True)
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Group, "save", save_and_stop)
        for _ in range(10):
            stopped.clear()
            try:
                cut = run(config, tmp_path / "cut", dataset)
            except (Preempted, KeyboardInterrupt):
                continue
            break
    cut = run(config, tmp_path / "cut", dataset)
    chex.assert_trees_all_equal(leaves(cut), leaves(whole))
    assert cut.history == whole.history


def test_patience_ends_a_run(scripted, make_dataset, make_config, tmp_path):
    """The best is the third epoch; the second evaluation that is no better is of the fifth."""
    dataset = make_dataset()
    result = run(make_config("concat", epochs=6, patience=1), tmp_path / "patient", dataset)
    fifth = run(make_config("concat", epochs=5), tmp_path / "five", dataset)
    chex.assert_trees_all_equal(leaves(result), leaves(fifth))
    assert result.finished and result.history == fifth.history
    many = train_many([replace(make_config("concat", epochs=6, patience=0, keep="best"),
                               {"train.seed": seed}) for seed in range(2)],
                      [tmp_path / str(seed) for seed in range(2)], dataset=dataset, devices=ONE,
                      progress=False)
    for seed, found in enumerate(many):
        alone = run(make_config("concat", epochs=3, seed=seed), tmp_path / f"alone{seed}", dataset)
        chex.assert_trees_all_equal(leaves(found), leaves(alone))
        assert found.history[-1] == alone.history[-1]


def test_plateau_lowers_the_rate_that_is_written(scripted, make_dataset, make_config, tmp_path):
    """Patience 0: after the epochs 2, 4, 5 and 6, which are no better than the best before."""
    optimizer = OptimizerConfig(learning_rate=0.8, schedule="plateau", patience=0, decay_rate=0.5)
    run(make_config("concat", epochs=6, optimizer=optimizer), tmp_path, make_dataset())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if line["kind"] == "train"]
    np.testing.assert_allclose(rates, [0.8, 0.8, 0.4, 0.4, 0.2, 0.1], rtol=1e-6)


def test_eight_devices_keep_the_model_and_lower_the_rate_as_one(scripted, make_dataset, make_config, tmp_path):
    optimizer = OptimizerConfig(learning_rate=0.2, schedule="plateau", patience=0, decay_rate=0.5)
    config, found = make_config("concat", epochs=4, keep="best", optimizer=optimizer, gradient_norm=True), []
    for devices in (ONE, jax.devices()):
        folder = tmp_path / str(len(devices))
        result = run(config, folder, make_dataset(), devices)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [(r["epoch"], r["step"]) for r in result.history if r["split"] == "test"] == [(3, 12)]
        found.append((leaves(result), [{name: line[name] for name in ("learning_rate", "loss", "gradient_norm")}
                                       for line in lines if line["kind"] == "train"]))
    (state, _), (_, lines) = found
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.2, 0.2, 0.1, 0.1])
    assert all(np.any(x) for name, x in state.items() if name.startswith("params/"))
    chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-5)


def test_a_score_of_which_less_is_better(make_config):
    history = [{"split": "val", "epoch": epoch, "scores": {"fused": {"nll": nll, "accuracy": 0.5}}}
               for epoch, nll in enumerate([0.9, 0.4, np.nan, 0.7])]
    task = type("", (), {"headline": "accuracy"})
    assert scores.best(history, "fused/nll", task)["epoch"] == 1
    assert scores.best(history, "", task)["epoch"] == 0
    assert scores.best([], "", task) is None


@pytest.mark.parametrize("options, stream, said", [
    ({"keep": "first"}, "", "train.keep='first'"), ({"patience": -1}, "", "train.patience=-1"),
    ({"score": "fused/auc"}, "", "train.score=fused/auc; expected HEAD/SCORE, a head of fused, image, sound and a score of acc"),
    ({"score": "flow/accuracy"}, "", "train.score=flow/accuracy"),
    ({"keep": "best"}, "class", "train.keep=best: the tasks of a stream"),
    ({"patience": 1}, "class", "train.patience: the tasks of a stream")])
def test_what_validation_cannot_decide_is_refused(options, stream, said, make_dataset, make_config):
    config = make_config("concat", **options)
    config.stream = StreamConfig(kind=stream, num_tasks=2)
    with pytest.raises(UserError, match=said):
        build(config, dataset=make_dataset(), devices=ONE)
