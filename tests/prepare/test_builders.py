"""Every data set, from made files to records: names, splits, classes, order and content."""
import collections
import io
import os
import random

import numpy as np
import pytest
from PIL import Image

from jaxmm.data.prepared import open_prepared
from jaxmm.errors import UserError
from jaxmm.prepare.decode import Options
from jaxmm.prepare.run import prepare

# By case: data set, maker of its files, options of the maker, classes in their order.
CASES = {
    "cremad": ("cremad", "cremad", {"actors": 2}, ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")),
    "cremad videos": ("cremad", "cremad", {"actors": 2, "raw": True},
                      ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")),
    "food101": ("food101", "food101", {}, ("apple_pie", "baklava")),
    "food101 jsonl": ("food101", "food101", {"jsonl": True}, ("apple_pie", "baklava")),
    "iemocap": ("iemocap", "iemocap", {"clips": 1}, ("ang", "hap", "neu", "sad")),
    "iemocap text": ("iemocap", "iemocap", {"clips": 1, "text": True},
                     ("ang", "hap", "neu", "sad")),
    "iemocap features": ("iemocap", "iemocap_features", {}, ("ang", "hap", "neu", "sad")),
    "kinetics400": ("kinetics400", "kinetics400", {"clips": 1}, ("abseiling", "air drumming")),
    "kinetics400 lists": ("kinetics400", "kinetics400", {"clips": 1, "lists": True},
                          ("abseiling", "air drumming")),
    "kinetics_sounds": ("kinetics_sounds", "kinetics_sounds", {}, ("bowling", "playing guitar")),
    "kinetics_sounds filterbanks": ("kinetics_sounds", "kinetics_sounds", {"audio": "npy"},
                                    ("bowling", "playing guitar")),
    "kinetics_sounds videos": ("kinetics_sounds", "kinetics_sounds", {"audio": "mp4", "clips": 1},
                               ("bowling", "playing guitar")),
    "modelnet40": ("modelnet40", "modelnet40", {}, ("airplane", "bed")),
    "mosei": ("mosei", "mosi", {}, ()),
    "mvsa": ("mvsa", "mvsa", {"clips": 5}, ("positive", "neutral", "negative")),
    "mvsa jsonl": ("mvsa", "mvsa", {"jsonl": True}, ("positive", "neutral", "negative")),
    "nyuv2": ("nyuv2", "nyuv2", {}, ()),
    "ucf101": ("ucf101", "ucf101", {}, ("YoYo", "Archery")),
    "ucf101 u v": ("ucf101", "ucf101", {"clips": 1, "flow": ("u", "v")}, ("YoYo", "Archery")),
    "ucf101 videos": ("ucf101", "ucf101", {"clips": 1, "raw": True}, ("YoYo", "Archery")),
    "vggsound": ("vggsound", "vggsound", {"clips": 3}, ("dog barking", "pigeon, dove cooing")),
    "vggsound videos": ("vggsound", "vggsound", {"clips": 1, "raw": True},
                        ("dog barking", "pigeon, dove cooing")),
}


def prepared(name, source, output, allow_skipped=0.05, **options):
    summary = prepare(name, source, output, Options(**options), allow_skipped=allow_skipped,
                      progress=False)
    return open_prepared(output / summary["name"])


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def shuffled(list_names):
    """os.listdir or os.scandir, in another order."""
    class Entries(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def listing(path="."):
        entries = Entries(list_names(path))
        random.Random(1).shuffle(entries)
        return entries
    return listing


@pytest.mark.parametrize("case", CASES)
def test_records_are_what_the_files_say(case, layouts, tmp_path, monkeypatch):
    name, maker, options, class_names = CASES[case]
    content = getattr(layouts, maker)(tmp_path / "source", **options)
    data = prepared(name, tmp_path / "source", tmp_path / "output")
    assert data.class_names == class_names
    if case == "mvsa":
        assert {split: len(records) for split, records in data.splits.items()} == {
            "train": 27, "val": 9, "test": 9}
        content = {record["key"]: (split, content[record["key"]][1])
                   for split, records in data.splits.items() for record in records}
        assert len(content) == 45
    for split, records in data.splits.items():
        keys = sorted(key for key, (s, _) in content.items() if s == split)
        assert [r["key"] for r in records] == keys
        assert [r["id"] for r in records] == list(range(len(keys)))
        labels = [r["label"].tolist() if data.outputs else class_names[r["label"]] if class_names else None
                  for r in records]
        assert labels == [content[key][1] for key in keys]
        assert all(r["present"] == dict.fromkeys(data.modalities, True) for r in records)
    assert sum(map(len, data.splits.values())) == len(content)

    monkeypatch.setattr(os, "listdir", shuffled(os.listdir))
    monkeypatch.setattr(os, "scandir", shuffled(os.scandir))
    again = prepared(name, tmp_path / "source", tmp_path / "again")
    assert again.summary["shards"] == data.summary["shards"]        # with their checksums


def test_frames_of_video_are_taken_at_equal_times(layouts, tmp_path):
    layouts.write_video(tmp_path / "source/train/dive/a.mp4", seconds=4.0, fps=10)
    layouts.write_video(tmp_path / "source/train/jump/a.mp4", seconds=1.0, fps=10)
    layouts.write_video(tmp_path / "source/test/dive/b.mp4", seconds=4.0, fps=10)
    for fps, expected in ((2, np.arange(8) * 5), (4, [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28,
                                                      30, 33, 35, 38])):
        data = prepared("kinetics400", tmp_path / "source", tmp_path / f"{fps}", fps=fps)
        frames = data.splits["train"][0]["inputs"]["visual"]
        red = [pixels(frame)[..., 0].mean() for frame in frames]
        np.testing.assert_allclose(red, 255 * np.asarray(expected) / 39, atol=12)
        assert data.modalities["visual"]["fps"] == fps


def test_views_flow_maps_and_features_are_those_of_the_example(layouts, tmp_path):
    layouts.modelnet40(tmp_path / "shapes", classes=("bed", "chair"), clips=1)
    record = prepared("modelnet40", tmp_path / "shapes", tmp_path).splits["train"][0]
    views = [pixels(record["inputs"][m][0]).mean() for m in ("front", "rear")]
    np.testing.assert_allclose(views, [10, 70], atol=2)
    for file in sorted((tmp_path / "shapes").rglob("*.png")):       # the short names, too
        file.rename(file.with_name(file.name.replace(".obj.shaded_v", "_")))
    again = prepared("modelnet40", tmp_path / "shapes", tmp_path / "short").splits["train"][0]
    assert again["key"] == record["key"] and pixels(again["inputs"]["rear"][0]).mean() == views[1]
    file.with_name("notes.png").touch()
    with pytest.raises(UserError, match="notes.png: no view of a shape"):
        prepared("modelnet40", tmp_path / "shapes", tmp_path / "other")
    file.with_name("notes.png").rename(file)
    with pytest.raises(UserError, match="there twice"):
        prepared("modelnet40", tmp_path / "shapes", tmp_path / "other")

    layouts.ucf101(tmp_path / "ucf", classes=("Archery", "YoYo"), clips=1)
    record = prepared("ucf101", tmp_path / "ucf", tmp_path).splits["train"][0]
    flow = [pixels(image).mean() for image in record["inputs"]["flow"]]
    np.testing.assert_allclose(flow, [*range(101, 111), *range(201, 211)], atol=2)

    layouts.nyuv2(tmp_path / "rooms")
    record = prepared("nyuv2", tmp_path / "rooms", tmp_path).splits["test"][1]
    assert record["label"] == -1 and (pixels(record["inputs"]["depth"][0]) == 1003).all()
    segments = pixels(record["inputs"]["segments"][0])
    assert (segments[4:] == 4).all() and (segments[:4, :4] == 0).all()
    raw = prepared("nyuv2", tmp_path / "rooms", tmp_path, variant="depth_raw")
    assert (pixels(raw.splits["test"][1]["inputs"]["depth"][0]) == 2003).all()
    assert len(raw.modalities["segments"]["classes"]) == 40 and raw.modalities["segments"]["classes"][4] == "chair"

    layouts.mosi(tmp_path / "films")
    data = prepared("mosi", tmp_path / "films", tmp_path)
    with np.load(tmp_path / "films/mosi.npz") as arrays:
        record = data.splits["test"][2]
        np.testing.assert_array_equal(record["inputs"]["text"], arrays["test/text"][2])
        assert data.splits["test"][0]["inputs"]["audio"][0, 0] == 0     # was infinite
    assert data.outputs == ("sentiment",) and data.summary["left_out"] == 0
    signs = prepared("mosi", tmp_path / "films", tmp_path, variant="binary")
    assert signs.summary["skipped"]["neutral: sentiment 0"]["count"] == 3
    for split, records in signs.splits.items():
        values = {r["key"]: r["label"][0] for r in data.splits[split]}
        assert [signs.class_names[r["label"]] for r in records] == [
            "positive" if values[r["key"]] > 0 else "negative" for r in records]

    layouts.food101(tmp_path / "food")
    record = prepared("food101", tmp_path / "food", tmp_path).splits["test"][0]
    assert (record["key"], record["inputs"]["text"]) == (
        "test/apple_pie/apple_pie_4", 'the "best" apple_pie, 4')


def test_published_lists_of_ucf101_can_be_chosen(layouts, tmp_path):
    content = layouts.ucf101(tmp_path / "source", clips=1)
    first, second, *_ = content
    layouts.write_lines(tmp_path / "source/trainlist01.txt", [f"{first}.avi 2", f"{second}.avi 2"])
    layouts.write_lines(tmp_path / "source/trainlist02.txt", [f"{second}.avi 2", f"{first}.avi 1"])
    with pytest.raises(UserError, match="1 label is not the class of the path; the first, YoYo/"):
        prepared("ucf101", tmp_path / "source", tmp_path)
    data = prepared("ucf101", tmp_path / "source", tmp_path, variant="split2")
    assert data.name == "ucf101_split2" and len(data.splits["train"]) == 2
    assert data.summary["ignored_lists"] == []


def test_benchmark_of_a_hundred_classes_takes_fifty_clips_for_test(layouts, tmp_path, monkeypatch):
    from jaxmm.prepare import vggsound
    monkeypatch.setattr(vggsound, "MMCL_TEST", 3)
    monkeypatch.setattr(vggsound, "MMCL_TRAIN", 2)
    layouts.vggsound(tmp_path / "source", clips=4,
                     classes=("dog barking", "cat purring", "zebra braying"))
    # Clip 12 of the list is the first dog of test; without sound it does not count.
    (tmp_path / "source/audio/yt-0012_000042.wav").unlink()
    data = prepared("vggsound", tmp_path / "source", tmp_path, variant="mmcl", allow_skipped=0.1)
    assert len(data.class_names) == 100 and "zebra braying" not in data.class_names
    coarse = collections.Counter(row[1] for row in vggsound.read_rows(
        vggsound.MMCL_CLASSES, ["class", "coarse"]))
    assert coarse == dict.fromkeys(("animals", "music", "people", "sports", "vehicle"), 20)
    keys = {split: [int(r["key"][3:7]) for r in records] for split, records in data.splits.items()}
    # Of the cats, the last one of the published test split is more than three.
    assert keys == {"test": [13, 15, 16, 18, 19, 21], "train": [0, 1, 3, 22]}
    assert {reason: entry["count"] for reason, entry in data.summary["skipped"].items()} == {
        "files missing": 1, "more than the benchmark has of its class": 5}
    assert data.class_names[data.splits["test"][1]["label"]] == "dog barking"


def test_label_of_a_tweet():
    from jaxmm.prepare.mvsa import joint_label
    assert joint_label("neutral", "positive") == joint_label("positive", "neutral") == "positive"
    assert joint_label("negative", "negative") == "negative"
    assert joint_label("neutral", "neutral") == "neutral"
    assert joint_label("negative", "positive") is joint_label("positive", "negative") is None


def test_images_of_digits_meet_recordings_of_their_digit_and_split(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds
    from jaxmm.prepare import avmnist
    rng = np.random.default_rng(0)
    digits = {split: [{"label": i % 10, "image": np.full((28, 28, 1), 20 * (i % 10), np.uint8)}
                      for i in range(20)] for split in ("train", "test")}
    # The value of the samples tells digit and number of the recording.
    spoken = [{"label": d, "audio": np.full(800, 1000 * d + 10 * n, np.int64),
               "audio/filename": f"{d}_ann_{n}.wav".encode()}
              for d in rng.permutation(10) for n in rng.permutation(10)]
    monkeypatch.setattr(tfds, "data_source", lambda name, split, data_dir:
                        spoken if name == "spoken_digit" else digits[split])
    avmnist._load.cache_clear()
    data = prepared("avmnist", tmp_path, tmp_path / "output")
    avmnist._load.cache_clear()
    assert data.modalities["audio"]["rate"] == 8000
    for split, records in data.splits.items():
        for i, record in enumerate(records):
            digit, number = divmod(int(record["inputs"]["audio"].samples[0]), 1000)
            assert digit == record["label"] == i % 10
            assert (number < 50) == (split == "test")
            assert abs(pixels(record["inputs"]["visual"][0]).mean() - 20 * digit) < 2

    def fail(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds, "data_source", fail)
    with pytest.raises(UserError, match="cannot load spoken_digit .* needs network once"):
        prepare("avmnist", tmp_path, tmp_path / "other", progress=False)


def test_rooms_whose_maps_do_not_fit_are_left_out_with_their_names(layouts, tmp_path):
    layouts.nyuv2(tmp_path / "rooms", rooms=6)
    train = tmp_path / "rooms/train"
    layouts.write_map(train / "labels_40/0000.png", np.ones((24, 16), np.uint8))
    layouts.write_map(train / "labels_40/0002.png", np.full((16, 24), 41, np.uint8))
    layouts.write_map(train / "labels_40/0004.png", np.zeros((16, 24), np.uint8))
    layouts.write_map(train / "labels_40/0006.png", np.ones((16, 24, 3), np.uint8))
    (train / "depth/0008.png").unlink()
    summary = prepare("nyuv2", tmp_path / "rooms", tmp_path, allow_broken=True, allow_skipped=0.5, progress=False)
    lines = (tmp_path / "nyuv2" / summary["version"] / "skipped.txt").read_text().splitlines()
    found = {key: (reason, detail) for _, key, reason, detail in (line.split("\t") for line in lines)}
    assert {key: reason for key, (reason, _) in found.items()} == {
        "train_0000": "broken segments", "train_0002": "broken segments",
        "train_0004": "no segments: no pixel with a class", "train_0006": "broken segments",
        "train_0008": "no depth: no such file"}
    assert "16 x 24 pixels, its picture 24 x 16" in found["train_0000"][1]
    assert "values from 41 to 41, expected classes from 1 to 40, or 0 for none" in found["train_0002"][1]
    assert "3 channels, expected one number for each pixel" in found["train_0006"][1]
    assert [r["key"] for r in open_prepared(tmp_path / "nyuv2").splits["train"]] == ["train_0010"]
    with pytest.raises(UserError, match="3 of 12 examples are broken, .*; the first, train_0000: broken segments"):
        prepare("nyuv2", tmp_path / "rooms", tmp_path / "other", allow_skipped=0.5, progress=False)
