import numpy as np

from jaxmm.batch import make_batch
from jaxmm.data import streams
from jaxmm.evaluate import tasks

# Six examples, one of each class; the stream has classes {0, 3}, {1, 4}, {2, 5} or so by its seed.
LABELS = np.arange(6)
STREAM = streams.add_split(streams.class_incremental(LABELS, 3, seed=0), "test", LABELS)
GROUPS = [task.classes for task in STREAM.tasks]


def scored(logits, present=None, heads=("sound", "fused")):
    split = make_batch({"sound": np.zeros((6, 1)), "image": np.zeros((6, 1))}, LABELS, present=present)
    return tasks.score_tasks(dict.fromkeys(heads, logits), split, STREAM, "test")


def test_accuracy_by_task_with_all_labels_and_with_the_tasks_own():
    """Everything is called the second class of task 0: right once, and once more if masked."""
    logits = np.zeros((6, 6)) + 1e-3 * np.arange(6)
    logits[:, GROUPS[0][1]] = 5
    result = scored(logits)
    assert result["class_incremental"]["fused"] == [0.5, 0, 0]
    # Within its own labels each task picks the larger class number, or that class.
    assert result["task_incremental"]["fused"] == [0.5, 0.5, 0.5]
    assert result["recency"]["fused"] == [1, 0, 0]


def test_examples_without_the_modality_do_not_count_for_its_head():
    present = np.ones(6, bool)
    present[GROUPS[0]] = False
    present[GROUPS[1][0]] = False
    result = scored(np.eye(6), {"sound": present}, ("sound", "image", "fused"))
    assert result["class_incremental"]["sound"] == [None, 1, 1]
    assert result["class_incremental"]["fused"] == [1, 1, 1]
    alone = scored(np.eye(6), {"sound": present})       # a run of the sound alone
    assert alone["class_incremental"]["fused"] == [None, 1, 1]
    np.testing.assert_allclose(result["recency"]["sound"], [0, 1 / 3, 2 / 3])


def test_labels_shared_by_tasks_have_no_recency():
    stream = streams.domain_incremental(LABELS, {c: c % 2 for c in range(6)}, 3, seed=0)
    stream = streams.add_split(stream, "test", LABELS)
    split = make_batch({"sound": np.zeros((6, 1))}, streams.relabel(stream, LABELS))
    result = tasks.score_tasks({"fused": np.eye(2)[LABELS % 2]}, split, stream, "test")
    assert result["class_incremental"]["fused"] == [1, 1, 1] and not result["recency"]


def test_matrices_and_baseline_from_the_history():
    def record(task, split, values):
        return {"task": task, "split": split, "class_incremental": {"fused": values}}
    history = [record(-1, "test", [0.1, 0.2]), record(0, "val", [9, 9]),
               record(0, "test", [1, 0]), record(1, "test", [0.5, None])]
    R = tasks.matrices(history)["fused"]
    np.testing.assert_array_equal(R, [[1, 0], [0.5, np.nan]])
    np.testing.assert_array_equal(tasks.baseline(history)["fused"], [0.1, 0.2])
