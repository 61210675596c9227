"""Data, or teachers, that change after a run was trained on them."""
import json
import shutil

import chex
import jax
import numpy as np
import pytest

from jaxmm.config import StreamConfig
from jaxmm.data.dataset import old_fingerprint
from jaxmm.errors import UserError
from jaxmm.report import run_report
from jaxmm.train import checkpoints, predictions, schedule
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]


def train(config, workdir, dataset):
    return schedule.train(config, workdir, dataset=dataset, devices=ONE, progress=False)


def leaves(run):
    return checkpoints.flatten(run.setup.programs.fetch(run.state))


def corrected(dataset, *splits):
    """The data with every label of these splits another one."""
    return dataset._replace(splits=dataset.splits | {
        s: dataset.splits[s] | {"label": (dataset.splits[s]["label"] + 1) % 3} for s in splits})


def accuracy(run, dataset, split="test"):
    """Of the fused head, counted here."""
    logits = predictions.predict_split(run.setup, run.state, dataset.splits[split])["fused"]
    return float(np.mean(logits.argmax(1) == dataset.splits[split]["label"]))


def shown(history):
    return [(r["step"], r["split"], r["scores"]["fused"]["accuracy"]) for r in history]


def written(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [r for r in lines if r["kind"] == "eval"]


def test_corrected_test_labels_are_scored_anew(make_dataset, make_config, tmp_path, caplog):
    config, old = make_config("concat", epochs=2), make_dataset()
    new, workdir = corrected(old, "test"), tmp_path / "run"
    first = train(config, workdir, old)
    again = train(config, workdir, new)
    assert "run: the split test of tiny changed after this run was trained" in caplog.text
    chex.assert_trees_all_equal(leaves(again), leaves(first))
    assert shown(again.history[:-1]) == shown(first.history[:-1])
    assert accuracy(first, new) != accuracy(first, old)
    for run in (again, restore(workdir, dataset=new, devices=ONE)):
        assert run.changed == ("test",)
        assert shown(run.history)[-1] == (8, "test", pytest.approx(accuracy(first, new)))
    assert written(workdir) == [{"kind": "eval"} | r for r in again.history]
    run_report.write(again, workdir)
    assert "Note: the split test of tiny changed" in (workdir / "report.md").read_text()
    # With the data of then, all is as it was.
    caplog.clear()
    back = train(config, workdir, old)
    assert back.history == first.history and not back.changed and not caplog.text
    assert written(workdir) == [{"kind": "eval"} | r for r in first.history]


def test_scores_on_validation_data_of_before_are_left_out(make_dataset, make_config, tmp_path):
    """They changed between the second and the third epoch: of the epochs before there is no model."""
    config, old = make_config("concat", epochs=3), make_dataset()
    new, workdir = corrected(old, "val", "test"), tmp_path / "run"
    whole = train(config, workdir, old)
    checkpoints.open_manager(workdir).delete(12)
    run = train(config, workdir, new)
    chex.assert_trees_all_equal(leaves(run), leaves(whole))
    assert shown(run.history) == [(8, "val", pytest.approx(run.history[0]["scores"]["fused"]["accuracy"])),
                                  (12, "val", pytest.approx(accuracy(whole, new, "val"))),
                                  (12, "test", pytest.approx(accuracy(whole, new)))]
    second = restore(workdir, 8, dataset=new, devices=ONE)
    assert shown(run.history)[0][2] == pytest.approx(accuracy(second, new, "val"))
    # It now belongs to these data.
    assert not train(config, workdir, new).changed
    assert written(workdir) == [{"kind": "eval"} | r for r in run.history]


def test_tasks_that_were_scored_on_other_data_are_refused(make_dataset, make_config, tmp_path):
    config, dataset = make_config("sgd", epochs=1), make_dataset(rows=(32, 16, 18))
    config.stream = StreamConfig(kind="class", num_tasks=3)
    train(config, tmp_path / "run", dataset)
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="run: the test split of tiny is not the one that the tasks"):
        train(config, tmp_path / "run", corrected(dataset, "test"))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before
    assert restore(tmp_path / "run", dataset=corrected(dataset, "test"),
                   devices=ONE).changed == ("test",)


def make_older(workdir, data):
    """The folder as older versions left it: no model.json, and `data` for its checksums."""
    manager = checkpoints.open_manager(workdir)
    step = manager.latest_step()
    leaves, meta = checkpoints.read(manager, step)
    manager.delete(step)
    checkpoints.write(manager, step, leaves, {"history": meta["history"], "data": data}, keep=1)
    (workdir / "model.json").unlink()


@pytest.mark.parametrize("one_checksum, said", [
    (True, "run is of an older version, which kept no checksums of validation"),
    (False, "run is of an older version, which kept nothing of its data: normalisation, vocabulary")])
def test_a_folder_of_an_older_version_goes_on(make_dataset, make_config, tmp_path, caplog, one_checksum,
                                              said):
    """It has one checksum, of the training split, or those of all splits."""
    config, dataset, workdir = make_config("concat", epochs=1), make_dataset(), tmp_path / "run"
    first = train(config, workdir, dataset)
    assert not caplog.text
    make_older(workdir, old_fingerprint(dataset) if one_checksum else first.setup.checksums)
    assert restore(workdir, dataset=dataset, devices=ONE).history == first.history
    assert [said in r.message for r in caplog.records] == [True]
    assert train(config, workdir, dataset).history == first.history
    with pytest.raises(UserError, match="not the data this run was trained on"):
        train(config, workdir, corrected(dataset, "train"))


def test_another_teacher_is_another_result(make_dataset, make_config, tmp_path, caplog):
    dataset, teachers = make_dataset(), tmp_path / "teachers/{teacher}"
    config = make_config("ume", epochs=1)
    first = train(config, tmp_path / "own", dataset)
    shutil.copytree(tmp_path / "own/teachers", tmp_path / "teachers")
    config.method.teachers = str(teachers)
    named = train(config, tmp_path / "run", dataset)
    assert shown(named.history) == shown(first.history)
    assert train(config, tmp_path / "run", dataset).history == named.history
    # The teacher is scored again, which leaves it the model that it was.
    alone = make_config("unimodal", epochs=1)
    folder = tmp_path / "teachers/unimodal_sound"
    train(alone, folder, corrected(dataset, "test"))
    assert train(config, tmp_path / "run", dataset).history == named.history
    shutil.rmtree(folder)
    alone.train.seed = 1
    train(alone, folder, dataset)
    with pytest.raises(UserError, match="run: its teacher .*unimodal_sound is another model now"):
        train(config, tmp_path / "run", dataset)
    shutil.rmtree(tmp_path / "teachers")        # nothing to compare with
    assert train(config, tmp_path / "run", dataset).history == named.history
