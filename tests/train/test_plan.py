import pickle

import numpy as np
import pytest

from jaxmm.config import TrainConfig
from jaxmm.errors import UserError
from jaxmm.train import plan

CONFIG = TrainConfig(epochs=3, batch_size=4, seed=7)
TASKS = [np.arange(10), np.arange(10, 27)]


def test_every_epoch_sees_each_row_at_most_once_and_only_those_of_its_task():
    seen = {}
    for chunk in plan.Chunks(TASKS, CONFIG, steps_per_call=3):
        seen.setdefault((chunk.task, chunk.epoch), []).append(chunk.index.reshape(-1))
    assert list(seen) == [(t, e) for t in range(2) for e in range(3)]
    for (task, _), parts in seen.items():
        rows = np.concatenate(parts)
        assert len(rows) == len(set(rows)) == len(TASKS[task]) // 4 * 4
        assert set(rows) <= set(TASKS[task])
    orders = {np.concatenate(parts).tobytes() for parts in seen.values()}
    assert len(orders) == 6


def test_ends_are_marked_and_counted():
    found = list(plan.Chunks(TASKS, CONFIG, steps_per_call=3))
    assert [c.end for c in found] == [2, 4, 6, 9, 10, 13, 14, 17, 18]
    assert [c.end for c in found if c.ends_epoch] == [2, 4, 6, 10, 14, 18]
    assert [c.end for c in found if c.ends_task] == [6, 18]
    assert plan.total_steps(TASKS, CONFIG) == 18


def test_a_resumed_plan_is_the_rest_of_the_whole_one():
    whole = list(plan.Chunks(TASKS, CONFIG, steps_per_call=3))
    for i, chunk in enumerate(whole):
        rest = list(plan.Chunks(TASKS, CONFIG, steps_per_call=3, start=chunk.end))
        assert len(rest) == len(whole) - i - 1
        for a, b in zip(rest, whole[i + 1:]):
            np.testing.assert_array_equal(a.index, b.index)
            assert a[1:] == b[1:]


def test_order_does_not_depend_on_steps_per_call():
    def rows(k):
        return np.concatenate([c.index.reshape(-1) for c in plan.Chunks(TASKS, CONFIG, k)])
    np.testing.assert_array_equal(rows(1), rows(100))


def test_resuming_within_a_chunk_makes_what_is_left_of_it():
    first = plan.Chunks(TASKS, CONFIG, steps_per_call=3, start=7)[0]
    whole = [c for c in plan.Chunks(TASKS, CONFIG, steps_per_call=3) if c.end == 9][0]
    np.testing.assert_array_equal(first.index, whole.index[1:])
    assert first.end == 9


def test_a_task_smaller_than_a_batch_repeats_rows():
    chunk, = plan.Chunks([np.array([5, 8, 9])], TrainConfig(epochs=1, batch_size=4), 10)
    assert chunk.index.shape == (1, 4) and set(chunk.index[0]) == {5, 8, 9}


@pytest.mark.parametrize("size", [28, 0, -4])
def test_batch_larger_than_the_data_is_refused(size):
    with pytest.raises(UserError, match=f"batch_size={size}.*27"):
        plan.check_batch_size(TASKS, size)


@pytest.mark.parametrize("start", [0, 5, 7, 13, 18])
def test_chunks_by_number_are_those_in_turn(start):
    """Drawn in any order and in another process, too."""
    whole = list(plan.Chunks(TASKS, CONFIG, 3, start))
    by_number = pickle.loads(pickle.dumps(plan.Chunks(TASKS, CONFIG, 3, start)))
    assert len(by_number) == len(whole)
    for i in np.random.default_rng(0).permutation(len(whole)):
        np.testing.assert_array_equal(by_number[i].index, whole[i].index)
        assert by_number[i][1:] == whole[i][1:]
    steps = np.concatenate([np.zeros((0, 4)), *(chunk.index for chunk in whole)])
    one_by_one = [chunk.index[0] for chunk in plan.Chunks(TASKS, CONFIG, 1, start)]
    np.testing.assert_array_equal(steps.reshape(-1), np.reshape(one_by_one, -1))
