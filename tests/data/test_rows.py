import pickle

import jax
import numpy as np

from jaxmm.batch import make_batch, take
from jaxmm.data.rows import Rows, select


def read(record, position):
    return np.array([[record, position]], np.uint8)


ROWS = Rows(range(10, 20), read, (1, 2), np.uint8, checksum=5)
ARRAY = np.stack([read(i + 10, i) for i in range(10)])


def test_rows_are_read_like_those_of_an_array():
    assert (ROWS.shape, ROWS.ndim, ROWS.dtype, len(ROWS)) == (ARRAY.shape, 3, ARRAY.dtype, 10)
    assert ROWS.nbytes == ARRAY.nbytes
    for index in (np.array([3, 1, 1]), np.array([[0, 9], [4, 2]]), np.arange(10) > 6, slice(2, 8, 2), 7):
        np.testing.assert_array_equal(ROWS[index], ARRAY[index])


def test_rows_that_were_read_are_not_copied_to_the_cpu():
    rows = Rows(range(10), lambda record, position: np.full(37, record), (37,), np.uint8, 0)
    for index in (np.arange(10), np.array([4]), 7):
        read = rows[index]
        assert jax.device_put(read, jax.devices("cpu")[0]).unsafe_buffer_pointer() == read.ctypes.data


def test_some_of_the_rows_are_rows():
    batch = make_batch({"image": ROWS, "sound": ARRAY}, np.arange(10))
    part = select(select(batch, np.array([8, 3, 1])), np.array([True, False, True]))
    assert isinstance(part["inputs"]["image"], Rows) and part["inputs"]["image"].checksum == 5
    np.testing.assert_array_equal(part["id"], [8, 1])
    for x in part["inputs"].values():
        np.testing.assert_array_equal(x[np.arange(2)], ARRAY[[8, 1]])
    read_all = take(batch, np.array([4]))["inputs"]
    np.testing.assert_array_equal(read_all["image"], ARRAY[[4]])


def test_rows_read_otherwise_keep_their_places():
    changed = ROWS.select(np.array([2, 5])).change(
        lambda record, position: np.array([[record / 2, position]]), np.float32)
    np.testing.assert_array_equal(changed[np.arange(2)], [[[6, 2]], [[7.5, 5]]])
    assert changed.dtype == np.float32


def test_rows_can_be_sent():
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ROWS))[np.arange(10)], ARRAY)
