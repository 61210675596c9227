import numpy as np

from jaxmm.evaluate import tasks


def test_matrices_and_baseline_from_the_history():
    def record(task, split, values):
        return {"task": task, "split": split, "class_incremental": {"fused": values}}
    history = [record(-1, "test", [0.1, 0.2]), record(0, "val", [9, 9]),
               record(0, "test", [1, 0]), record(1, "test", [0.5, None])]
    R = tasks.matrices(history)["fused"]
    np.testing.assert_array_equal(R, [[1, 0], [0.5, np.nan]])
    np.testing.assert_array_equal(tasks.baseline(history)["fused"], [0.1, 0.2])
