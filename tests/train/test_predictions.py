import numpy as np

from jaxmm.train.predictions import join_parts, on_host, row_chunks


def test_rows_are_in_their_order_without_those_that_fill_the_last_chunk():
    table = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    for size in (2, 3, 7, 10):
        found = join_parts(({"fused": table[index], "first": table[index, 0, 0]}
                            for index in row_chunks(7, size)), 7)
        np.testing.assert_array_equal(found["fused"], table)
        np.testing.assert_array_equal(found["first"], table[:, 0, 0])
        assert found["fused"].dtype == np.float32


def test_rows_are_fetched_after_the_next_ones_were_asked_for():
    events = []

    class Logged:
        def __init__(self, number):
            events.append(f"ask {number}")
            self.number = number

        def __array__(self, dtype=None, copy=None):
            events.append(f"fetch {self.number}")
            return np.array(self.number)

    assert [part["fused"] for part in on_host({"fused": Logged(i)} for i in range(3))] == [0, 1, 2]
    assert events == ["ask 0", "ask 1", "fetch 0", "ask 2", "fetch 1", "fetch 2"]
