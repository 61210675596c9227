import numpy as np

from jaxmm.evaluate.predictions import read_rows, row_chunks


def test_rows_are_in_their_order_without_those_that_fill_the_last_chunk():
    table = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)

    def read(feed, index):
        return {"fused": feed[index], "first": feed[index, 0, 0]}

    for size in (2, 3, 7, 10):
        found = read_rows(read, table, 7, row_chunks(7, size))
        np.testing.assert_array_equal(found["fused"], table)
        np.testing.assert_array_equal(found["first"], table[:, 0, 0])
        assert found["fused"].dtype == np.float32
