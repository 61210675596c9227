import numpy as np

from jaxmm.batch import make_batch
from jaxmm.evaluate.predictions import read_rows, row_chunks, score


def test_rows_are_in_their_order_without_those_that_fill_the_last_chunk():
    table = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)

    def read(feed, index):
        return {"fused": feed[index], "first": feed[index, 0, 0]}

    for size in (2, 3, 7, 10):
        found = read_rows(read, table, 7, row_chunks(7, size))
        np.testing.assert_array_equal(found["fused"], table)
        np.testing.assert_array_equal(found["first"], table[:, 0, 0])
        assert found["fused"].dtype == np.float32


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
