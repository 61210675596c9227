import numpy as np

from jaxmm.batch import make_batch
from jaxmm.data import streams
from jaxmm.train import scores
from jaxmm.train.scores import score

# Six examples, one of each class; the stream has classes {0, 3}, {1, 4}, {2, 5} or so by its seed.
LABELS = np.arange(6)
STREAM = streams.add_split(streams.class_incremental(LABELS, 3, seed=0), "test", LABELS)
GROUPS = [task.classes for task in STREAM.tasks]


def scored(logits, present=None, heads=("sound", "fused")):
    split = make_batch({"sound": np.zeros((6, 1)), "image": np.zeros((6, 1))}, LABELS, present=present)
    return scores.score_tasks(dict.fromkeys(heads, logits), split, STREAM, "test")


def test_accuracy_by_task_with_all_labels_and_with_the_tasks_own():
    """Everything is called the second class of task 0: right once, and once more if masked."""
    logits = np.zeros((6, 6)) + 1e-3 * np.arange(6)
    logits[:, GROUPS[0][1]] = 5
    result = scored(logits)
    assert result["class_incremental"]["fused"] == [0.5, 0, 0]
    # Within its own labels each task picks the larger class number, or that class.
    assert result["task_incremental"]["fused"] == [0.5, 0.5, 0.5]
    assert result["recency"]["fused"] == [1, 0, 0] and result["examples"]["fused"] == [2, 2, 2]
    assert result["recall"]["fused"] == [float(c == GROUPS[0][1]) for c in range(6)]


def test_examples_without_the_modality_do_not_count_for_its_head():
    present = np.ones(6, bool)
    present[GROUPS[0]] = False
    present[GROUPS[1][0]] = False
    result = scored(np.eye(6), {"sound": present}, ("sound", "image", "fused"))
    assert result["class_incremental"]["sound"] == [None, 1, 1] and result["examples"]["sound"] == [0, 1, 2]
    assert result["class_incremental"]["fused"] == [1, 1, 1]
    assert result["recall"]["sound"] == [float(there) if there else None for there in present]
    alone = scored(np.eye(6), {"sound": present})       # a run of the sound alone
    assert alone["class_incremental"]["fused"] == [None, 1, 1]
    np.testing.assert_allclose(result["recency"]["sound"], [0, 1 / 3, 2 / 3])


def test_labels_shared_by_tasks_have_no_recency():
    stream = streams.domain_incremental(LABELS, {c: c % 2 for c in range(6)}, 3, seed=0)
    stream = streams.add_split(stream, "test", LABELS)
    split = make_batch({"sound": np.zeros((6, 1))}, streams.relabel(stream, LABELS))
    result = scores.score_tasks({"fused": np.eye(2)[LABELS % 2]}, split, stream, "test")
    assert result["class_incremental"]["fused"] == [1, 1, 1] and not result["recency"]


def test_a_run_of_part_of_the_modalities_is_scored_on_rows_that_have_one_of_them():
    """Of five rows two have sound: both right, which is all there is to say of a model of sound."""
    sound = np.array([True, False, False, True, False])
    split = make_batch({"sound": np.zeros((5, 1)), "image": np.zeros((5, 1))}, [0, 1, 1, 1, 0],
                       present={"sound": sound})
    logits = np.eye(2)[[0, 0, 0, 1, 0]]
    of_sound = score({"sound": logits, "fused": logits}, split)
    assert [of_sound[head]["accuracy"] for head in ("sound", "fused")] == [1, 1]
    of_both = score({"sound": logits, "image": logits, "fused": logits}, split)
    assert [of_both[head]["accuracy"] for head in ("sound", "image", "fused")] == [1, 0.6, 0.6]


def test_task_recency():
    class_to_task = np.array([0, 1, 0, 2, 3])
    shares = scores.task_recency(np.array([3, 3, 1, 0, 2, 3, 0, 3]), class_to_task)
    np.testing.assert_allclose(shares, [3 / 8, 1 / 8, 4 / 8, 0])
