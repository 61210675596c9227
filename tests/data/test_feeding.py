import functools
import threading

import numpy as np
import pytest

from jaxmm.batch import make_batch, take
from jaxmm.config import DataConfig, FramesConfig, SpectrogramConfig, TrainConfig
from jaxmm.data import feeding, pipeline
from jaxmm.data.rows import Rows
from jaxmm.errors import UserError
from jaxmm.prepare.run import prepare
from jaxmm.train import plan


def row(record, position):
    return np.array([(record + position) % 256], np.uint8)


@pytest.fixture(name="split", scope="module")
def prepared_split(layouts, tmp_path_factory):
    """The training split of a made CREMA-D, which other processes can read too."""
    folder = tmp_path_factory.mktemp("feeding")
    layouts.cremad(folder / "source")
    prepare("cremad", folder / "source", folder, progress=False)
    config = DataConfig(name="cremad", path=str(folder / "cremad"), preprocess={
        "audio": SpectrogramConfig(rate=4000, seconds=0.5),
        "visual": FramesConfig(frames=2, height=6, width=8)})
    return pipeline.load(config).splits["train"]


def equal(a, b):
    for x, y in ((a["label"], b["label"]), *((a["inputs"][m], b["inputs"][m]) for m in a["inputs"])):
        np.testing.assert_array_equal(x, y)


def steps(split, start=0):
    tasks = [np.arange(len(split["label"]))]
    return plan.Chunks(tasks, TrainConfig(epochs=3, batch_size=4), 1, start)


def rows_of(chunk):
    return chunk.index.ravel()


def half(chunk, host):
    """The rows of one of two hosts."""
    return rows_of(chunk)[2 * host:2 * host + 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers(split, workers):
    """Nor on where a run is resumed: the same batches as those read one by one."""
    whole = list(steps(split))
    found = list(feeding.read_ahead(split, steps(split, start=5), rows_of, workers))
    assert len(found) == len(whole) - 5 > 3
    for (chunk, rows), expected in zip(found, whole[5:]):
        np.testing.assert_array_equal(chunk.index, expected.index)
        assert chunk[1:] == expected[1:]
        equal(rows, take(split, rows_of(expected)))


def test_hosts_read_their_shares_of_the_same_batches(split):
    """Half of each batch on each of two hosts is the batch of one."""
    hosts = [feeding.read_ahead(split, steps(split), functools.partial(half, host=host))
             for host in (0, 1)]
    for chunk, (_, first), (_, second) in zip(list(steps(split))[:3], *hosts):
        for m in split["inputs"]:
            np.testing.assert_array_equal(np.concatenate([first["inputs"][m], second["inputs"][m]]),
                                          split["inputs"][m][rows_of(chunk)])


def test_only_a_few_batches_are_read_ahead():
    seen, enough = [], threading.Event()

    def read(record, position):
        seen.append(position)
        if len(seen) >= 3:
            enough.set()
        return row(record, position)

    split = make_batch({"x": Rows(range(500), read, (1,), np.uint8, 0)}, np.zeros(500))
    batches = feeding.read_ahead(split, [(np.array([i]),) for i in range(500)])
    (index,), batch = next(batches)
    assert index == [0] and batch["inputs"]["x"] == [[0]]
    assert enough.wait(10)                              # some of the next ones are read meanwhile
    assert len(seen) < 100


def test_read_all_keeps_the_order():
    rows = Rows(range(150), row, (1,), np.uint8, 0)
    split = feeding.read_all(make_batch({"x": rows, "y": np.arange(150)}, np.zeros(150)))
    np.testing.assert_array_equal(split["inputs"]["x"][:, 0], 2 * np.arange(150) % 256)
    np.testing.assert_array_equal(split["inputs"]["y"], np.arange(150))


def test_large_splits_are_streamed():
    def split(n):
        return make_batch({"x": Rows(range(n), row, (2**20,), np.uint8, 0)}, np.zeros(n))
    assert [feeding.is_streamed(split(n), "auto") for n in (2000, 2100)] == [False, True]
    assert feeding.is_streamed(split(2), "host") and not feeding.is_streamed(split(2100), "device")
    with pytest.raises(UserError, match="data.placement='disk'"):
        feeding.is_streamed(split(2), "disk")


@pytest.mark.parametrize("memory, placement, expected", [
    (0, "auto", "auto"), (15, "auto", "auto"), (16, "auto", "device"), (16, "host", "host"),
    (0, "device", "device")])
def test_training_rows_lie_on_a_large_device(memory, placement, expected, monkeypatch):
    """Two rows of a MiB take an eighth of 16 MiB."""
    monkeypatch.setattr(feeding, "device_memory", lambda: memory * 2**20)
    assert feeding.place_training({"x": np.zeros((2, 2**20), np.uint8)}, placement) == expected
