import csv

import jax
import numpy as np
import pytest

from jaxmm.batch import take
from jaxmm.commands import evaluate as command
from jaxmm.errors import UserError
from jaxmm.experiments import evaluate
from jaxmm.train.scores import score
from jaxmm.report.tables import scores_table
from jaxmm.train.schedule import train
from jaxmm.train.predictions import predict_split
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]
MODALITIES = ["image", "sound"]


@pytest.fixture(name="workdir", scope="module")
def make_workdir(make_dataset, make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    dataset = make_dataset(missing=True)
    train(make_config("late", epochs=1), workdir, dataset=dataset, devices=ONE, progress=False)
    return workdir


@pytest.fixture(autouse=True)
def tiny_runs(make_dataset, monkeypatch):
    """Configs of the tests name no data set that could be loaded."""
    monkeypatch.setattr(evaluate, "restore", lambda workdir, step, **_: restore(
        workdir, step, dataset=make_dataset(missing=True), devices=ONE))


def test_the_table_is_that_of_the_run(workdir, make_dataset):
    run = restore(workdir, dataset=make_dataset(missing=True), devices=ONE)
    note, table = evaluate.evaluate(workdir, None, "test", [], []).split("\n\n")
    assert note == "late on tiny, step 4: 16 examples of test"
    assert table == scores_table(run.history[-1]["scores"], MODALITIES)
    note, table = evaluate.evaluate(workdir, 4, "val", [], []).split("\n\n")
    assert note.endswith("16 examples of val")
    assert table == scores_table(run.history[-2]["scores"], MODALITIES)


def test_dropped_modalities_have_no_row_and_empty_examples_are_counted(workdir, make_dataset):
    dataset = make_dataset(missing=True)
    run = restore(workdir, dataset=dataset, devices=ONE)
    test = dataset.splits["test"]
    has_image = test["present"]["image"]
    assert 0 < has_image.sum() < 16
    notes, table = evaluate.evaluate(workdir, None, "test", ["sound"], []).split("\n\n")
    assert notes.splitlines()[1:] == [
        "Without sound, which has no row in the table",
        f"{16 - has_image.sum()} more examples have nothing that the run would use and are left out"]
    rest = take(test, has_image)
    expected = score(predict_split(run.setup, run.state, rest), rest)["image"]
    # Late fusion of a single modality is that modality.
    assert table == scores_table({"image": expected, "fused": expected}, MODALITIES)


def test_noise_changes_its_modality_alone(workdir):
    notes, noisy = evaluate.evaluate(workdir, None, "test", [], ["image:3"]).split("\n\n")
    clean = evaluate.evaluate(workdir, None, "test", [], ["image:0"]).split("\n\n")[1]
    assert notes.splitlines()[1:] == ["Noise of 3 standard deviations on image"]
    image, sound = zip(*(t.splitlines()[2:4] for t in (clean, noisy)))
    assert sound[0] == sound[1] and image[0] != image[1]


def test_predictions_of_every_example_have_the_accuracy_of_the_table(workdir, make_dataset, tmp_path):
    evaluate.evaluate(workdir, None, "test", [], [], predictions=str(tmp_path / "test.csv"))
    with open(tmp_path / "test.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = restore(workdir, dataset=make_dataset(missing=True), devices=ONE).history[-1]["scores"]
    assert [int(row["id"]) for row in rows] == list(range(16))
    for head in ("sound", "image", "fused"):
        had = [row for row in rows if row[f"{head}/class"]]
        assert len(had) < 16 or head == "fused"
        right = [row["label/class"] == row[f"{head}/class"] for row in had]
        assert np.mean(right) == pytest.approx(scores[head]["accuracy"], abs=1e-7)


def test_data_that_have_changed_are_said(workdir, make_dataset, monkeypatch, caplog):
    dataset = make_dataset(missing=True)
    new = dataset._replace(splits=dataset.splits | {
        s: dataset.splits[s] | {"label": (dataset.splits[s]["label"] + 1) % 3}
        for s in ("train", "test")})
    monkeypatch.setattr(evaluate, "restore", lambda workdir, step, **_: restore(
        workdir, step, dataset=new, devices=ONE))
    expected = ("the splits train, test of tiny changed after this run was trained; scores are of the "
                "data there are now")
    text = evaluate.evaluate(workdir, None, "test", [], [])
    assert text.splitlines()[1] == f"Note: {expected}"
    assert f"{workdir}: {expected}" in caplog.text
    assert scores_table(restore(workdir, dataset=new, devices=ONE).history[-1]["scores"],
                        MODALITIES) in text


def test_drop_may_be_repeated_or_a_list():
    five = list("abcde")
    assert evaluate.parse_drop(["a,b", "d", "b"], five) == ["a", "b", "d"]
    assert evaluate.parse_drop([], five) == []


def test_noise_may_be_repeated_or_a_list_and_names_may_hold_colons():
    assert evaluate.parse_noise(["a:1,b:0.5", "c:x:0"], ["a", "b", "c:x"]) == {
        "a": 1.0, "b": 0.5, "c:x": 0.0}


@pytest.mark.parametrize("option, value, message", [
    ("drop", "smell", "--drop: 'smell' is not a modality of the run; expected one of image, sound"),
    ("drop", "sound,", "--drop: '' is not a modality"),
    ("drop", "image,sound", "--drop=image,sound leaves no modality of the run; keep at least one"),
    ("noise", "smell:1", "--noise: 'smell' is not a modality"),
    ("noise", "1", "--noise: '1' is not a modality"),
    ("noise", "sound", "--noise=sound: expected MODALITY:SIGMA with a number SIGMA >= 0"),
    ("noise", "sound:", "--noise=sound:: expected MODALITY:SIGMA"),
    ("noise", "sound:-0.1", "--noise=sound:-0.1: expected MODALITY:SIGMA"),
    ("noise", "sound:nan", "--noise=sound:nan: expected MODALITY:SIGMA"),
    ("noise", "sound:inf", "--noise=sound:inf: expected MODALITY:SIGMA"),
    ("noise", "sound:1,sound:2", "--noise names sound twice"),
])
def test_bad_options(option, value, message):
    parse = {"drop": evaluate.parse_drop, "noise": evaluate.parse_noise}[option]
    with pytest.raises(UserError) as error:
        parse([value], MODALITIES)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_bad_split_step_and_folder(workdir, tmp_path):
    with pytest.raises(UserError, match="--split='tset'; did you mean test. Expected one of train, val, test"):
        evaluate.evaluate(workdir, None, "tset", [], [])
    with pytest.raises(UserError, match=r"no checkpoint of step 3; found \[4\]"):
        evaluate.evaluate(workdir, 3, "test", [], [])
    with pytest.raises(UserError, match="config.json is missing"):
        evaluate.evaluate(tmp_path, None, "test", [], [])


def test_the_only_modality_of_a_unimodal_run_cannot_be_dropped(make_dataset, make_config, tmp_path):
    train(make_config("unimodal", epochs=1), tmp_path / "run", dataset=make_dataset(missing=True),
          devices=ONE, progress=False)
    with pytest.raises(UserError, match="--drop=sound leaves no modality"):
        evaluate.evaluate(tmp_path / "run", None, "test", ["sound"], [])
    with pytest.raises(UserError, match="'image' is not a modality of the run; expected one of sound"):
        evaluate.evaluate(tmp_path / "run", None, "test", ["image"], [])


def test_without_options_a_missing_default_run_says_to_train_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command.FLAGS(["evaluate"])
    with pytest.raises(UserError, match="av_digits_mla does not exist; train first: jaxmm train"):
        command.main()


def test_analyses_are_printed_and_written_into_the_run_folder(workdir, monkeypatch, capsys):
    def run(*arguments):
        with monkeypatch.context() as patch:
            for flag in ("workdir", "reference", "gap", "drop", "robustness", "contribution", "baseline", "value",
                         "permutations"):
                patch.setattr(command.FLAGS[flag], "value", command.FLAGS[flag].default)
            command.FLAGS(["evaluate", f"--workdir={workdir}", *arguments])
            command.main()

    before = sorted(p.name for p in workdir.iterdir())
    run("--split=val")
    assert sorted(p.name for p in workdir.iterdir()) == before
    capsys.readouterr()
    run("--gap", f"--reference={workdir}")
    shown = capsys.readouterr().out
    text = (workdir / "analysis.md").read_text()
    assert text.startswith("# Analyses of late on tiny\n\n## Modality gap\n")
    section = text.partition("\n\n")[2]
    assert section.strip() in shown and shown.endswith("analysis.md shows it with the plots.\n")
    added = {p.name for p in workdir.iterdir()} - set(before)
    assert added == {"analysis.md", "modality_gap.png"}
    with pytest.raises(UserError, match="--drop and --noise do not go with --robustness"):
        run("--robustness", "--drop=sound")
    with pytest.raises(UserError, match="--reference is for analyses; name one, such as --probe"):
        run(f"--reference={workdir}")
    with pytest.raises(UserError, match="config.json is missing"):
        run("--gap", f"--reference={workdir.parent}")
    with pytest.raises(UserError, match="--baseline is for --contribution; add that, or leave it out"):
        run("--gap", "--baseline=zero")
    with pytest.raises(UserError, match="--permutations is for --contribution; add that, or leave it out"):
        run("--gap", "--permutations=8")
    with pytest.raises(UserError, match="permutations=8 is for more than 10 modalities"):
        run("--contribution", "--permutations=8")
    with pytest.raises(UserError, match="value='loss'; expected one of correct, prob, nll"):
        run("--contribution", "--value=loss")
