import json

import jax
import pytest

from jaxmm.config import StreamConfig
from jaxmm.data import streams
from jaxmm.methods.continual import SGDConfig
from jaxmm.methods.samm import SAMMConfig
from jaxmm.metrics import brier_score
from jaxmm.report import continual, run_report, stream_report
from jaxmm.report.tables import scores_table
from jaxmm.train import predictions, schedule, setup as setup_lib
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]
PICTURES = ["task_matrix", "tasks_seen", "stability", "task_recency", "calibration", "accuracy",
            "learning_curves"]


@pytest.fixture(name="dataset", scope="module")
def make_incomplete_dataset(make_dataset):
    """No test example of the first task has sound, so it has no accuracy there."""
    dataset = make_dataset(rows=(60, 12, 24), classes=6)
    _, stream = streams.make_stream(StreamConfig(kind="class", num_tasks=3), dataset)
    test = dataset.splits["test"]
    present = test["present"]["sound"].copy()
    present[stream.tasks[0].indices["test"]] = False
    test = test | {"present": test["present"] | {"sound": present}}
    return dataset._replace(splits=dataset.splits | {"test": test})


@pytest.fixture(name="finished", scope="module")
def make_finished(dataset, make_config, tmp_path_factory):
    config = make_config(SAMMConfig(capacity=10), epochs=1, batch_size=10)
    config.stream = StreamConfig(kind="class", num_tasks=3)
    workdir = tmp_path_factory.mktemp("stream") / "run"
    return schedule.train(config, workdir, dataset=dataset, devices=ONE, progress=False), workdir


def test_report_of_a_stream(finished, dataset):
    run, workdir = finished
    table = run_report.write(run, workdir)
    metrics = continual.summary(run.history, "class")
    assert table == continual.table(metrics, ["image", "sound"])
    text = (workdir / "report.md").read_text()
    value = f"{100 * metrics['dynamic']['mean_accuracy']:.1f}"
    assert f"Mean accuracy over the tasks after the last one, head `dynamic`: **{value}%**." in text
    assert table in text and scores_table(run.history[-1]["scores"], ["image", "sound"]) in text
    assert streams.describe(run.setup.stream, dataset.class_names) in text
    assert "Class-incremental, 3 tasks, seed 0." in text
    # One temperature by head in the state, and the scores before it is used.
    t = float(run.state.extra["temperature"]["fused"])
    row = next(line for line in text.split("## Calibration")[1].splitlines() if "fused" in line)
    test = dataset.splits["test"]
    logits = predictions.predict_split(run.setup, run.state, test)["fused"]
    brier = [f"{brier_score(z, test['label']):.3f}" for z in (logits, logits / t)]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert (cells[1], cells[4]) == (f"{t:.2f}", " → ".join(brier))
    for name in PICTURES:
        assert f"({name}.png)" in text and (workdir / f"{name}.png").exists()
    assert json.loads((workdir / "stream.json").read_text()) == streams.to_json(run.setup.stream)


def test_a_restored_run_gives_the_same_report(finished, dataset, tmp_path):
    run, workdir = finished
    run_report.write(run, workdir)
    before = {p.name: p.read_bytes() for p in workdir.glob("*.*")}
    run_report.write(restore(workdir, dataset=dataset, devices=ONE), workdir)
    assert {p.name: p.read_bytes() for p in workdir.glob("*.*")} == before


@pytest.mark.parametrize("kind, joint, absent", [
    ("domain", True, ["tasks_seen", "stability", "task_recency"]),
    ("generalized", False, ["stability", "task_recency"])])
def test_other_streams(kind, joint, absent, dataset, make_config, tmp_path):
    """Pictures that would say nothing are not made, and classes keep their names."""
    coarse = tmp_path / "coarse.csv"
    coarse.write_text("class,coarse\n" + "".join(f"class {c},{c % 2}\n" for c in range(6)))
    config = make_config(SGDConfig(), epochs=1, batch_size=1)
    config.stream = StreamConfig(kind=kind, num_tasks=3, joint=joint, coarse=str(coarse),
                                 phase_size=20, max_classes=3)
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    state = setup_lib.init_state(setup)      # that nothing was learned changes nothing here
    logits = predictions.predict_split(setup, state, setup.dataset.splits["test"])
    scores = predictions.score_split(setup, logits, "test")
    run = setup_lib.Run(setup, state, [
        {"step": 60, "epoch": 1, "task": task, "split": split, **scores}
        for task in range(-1, len(setup.tasks)) for split in ("val", "test")])
    run_report.write(run, tmp_path)
    text = (tmp_path / "report.md").read_text()
    for name in PICTURES:
        assert (tmp_path / f"{name}.png").exists() == (name not in absent), name
    assert streams.describe(run.setup.stream, dataset.class_names) in text
    last = run.history[-1]["class_incremental"]["fused"]
    headline = last[-1] if kind == "generalized" else sum(last) / len(last)
    assert f"head `fused`: **{100 * headline:.1f}%**" in text
    assert ("all learned at once" in text) == joint
    assert "normalised are those of the training data of all tasks" in text
    assert stream_report.facts(config.stream, run.setup.stream) in text
