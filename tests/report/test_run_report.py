import jax
import pytest

from jaxmm.errors import UserError
from jaxmm.report import run_report
from jaxmm.report.tables import scores_table
from jaxmm.train.schedule import train
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def finished(make_dataset, make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "with space"
    config = make_config("concat", epochs=3)
    return train(config, workdir, dataset=make_dataset(), devices=ONE, progress=False), workdir


def test_report_says_what_was_run_and_found(finished):
    run, workdir = finished
    table = run_report.write(run, workdir)
    test, val = run.history[-1]["scores"], run.history[-2]["scores"]
    assert [r["split"] for r in run.history[-2:]] == ["val", "test"]
    assert table == scores_table(test, ["image", "sound"])
    text = (workdir / "report.md").read_text()
    assert text.index(table) < text.index(scores_table(val, ["image", "sound"]))
    assert f"head `fused` on the test split: **{100 * test['fused']['accuracy']:.1f}%**" in text
    assert "tiny, 3 classes, 32 train, 16 val, 16 test examples" in text
    assert "Training: 3 epochs, 12 steps of 8 examples, seed 0" in text
    size = sum(x.size for x in jax.tree.leaves(run.state.params))
    assert f"Parameters: {size:,}\n" in text
    assert f"'--workdir={workdir}'" in text and "    --config.train.epochs=3\n" in text
    assert "--config.train.seed" not in text
    for picture in ("accuracy.png", "learning_curves.png"):
        assert f"({picture})" in text and (workdir / picture).exists()


def test_methods_on_the_inputs_have_no_encoder(finished, make_dataset, make_config, tmp_path):
    run, workdir = finished
    run_report.write(run, workdir)
    assert "Modality sound: float32 [3], encoder mlp\n" in (workdir / "report.md").read_text()
    for name in ("cca", "cpm_net"):
        found = train(make_config(name, epochs=1), tmp_path / name, dataset=make_dataset(), devices=ONE, progress=False)
        run_report.write(found, tmp_path / name)
        text = (tmp_path / name / "report.md").read_text()
        assert "Modality sound: float32 [3], no encoder\n" in text and "encoder mlp" not in text


@pytest.mark.parametrize("keep", ["last", "best"])
def test_without_test_data_validation_of_the_kept_model_takes_its_place(keep, make_dataset, make_config, tmp_path):
    dataset = make_dataset()
    dataset = dataset._replace(splits={split: dataset.splits[split] for split in ("train", "val")})
    config = make_config("concat", epochs=3, keep=keep)
    run = train(config, tmp_path, dataset=dataset, devices=ONE, progress=False)
    # As if the second epoch had been the best.
    second = run.history[1]["scores"]
    second["fused"]["accuracy"] = 2.0
    table = run_report.write(run, tmp_path)
    assert table == scores_table(second if keep == "best" else run.history[2]["scores"], ["image", "sound"])
    text = (tmp_path / "report.md").read_text()
    said = {"last": "The table is of the last epoch, 3.",
            "best": "The table is of the model of epoch 2, the best on validation by accuracy; the last epoch was 3."}
    assert said[keep] in text and text.count(table) == 1 and "on the validation split: **" in text
    assert "## Validation in detail" in text and "## Training" in text and "## Test" not in text
    assert "32 train, 16 val examples" in text and "predict" in text and "evaluate" not in text


def test_a_restored_run_gives_the_same_report(finished, make_dataset):
    run, workdir = finished
    run_report.write(run, workdir)
    files = {p.name: p.read_bytes() for p in workdir.iterdir() if p.suffix in (".md", ".png")}
    for name in files:
        (workdir / name).unlink()
    run_report.write(restore(workdir, dataset=make_dataset(), devices=ONE), workdir)
    assert {name: (workdir / name).read_bytes() for name in files} == files


def test_an_unfinished_run_has_no_report(finished, tmp_path):
    run, _ = finished
    for history, done in ([r for r in run.history if r["step"] < 12], 8), ([], 0):
        with pytest.raises(UserError, match=f"has made {done} of 12 steps; finish it"):
            run_report.write(run._replace(history=history), tmp_path)
    assert not list(tmp_path.iterdir())


def test_training_seconds_count_steps_since_the_record_before():
    records = [{"step": 10, "examples_per_second": 8.0}, {"step": 40, "examples_per_second": 60.0}]
    assert run_report.training_seconds(records, batch=4) == pytest.approx(10 * 4 / 8 + 30 * 4 / 60)


def test_changed_options_compare_with_the_same_method(make_config):
    config = make_config("unimodal", encoder=None, epochs=100, batch_size=64)
    assert dict(run_report.changed_options(config)) == {
        "encoders.sound.name": "mlp", "encoders.sound.width": 6, "encoders.sound.depth": 1,
        "encoders.image.name": "mlp", "encoders.image.width": 6, "encoders.image.depth": 1,
        "method.modality": "sound", "optimizer.learning_rate": 0.1,
        "optimizer.schedule": "constant"}
