import numpy as np
import pytest

from jaxmm.report import continual


def record(task, split="test", **values):
    """All heads alike but for `values`: (class-incremental, task-incremental) by head."""
    return {"task": task, "split": split,
            "class_incremental": {head: plain for head, (plain, _) in values.items()},
            "task_incremental": {head: masked for head, (_, masked) in values.items()},
            "examples": {head: [0 if x is None else 4 for x in plain] for head, (plain, _) in values.items()}}


NONE = [None, None, None]
HISTORY = [
    record(-1, fused=([0.1, 0.2, 0.3], [0.5] * 3), sound=([0.1, None, 0.3], NONE)),
    record(0, fused=([0.9, 0.4, 0.3], [0.9] * 3), sound=([0.8, None, 0.1], NONE)),
    record(0, "val", fused=([9, 9, 9], [9] * 3), sound=([9, 9, 9], NONE)),
    record(1, fused=([0.5, 0.8, 0.5], [0.9] * 3), sound=([0.6, None, 0.5], NONE)),
    record(2, fused=([0.3, 0.4, 0.8], [0.6, 0.9, 0.9]), sound=([0.2, None, 0.6], [0.4, None, 0.8])),
    record(2, "val", fused=([9, 9, 9], [9] * 3), sound=([9, 9, 9], NONE)),
]


def test_summary_of_the_tasks_that_can_be_scored():
    metrics = continual.summary(HISTORY, "class")
    assert metrics["fused"] == pytest.approx({
        "mean_accuracy": 0.5, "task_incremental": 0.8, "stability": 0.35,
        "plasticity": (0.9 + 0.8 + 0.8) / 3,
        "trade_off": 2 * 0.35 * (2.5 / 3) / (0.35 + 2.5 / 3),
        "forgetting": (0.6 + 0.4) / 2, "mean_forgetting": (0.4 + 0.5) / 2,
        "average_incremental_accuracy": (0.9 + 0.65 + 0.5) / 3, "backward_transfer": (-0.6 - 0.4) / 2,
        "forward_transfer": (0.2 + 0.2) / 2})
    # No example of the second task has sound: tasks one and three are all there is.
    assert metrics["sound"] == pytest.approx({
        "mean_accuracy": 0.4, "task_incremental": 0.6, "stability": 0.2, "plasticity": 0.7,
        "trade_off": 2 * 0.2 * 0.7 / 0.9, "forgetting": 0.6, "mean_forgetting": (0.2 + 0.6) / 2,
        "average_incremental_accuracy": (0.8 + 0.6 + 0.4) / 3, "backward_transfer": -0.6,
        "forward_transfer": 0.2})


def test_accuracy_on_the_tasks_seen():
    seen = continual.seen_accuracy(HISTORY, "domain")
    np.testing.assert_allclose(seen["fused"], [0.9, 0.65, 0.5])
    np.testing.assert_allclose(seen["sound"], [0.8, 0.6, 0.4])


def test_generalized_streams_count_the_last_test_set_which_holds_all_classes_seen():
    metrics = continual.summary(HISTORY, "generalized")
    assert metrics["fused"]["cumulative_accuracy"] == 0.8
    assert metrics["fused"]["task_incremental"] == 0.9
    # The test data of a task hold the classes learned before it: nothing is of the task alone.
    assert set(metrics["fused"]) == {"cumulative_accuracy", "task_incremental", "stability", "forgetting",
                                     "mean_forgetting", "average_incremental_accuracy", "backward_transfer"}
    assert metrics["fused"]["average_incremental_accuracy"] == pytest.approx(2.5 / 3)
    older = [{name: x for name, x in r.items() if name != "examples"} for r in HISTORY]
    assert "average_incremental_accuracy" not in continual.summary(older, "class")["fused"]
    seen = continual.seen_accuracy(HISTORY, "generalized")
    np.testing.assert_allclose(seen["fused"], [0.9, 0.8, 0.8])


def test_the_headline_is_one_definition_for_every_kind():
    history = [r | {"scores": {"fused": {"accuracy": 0.7}}} for r in HISTORY]
    assert {kind: continual.headlines(history, "test", kind, continual.headline(kind))
            for kind in ("", "class", "generalized")} == {
        "": {"fused": 0.7}, "class": {"fused": 0.5}, "generalized": {"fused": 0.8}}
    assert continual.headlines(history, "val", "domain", "mean_accuracy") == {"fused": 9}
    assert [continual.headline(kind) for kind in ("", "class", "domain", "generalized")] == [
        "accuracy", "mean_accuracy", "mean_accuracy", "cumulative_accuracy"]


def test_all_tasks_at_once_have_only_the_last_row():
    history = [HISTORY[0], HISTORY[4], HISTORY[5]]
    assert continual.summary(history, "class")["fused"] == pytest.approx(
        {"mean_accuracy": 0.5, "task_incremental": 0.8})
    np.testing.assert_allclose(continual.seen_accuracy(history, "class")["fused"], [0.5])
    np.testing.assert_allclose(continual.seen_accuracy(history, "generalized")["fused"], [0.8])


def test_a_modality_in_no_task_has_nan_and_empty_cells():
    history = [record(t, smell=(NONE, NONE), fused=([0.5] * 3, [0.5] * 3)) for t in (-1, 0, 1, 2)]
    metrics = continual.summary(history, "class")
    assert np.isnan(list(metrics["smell"].values())).all()
    lines = continual.table(metrics, ["smell"]).splitlines()
    assert set(lines[2].replace("smell", "")) == {"|", " "}


def test_table_is_in_percent():
    text = continual.table({"fused": {"mean_accuracy": 0.5, "forgetting": 0.1234},
                            "sound": {"mean_accuracy": np.nan, "forgetting": -0.02}}, ["sound"])
    assert text == ("| head  | mean accuracy | forgetting |\n"
                    "| ----- | ------------: | ---------: |\n"
                    "| sound |               |       -2.0 |\n"
                    "| fused |          50.0 |       12.3 |\n")


def test_on_a_generalised_stream_classes_count_by_their_share():
    """Three classes of 10, 2 and 5 training examples, tested after two phases."""
    history = [record(-1, fused=([0.1] * 2, [0.1] * 2))]
    for task, recall in enumerate(([0.9, 0.2, None], [0.5, 0.4, 0.3])):
        history.append(record(task, fused=([0.5] * 2, [0.5] * 2)) | {"recall": {"fused": recall}, "exposure": [10, 2, 5]})
    found = continual.summary(history, "generalized")["fused"]
    assert {name: found[name] for name in found if name.endswith("accuracy") and "_" in name} == pytest.approx({
        "cumulative_accuracy": 0.5, "class_accuracy": 0.4, "rare_accuracy": 0.4, "middle_accuracy": 0.3,
        "frequent_accuracy": 0.5, "average_incremental_accuracy": 0.5})
    assert found["class_forgetting"] == pytest.approx((0.4 + 0.0) / 2)
    assert "rare_accuracy" not in continual.summary(history, "class")["fused"]      # whose shares are even
