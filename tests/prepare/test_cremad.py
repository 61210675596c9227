import numpy as np
import pytest

from jaxmm.data.prepared import open_prepared
from jaxmm.prepare.decode import Options
from jaxmm.prepare.run import prepare

EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")


@pytest.fixture(name="source", scope="module")
def make_source(layouts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cremad")
    layouts.cremad(folder)
    return folder


def prepared(source, output, **options):
    summary = prepare("cremad", source, output, Options(**options), progress=False)
    return open_prepared(output / summary["name"])


def test_records_are_the_users_files(source, layouts, tmp_path):
    data = prepared(source, tmp_path)
    assert data.class_names == EMOTIONS
    assert data.modalities == {
        "audio": {"kind": "audio", "present": 24, "rate": 16000, "seconds": 0.25},
        "visual": {"kind": "frames", "present": 24, "fps": 1}}
    assert {split: len(records) for split, records in data.splits.items()} == {
        "train": 18, "test": 6}
    keys = [f"{actor}_DFA_{e}_XX" for actor in (1001, 1002, 1003) for e in sorted(EMOTIONS)]
    for i, (key, record) in enumerate(zip(keys, data.splits["train"])):
        assert (record["id"], record["key"]) == (i, key)
        assert EMOTIONS[record["label"]] == key.split("_")[2]
        assert record["present"] == {"audio": True, "visual": True}
        frames = [(source / "Image-01-FPS" / key / f"{n:05d}.jpg").read_bytes() for n in (1, 2, 3)]
        assert record["inputs"]["visual"] == frames
        samples, rate = record["inputs"]["audio"]
        wave = layouts.tone(pitch=200 + int(key[:4]) % 1000)[:, 0]
        assert rate == 16000 and samples.dtype == np.int16
        np.testing.assert_allclose(samples / 32768, wave, atol=1e-4)


def test_variant_puts_every_actor_in_one_split(source, tmp_path):
    splits = prepared(source, tmp_path, variant="speakers").splits
    actors = {split: {r["key"][:4] for r in records} for split, records in splits.items()}
    assert [len(actors[split]) for split in ("train", "val", "test")] == [2, 1, 1]
    assert len(set.union(*actors.values())) == 4 and sum(map(len, splits.values())) == 24
