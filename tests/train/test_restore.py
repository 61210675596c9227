import shutil

import chex
import jax
import pytest

from jaxmm.errors import UserError
from jaxmm.train.scores import score
from jaxmm.train import checkpoints
from jaxmm.train.schedule import train
from jaxmm.train.predictions import predict_split
from jaxmm.train.restore import read_history, restore, restore_each
from jaxmm.train.folder import lock

ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def trained(make_dataset, make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    config = make_config("mla", epochs=3, keep_checkpoints=2)
    return train(config, workdir, dataset=make_dataset(), devices=ONE, progress=False), workdir


def leaves(run):
    return checkpoints.flatten(run.setup.programs.fetch(run.state))


def scores(run, split):
    split = run.setup.dataset.splits[split]
    return score(predict_split(run.setup, run.state, split), split)


def contents(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
            for p in [folder, *folder.rglob("*")]}


def test_restore_gives_the_trained_run_and_changes_nothing(trained, make_dataset):
    run, workdir = trained
    with lock(workdir):     # which only those who train need
        before = contents(workdir)
        restored = restore(str(workdir), dataset=make_dataset(), devices=ONE)
        assert contents(workdir) == before
    chex.assert_trees_all_equal(leaves(restored), leaves(run))
    assert restored.history == run.history
    assert restored.setup.config == run.setup.config
    assert scores(restored, "test") == run.history[-1]["scores"]


def test_restore_of_an_earlier_step_on_other_devices(trained, make_dataset):
    run, workdir = trained
    restored = restore(workdir, 8, dataset=make_dataset(), devices=jax.devices()[:2])
    assert int(leaves(restored)["step"]) == 8
    assert restored.history == run.history[:2]
    found = scores(restored, "val")
    for head, expected in restored.history[-1]["scores"].items():
        assert found[head]["nll"] == pytest.approx(expected["nll"], rel=1e-5)


def evaluation(**changes):
    scores = {"fused": {"accuracy": 1, "macro_f1": 0.5, "ece": 0.1, "nll": float("inf")}}
    return {"step": 1, "epoch": 1, "task": 0, "split": "val", "scores": scores} | changes


def test_a_history_is_read_as_it_was_written(trained):
    run, workdir = trained
    assert read_history(workdir, {"history": run.history, "data": {}}) == run.history
    history = [evaluation(recency={"fused": [0.5, None]}, class_incremental={})]
    assert read_history(workdir, {"history": history, "data": 3}) == history


@pytest.mark.parametrize("history", [
    None, 3, {}, [1], [{}], [evaluation(step="1")], [evaluation(step=True)], [evaluation(split="x")],
    [evaluation(), evaluation(scores=[])], [evaluation(scores={"fused": {}})],
    [evaluation(scores={"fused": None})], [evaluation(scores={"fused": {"accuracy": 1, "mean_recall": 1}})],
    [evaluation(scores={"fused": {"accuracy": "1", "macro_f1": 1, "ece": 1, "nll": 1}})],
    [evaluation(class_incremental={"fused": 1})], [evaluation(recency={"fused": ["x"]})]])
def test_a_history_of_another_form_is_refused(history, tmp_path):
    with pytest.raises(UserError, match=r"history in its checkpoint is of another form .record \d.;"):
        read_history(tmp_path, {"data": {}} | ({} if history is None else {"history": history}))
    with pytest.raises(UserError, match="says nothing about its data or teachers"):
        read_history(tmp_path, {"history": history})


def test_checkpoints_that_are_removed_meanwhile_are_left_out(trained, make_dataset, tmp_path):
    run, workdir = trained
    shutil.copytree(workdir, tmp_path / "run")
    runs = restore_each(run, tmp_path / "run")
    step, _ = next(runs)
    assert step == 8
    shutil.rmtree(tmp_path / "run/checkpoints/12")
    assert list(runs) == []


def test_errors_are_one_line_and_make_nothing(trained, make_dataset, tmp_path):
    _, workdir = trained
    with pytest.raises(UserError, match="no checkpoint of step 5; found .*8.*12"):
        restore(workdir, 5, dataset=make_dataset(), devices=ONE)
    with pytest.raises(UserError, match="config.json is missing"):
        restore(tmp_path / "missing")
    (tmp_path / "config.json").write_bytes((workdir / "config.json").read_bytes())
    with pytest.raises(UserError, match="no checkpoint yet; run `jaxmm train`"):
        restore(tmp_path, dataset=make_dataset(), devices=ONE)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint yet; run `jaxmm train`"):
        restore(tmp_path, dataset=make_dataset(), devices=ONE)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["checkpoints", "config.json"]
