import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxmm import data, files
from jaxmm.config import DataConfig
from jaxmm.data.prepared import open_prepared
from jaxmm.errors import UserError, WriteError
from jaxmm.prepare import run, shards
from jaxmm.prepare.decode import Options
from jaxmm.prepare.run import prepare


@pytest.fixture(name="cremad", scope="module")
def make_cremad(layouts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cremad")
    layouts.cremad(folder)
    return folder


@pytest.fixture(name="damaged")
def make_damaged(cremad, layouts, tmp_path):
    """CREMA-D with something wrong in nine examples of train; and what is said of each."""
    source = shutil.copytree(cremad, tmp_path / "damaged")
    sound, frames = source / "AudioWAV", source / "Image-01-FPS"

    def key(emotion, actor=1001):
        return f"{actor}_DFA_{emotion}_XX"

    cut = sound / f"{key('ANG')}.wav"
    cut.write_bytes(cut.read_bytes()[:-100])
    (frames / key("DIS") / "00002.jpg").write_bytes(b"")
    shutil.rmtree(frames / key("FEA"))
    (frames / key("FEA")).symlink_to(frames / key("FEA"))       # a folder that cannot be read
    (sound / f"{key('HAP')}.wav").unlink()
    shutil.rmtree(frames / key("NEU"))
    layouts.write_wav(sound / f"{key('SAD')}.wav", channels=2, rate=8000)
    with open(source / "train.csv", "a", encoding="utf-8") as file:
        file.write(f"{key('ANG', 1002)},ANG\n{key('DIS', 1002)},SAD\n{key('FEA', 1004)},FEA\n"
                   "1009_DFA_ANG_XX,MAD\n1010_DFA_ANG_XX,ANG\n")
    return source


def test_defects_are_skipped_with_their_reason(damaged, tmp_path):
    summary = prepare("cremad", damaged, tmp_path, allow_broken=True, allow_skipped=0.3,
                      progress=False)
    assert {reason: (entry["count"], entry["first"])
            for reason, entry in summary["skipped"].items()} == {
        "broken audio": (1, ["1001_DFA_ANG_XX"]),
        "broken visual": (2, ["1001_DFA_DIS_XX", "1001_DFA_FEA_XX"]),
        "no audio: no such file": (2, ["1001_DFA_HAP_XX", "1010_DFA_ANG_XX"]),
        "no visual: no such folder": (1, ["1001_DFA_NEU_XX"]),
        "duplicate": (1, ["1002_DFA_ANG_XX"]),
        "duplicate with another label": (1, ["1002_DFA_DIS_XX"]),
        "duplicate in another split": (1, ["1004_DFA_FEA_XX"]),
        "unknown label": (1, ["1009_DFA_ANG_XX"])}
    assert summary["notes"] == {
        "audio: mixed down to mono": {"count": 1, "first": ["1001_DFA_SAD_XX"]}}
    assert (summary["used"], summary["left_out"]) == (19, 10)
    assert summary["splits"] == {
        "train": {"listed": 19, "used": 13, "classes": {
            "NEU": 2, "HAP": 2, "SAD": 3, "FEA": 2, "DIS": 2, "ANG": 2}},
        "test": {"listed": 6, "used": 6, "classes": dict.fromkeys(
            ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG"), 1)}}
    data = open_prepared(tmp_path / "cremad")
    assert data.modalities["audio"]["rate"] is None         # one clip has another
    train = data.splits["train"]
    # Skipped examples keep their numbers: those of actor 1001 are 0 to 5, only 5 is used.
    assert [r["id"] for r in train] == [5, *range(6, 18)]
    assert (train[0]["key"], train[0]["inputs"]["audio"].rate) == ("1001_DFA_SAD_XX", 8000)
    lines = (data.folder / "skipped.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 10
    path = damaged / "AudioWAV/1001_DFA_ANG_XX.wav"
    assert (f"train\t1001_DFA_ANG_XX\tbroken audio\t{path}: ValueError: cut short: 7900 of 8000 bytes "
            "of sound") in lines
    assert "train\t1002_DFA_DIS_XX\tduplicate with another label\tkept in train as DIS" in lines
    assert "train\t1004_DFA_FEA_XX\tduplicate in another split\tkept in test as FEA" in lines
    path = damaged / "AudioWAV/1001_DFA_HAP_XX.wav"
    assert f"train\t1001_DFA_HAP_XX\tno audio: no such file\t{path}" in lines
    said = run.describe(summary, data.folder)
    assert "19 examples used, 10 skipped" in said and "1 broken audio (1001_DFA_ANG_XX)" in said


def test_examples_may_lack_a_modality_if_so_wished(damaged, tmp_path):
    summary = prepare("cremad", damaged, tmp_path, allow_broken=True, allow_missing=True,
                      allow_skipped=0.2, progress=False)
    records = {r["key"]: r for r in open_prepared(tmp_path / "cremad").splits["train"]}
    silent, blind = records["1001_DFA_HAP_XX"], records["1001_DFA_NEU_XX"]
    assert silent["present"] == {"audio": False, "visual": True}
    assert len(silent["inputs"]["audio"].samples) == 0 and len(silent["inputs"]["visual"]) == 3
    assert blind["present"] == {"audio": True, "visual": False}
    assert blind["inputs"]["visual"] == [] and len(blind["inputs"]["audio"].samples) == 4000
    assert {m: info["present"] for m, info in summary["modalities"].items()} == {
        "audio": 20, "visual": 20}
    assert {what: entry["count"] for what, entry in summary["notes"].items() if "missing" in what} == {
        "audio: missing, no such file": 1, "visual: missing, no such folder": 1}
    # Nothing at all is still nothing.
    assert summary["skipped"]["no audio: no such file"]["first"] == ["1010_DFA_ANG_XX"]


def test_videos_without_sound_and_short_clips_are_skipped(layouts, tmp_path):
    layouts.kinetics400(tmp_path / "a", clips=1)
    layouts.write_video(tmp_path / "a/train/abseiling/mute.mp4", fps=4, sound=False)
    summary = prepare("kinetics400", tmp_path / "a", tmp_path, allow_skipped=0.2, progress=False)
    assert summary["skipped"] == {"no audio: video without sound": {
        "count": 1, "first": ["train/abseiling/mute"]}}

    content = layouts.vggsound(tmp_path / "b")
    first = next(iter(content))
    for number in (4, 5):
        (tmp_path / f"b/images/Image-01-FPS/{first}.mp4/{number:05d}.jpg").unlink()
    with pytest.raises(UserError, match="1 of 8 examples would be left out, .*--allow_skipped=0.13"):
        prepare("vggsound", tmp_path / "b", tmp_path, progress=False)
    summary = prepare("vggsound", tmp_path / "b", tmp_path, allow_skipped=0.13, progress=False)
    assert summary["skipped"] == {
        "visual of fewer than 4 frames": {"count": 1, "first": [first]}}


def test_text_in_another_encoding_is_read_and_counted(layouts, tmp_path):
    layouts.mvsa(tmp_path / "source", clips=5)
    (tmp_path / "source/data/1.txt").write_bytes("größer".encode("cp1252"))
    (tmp_path / "source/data/2.txt").write_bytes(b"\0\1\2")
    with open(tmp_path / "source/labelResult.txt", "a", encoding="utf-8") as file:
        file.write("90\tpositive,negative\n91\tjolly,neutral\n1\tpositive,neutral\n")
    summary = prepare("mvsa", tmp_path / "source", tmp_path, allow_skipped=0.1, progress=False)
    assert summary["notes"] == {
        "text: not UTF-8, read as Windows-1252": {"count": 1, "first": ["1"]}}
    assert {reason: entry["first"] for reason, entry in summary["skipped"].items()} == {
        "text and image have opposite labels": ["90"], "duplicate": ["1"], "broken text": ["2"],
        "unknown label": ["91"]}
    texts = {r["key"]: r["inputs"]["text"] for records in
             open_prepared(tmp_path / "mvsa").splits.values() for r in records}
    assert texts["1"] == "größer" and texts["3"] == "negative day no. 3 ☀"


def test_too_many_broken_files_stop_it_and_can_be_repaired(damaged, cremad, tmp_path):
    def attempt(**options):
        return prepare("cremad", damaged, tmp_path, progress=False, shard_size=4, allow_skipped=0.3,
                       **options)

    with pytest.raises(UserError) as error:
        attempt()
    assert str(error.value).startswith(
        "3 of 29 examples are broken, more than 5%: 2 broken visual, 1 broken audio; the first, "
        "1001_DFA_DIS_XX: broken visual")
    listed = tmp_path / "cremad/1.1.0.incomplete/skipped.txt"
    assert str(listed) in str(error.value) and len(listed.read_text().splitlines()) == 3
    with pytest.raises(UserError, match="expected a prepared data set, found none"):
        open_prepared(tmp_path / "cremad")
    shutil.copytree(cremad / "AudioWAV", damaged / "AudioWAV", dirs_exist_ok=True)
    (damaged / "Image-01-FPS/1001_DFA_FEA_XX").unlink()
    shutil.copytree(cremad / "Image-01-FPS", damaged / "Image-01-FPS", dirs_exist_ok=True)
    assert attempt()["used"] == 24
    assert not listed.parent.exists()


def test_what_was_done_before_a_stop_is_not_done_again(cremad, tmp_path, monkeypatch):
    straight = prepare("cremad", cremad, tmp_path / "straight", progress=False, shard_size=4)
    written = []

    def write(work, shard, stopped):
        report = shards.write_shard(work, shard, stopped)
        written.append(shard.file)
        return report

    monkeypatch.setattr(run, "write_shard", write)
    for _ in range(2):      # the second time it stops at once
        with pytest.raises(shards.Stopped):
            prepare("cremad", cremad, tmp_path / "again", progress=False, shard_size=4,
                    stopped=lambda: len(written) == 3)
    first, folder = list(written), tmp_path / "again/cremad/1.1.0.incomplete"
    times = [(folder / file).stat().st_mtime_ns for file in first]
    (folder / f"{first[0]}.part").write_bytes(b"left behind")
    # A shard that lost its end is made again; so is one whose report is damaged.
    os.truncate(folder / first[1], 100)
    (folder / "reports" / f"{first[2]}.json").write_text('{"size":')
    written.clear()
    again = prepare("cremad", cremad, tmp_path / "again", progress=False, shard_size=4)
    assert first[0] not in written and {first[1], first[2]} <= set(written)
    assert (tmp_path / "again/cremad/1.1.0" / first[0]).stat().st_mtime_ns == times[0]
    assert again | {"seconds": 0} == straight | {"seconds": 0}
    for file in straight["shards"]:
        assert ((tmp_path / "straight/cremad/1.1.0" / file).read_bytes()
                == (tmp_path / "again/cremad/1.1.0" / file).read_bytes())


SCRIPT = """
import sys
import time
from jaxmm.prepare import shards
from jaxmm.prepare.run import prepare
decode = shards.decode

def never_done(work, example):
    return time.sleep(600) if "_SAD_" in example.key else decode(work, example)

shards.decode = never_done      # in the workers too, which import this
if __name__ == "__main__":
    prepare("cremad", sys.argv[1], sys.argv[2], shard_size=1, workers=2, progress=False)
"""


def test_a_kill_leaves_no_process_and_no_half_shard(cremad, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    killed = subprocess.Popen([sys.executable, tmp_path / "script.py", cremad, tmp_path],
                              env=os.environ | {"PYTHONPATH": os.getcwd()}, start_new_session=True)
    reports = tmp_path / "cremad/1.1.0.incomplete/reports"
    deadline = time.monotonic() + 120
    while len(list(reports.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    while time.monotonic() < deadline:
        try:
            os.killpg(killed.pid, 0)        # the workers end by themselves
            time.sleep(0.02)
        except ProcessLookupError:
            break
    assert time.monotonic() < deadline
    done = {path.name.removesuffix(".json") for path in reports.glob("*.json")}
    assert done
    straight = prepare("cremad", cremad, tmp_path / "straight", progress=False, shard_size=1)
    again = prepare("cremad", cremad, tmp_path, progress=False, shard_size=1)
    assert again["shards"] == straight["shards"] and done <= set(again["shards"])


def test_a_finished_data_set_is_left_as_it_is(cremad, tmp_path):
    first = prepare("cremad", cremad, tmp_path, progress=False)
    assert prepare("cremad", cremad, tmp_path, progress=False) == first
    with pytest.raises(UserError, match="is there already, made from other files or with other"):
        prepare("cremad", cremad, tmp_path, Options(short_side=8), progress=False)


def test_another_plan_does_not_go_on_with_the_shards_of_this_one(cremad, tmp_path):
    small = Options(short_side=8)
    wanted = prepare("cremad", cremad, tmp_path / "straight", small, progress=False)

    folder = tmp_path / "cremad/1.1.0.incomplete"
    with pytest.raises(shards.Stopped):
        prepare("cremad", cremad, tmp_path, progress=False,
                stopped=lambda: any(folder.glob("reports/*-train.*")))
    assert prepare("cremad", cremad, tmp_path, small, progress=False)["shards"] == wanted["shards"]


def test_only_one_call_writes_a_data_set(cremad, tmp_path):
    with files.lock(tmp_path / "cremad/1.1.0.lock", ""):
        with pytest.raises(UserError, match=f"cremad is in use by process {os.getpid()}"):
            prepare("cremad", cremad, tmp_path, progress=False)


def test_what_the_user_can_mend_is_said(cremad, layouts, tmp_path):
    def refused(match, name="cremad", source=cremad, **options):
        with pytest.raises(UserError, match=match) as error:
            prepare(name, source, tmp_path / "out", Options(**options), progress=False)
        assert "\n" not in str(error.value)

    refused("--dataset='cremat'; did you mean cremad. Expected one of avmnist, cremad", name="cremat")
    refused("--variant='split9'; expected one of speakers", variant="split9")
    refused("no such folder", source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for name in ("cremad", "kinetics_sounds", "vggsound", "kinetics400", "ucf101", "food101",
                 "mvsa", "iemocap", "mosi", "nyuv2"):
        refused("expected|no example can be used", name=name, source=tmp_path / "empty")
    layouts.write_lines(tmp_path / "pickle/mosi_data.pkl", ["cos"])
    refused("is a pickle, which may run any program", name="mosi", source=tmp_path / "pickle")
    layouts.food101(tmp_path / "food", jsonl=True)
    layouts.write_lines(tmp_path / "food/test.jsonl", ['{"id": 1, "label": "soup"}'])
    refused("line 1 lacks one of id, label, text, img", name="food101", source=tmp_path / "food")
    shutil.copytree(cremad, tmp_path / "silent", ignore=shutil.ignore_patterns("*.wav"))
    refused("24 of 24 examples would be left out, .*; the first, 1001_DFA_ANG_XX: no audio: no such "
            "file .*/silent/AudioWAV/1001_DFA_ANG_XX.wav", source=tmp_path / "silent")


def test_a_full_disk_is_an_error_of_writing(cremad, tmp_path, monkeypatch):
    from array_record.python import array_record_module

    class Full:
        def __init__(self, *_):
            pass

        def write(self, _):
            raise RuntimeError("write() failed: No space left on device")

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Full)
    with pytest.raises(WriteError, match="No space left on device"):
        prepare("cremad", cremad, tmp_path, progress=False)


@pytest.mark.parametrize("name, maker, files", [
    ("cremad", "cremad", ["train.csv", "test.csv"]),
    ("food101", "food101", ["texts/train_titles.csv"]),
    ("iemocap", "iemocap", ["train.csv"]),
    ("iemocap", "iemocap_features", ["iemocap.npz"]),
    ("kinetics_sounds", "kinetics_sounds", ["train.txt"]),
    ("mvsa", "mvsa", ["labelResult.txt"]),
    ("ucf101", "ucf101", ["classInd.txt", "trainlist01.txt"]),
    ("vggsound", "vggsound", ["vggsound.csv"])])
def test_lists_of_any_bytes_end_in_one_line_or_in_skips(name, maker, files, layouts, tmp_path):
    getattr(layouts, maker)(tmp_path / "source")
    rng = np.random.default_rng(0)
    for file in files:
        path = tmp_path / "source" / file
        whole = path.read_bytes()
        for trial in range(8):
            size = int(rng.integers(1, 400))
            spoiled = np.frombuffer(whole, np.uint8).copy()
            spoiled[rng.integers(len(spoiled), size=3)] = rng.integers(1, 256, 3)
            path.write_bytes([rng.integers(1, 256, size).astype(np.uint8).tobytes(),
                              whole[:size % len(whole)], spoiled.tobytes()][trial % 3])
            try:
                summary = prepare(name, tmp_path / "source", tmp_path / f"{trial}",
                                  allow_broken=True, allow_skipped=1, progress=False)
                json.dumps(summary)
                assert len(open_prepared(tmp_path / f"{trial}" / name).splits) > 0
            except UserError as error:
                assert "\n" not in str(error)
            shutil.rmtree(tmp_path / f"{trial}", ignore_errors=True)
        path.write_bytes(whole)


def test_numbers_begun_anew_in_every_folder_are_other_examples(layouts, tmp_path):
    """Three classes and two splits, each with pictures 1 to 6."""
    source, rows = tmp_path / "food", {"train": [], "test": []}
    for split in rows:
        for c, label in enumerate(("cake", "pie", "soup")):
            for i in range(1, 7):
                layouts.write_image(source / f"images/{split}/{label}/{i}.jpg", (30 * c, 9 * i, 90))
                rows[split].append(f"{i}.jpg,{label} of {split},{label}")
        layouts.write_lines(source / f"texts/{split}_titles.csv", rows[split])
    summary = prepare("food101", source, tmp_path, progress=False)
    assert summary["used"] == 36 and summary["skipped"] == {}
    assert {split: part["classes"] for split, part in summary["splits"].items()} == dict.fromkeys(
        ("train", "test"), {"cake": 6, "pie": 6, "soup": 6})
    records = open_prepared(tmp_path / "food101").splits["train"]
    assert records[7]["key"] == "train/pie/2" and records[7]["label"] == 1
    # The same pictures stand in both splits, with other texts.
    assert summary["repeated"] == {}

    for video in ("train/dive/1.mp4", "train/jump/1.mp4", "test/dive/1.mp4", "test/jump/1.mp4"):
        layouts.write_video(tmp_path / "video" / video, seconds=0.5)
    summary = prepare("kinetics400", tmp_path / "video", tmp_path, progress=False)
    assert summary["used"] == 4
    assert summary["repeated"] == {"of the same content, in train and test": {
        "count": 3, "first": [f"{key} = train/dive/1" for key in
                              ("train/jump/1", "test/dive/1", "test/jump/1")]}}


def jsonl(folder, layouts, **splits):
    """A data set of pictures with text; of every row the label, text and number of the picture."""
    for split, rows in splits.items():
        layouts.write_lines(folder / f"{split}.jsonl", [json.dumps(
            {"id": i // 2, "label": label, "text": text, "img": f"{image}.jpg"})
            for i, (label, text, image) in enumerate(rows)])
        for _, _, image in rows:
            layouts.write_image(folder / f"{image}.jpg")
    return folder


def test_what_is_listed_twice_is_what_has_the_same_files(layouts, tmp_path):
    rows = [("a", "one", 1), ("b", "one", 1), ("a", "two", 1), ("b", "three", 2), ("a", "one", 1)]
    source = jsonl(tmp_path / "source", layouts, train=rows, test=[("a", "two", 1), ("b", "x", 3)])
    with pytest.raises(UserError, match=r"3 of 7 examples would be left out, more than 5%: 1 duplicate "
                       "with another label, 1 duplicate in another split, 1 duplicate; the first, 0: "
                       r".*kept in train as a.*--allow_skipped=0\.43"):
        prepare("food101", source, tmp_path, progress=False)
    assert not (tmp_path / "food101").exists()
    summary = prepare("food101", source, tmp_path, allow_skipped=0.43, progress=False)
    splits = open_prepared(tmp_path / "food101").splits
    # Ids are given twice: of what is left in train, 0 and 1.
    assert [r["inputs"]["text"] for r in splits["train"]] == ["one", "three"]
    assert [(r["key"], r["inputs"]["text"]) for r in splits["test"]] == [("0", "two"), ("0#2", "x")]
    assert summary["notes"]["key of another example, numbered"]["first"] == ["0#2"]


def test_nothing_or_one_class_to_train_on_is_an_error(layouts, tmp_path):
    for train, test, message in [
            ([("a", "x", 1), ("a", "y", 2)], [("b", "z", 3)], "all examples of train are of the class 'a'"),
            ([("a", "x", 1), ("b", "y", 2)], [("a", "x", 1), ("b", "y", 2)], "no example of train can be "
             "used: 2 duplicate in another split; the first, 0:"),
            ([("a", "x", 1), ("b", "y", 2)], [(None, "x", 3)], "no example of test can be used: 1 no label")]:
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        source = jsonl(tmp_path / "source", layouts, train=train, test=test)
        with pytest.raises(UserError, match=message):
            prepare("food101", source, tmp_path, allow_skipped=1, progress=False)


@pytest.mark.parametrize("labels, classes, noted", [
    (["a", "b"], ["a", "b"], []), ([["a"], "b"], ["a", "b"], []), ([2, 10], ["2", "10"], []),
    ([10, 9.0, "9"], ["9", "10"], ["label '9.0' taken as '9'"]),
    (["Red Fish", "red_fish", "red_fish", "red_fish", "ray"], ["ray", "red_fish"],
     ["label 'Red Fish' taken as 'red_fish'"]),
    ([True, False], ["false", "true"], []), ([1, -1], ["-1", "1"], [])])
def test_labels_are_taken_as_meant(labels, classes, noted, layouts, tmp_path):
    rows = [(label, f"text {i}", i) for i, label in enumerate(labels)]
    source = jsonl(tmp_path / "source", layouts, train=rows, test=rows[:1])
    (source / "test.jsonl").write_text((source / "test.jsonl").read_text().replace("text 0", "other"))
    summary = prepare("food101", source, tmp_path, progress=False)
    assert summary["class_names"] == classes and summary["left_out"] == 0
    assert [note for note in summary["notes"] if note.startswith("label ")] == noted


def test_labels_that_are_no_class(layouts, tmp_path):
    rows = [("a", "x", 1), ("b", "y", 2), (None, "z", 3), ("", "z", 4), ([], "z", 5), ("NaN", "z", 6)]
    source = jsonl(tmp_path / "source", layouts, train=rows, test=[("c", "q", 7)])
    with pytest.raises(UserError, match="4 of 7 examples would be left out, more than 5%: 4 no label"):
        prepare("food101", source, tmp_path, progress=False)
    summary = prepare("food101", source, tmp_path, allow_skipped=0.6, progress=False)
    assert summary["class_names"] == ["a", "b", "c"]
    assert "1 classes without training examples: c" in run.describe(summary, tmp_path)
    for label in (["a", "b"], {"a": 1}):
        jsonl(source, layouts, test=[(label, "q", 7)])
        with pytest.raises(UserError, match="test.jsonl: example 1: the label is .*; expected one class"):
            prepare("food101", source, tmp_path / "other", progress=False)
    source = jsonl(tmp_path / "numbers", layouts, train=[(0, "x", 1), (2, "y", 2)], test=[(-1, "q", 7)])
    with pytest.raises(UserError, match="1 of 3 examples would be left out, .*unknown label .'-1'."):
        prepare("food101", source, tmp_path / "other", progress=False)


def test_what_a_row_lacks_is_not_listed(layouts, tmp_path):
    rows = [("a", "x", 1), ("b", None, 2), ("a", "z", 3)]
    source = jsonl(tmp_path / "source", layouts, train=rows, test=[("a", "q", 4)])
    text = (source / "train.jsonl").read_text().replace('"3.jpg"', "null")
    (source / "train.jsonl").write_text(text)
    with pytest.raises(UserError, match="2 of 4 .* 1 no text: not listed, 1 no visual: not listed"):
        prepare("food101", source, tmp_path, progress=False)
    summary = prepare("food101", source, tmp_path, allow_missing=True, progress=False)
    assert [r["present"] for r in open_prepared(tmp_path / "food101").splits["train"]] == [
        {"text": True, "visual": True}, {"text": False, "visual": True}, {"text": True, "visual": False}]
    assert summary["notes"]["text: missing, not listed"]["count"] == 1


BAD_SENTIMENT = [([0, 1, 2, 1], "labels from 0 to 2; expected sentiment"),
                 ([-30, 20, 10, 5], "labels from -30 to 20; expected"),
                 ([[1, 0], [0, 1]], "4 unknown label; .*'.1 0.'")]


@pytest.mark.parametrize("labels, outcome", [
    ([-1.4, 2.2, 0.0, 3.0], [-1.4, 2.2, 0.0, 3.0]), ([[-2] + 6 * [0], [1] + 6 * [2]], [-2, 1]),
    ([np.nan, 1, -1], "2 of 6 examples would be left out.* 2 no label"),
    (["positive", "negative"], "4 unknown label; .*'positive'"),
    ([0, 1, 1, 0], "all labels are 0 or 1.*--variant=binary takes them"), *BAD_SENTIMENT])
def test_sentiment_is_a_number(labels, outcome, tmp_path):
    arrays = {}
    for split in ("train", "test"):
        arrays |= {f"{split}/labels": np.array(labels), f"{split}/text": np.ones((len(labels), 1), "f4")}
        arrays[f"{split}/text"][:, 0] = np.arange(len(labels))
    (tmp_path / "source").mkdir()
    np.savez(tmp_path / "source/a.npz", **arrays)
    if isinstance(outcome, str):
        with pytest.raises(UserError, match=outcome):
            prepare("mosi", tmp_path / "source", tmp_path, progress=False)
        return
    prepare("mosi", tmp_path / "source", tmp_path, progress=False)
    found = data.load(DataConfig(name="mosi", path=str(tmp_path / "mosi"), val_fraction=0.5))
    assert found.class_names == ("sentiment",)
    np.testing.assert_array_equal(found.splits["test"]["label"], np.float32(outcome)[:, None])


@pytest.mark.parametrize("labels, outcome", [
    ([0, 1, 1, 0], [0, 1, 1, 0]), ([-1.4, 2.2, 0.0, 3.0], [0, 1, None, 1]), ([-1, 1, 1, -1], [0, 1, 1, 0]),
    ([[-2] + 6 * [0], [1] + 6 * [2]], [0, 1]), (["positive", "negative"], [1, 0]), *BAD_SENTIMENT])
def test_sentiment_is_a_sign_or_a_class(labels, outcome, tmp_path):
    arrays, rows = {}, np.arange(len(labels))
    for split in ("train", "test"):
        arrays |= {f"{split}/labels": np.array(labels), f"{split}/text": rows[:, None].astype(np.float32)}
    (tmp_path / "source").mkdir()
    np.savez(tmp_path / "source/a.npz", **arrays)
    if isinstance(outcome, str):
        with pytest.raises(UserError, match=outcome):
            prepare("mosi", tmp_path / "source", tmp_path, Options(variant="binary"), progress=False)
        return
    summary = prepare("mosi", tmp_path / "source", tmp_path, Options(variant="binary"), progress=False)
    records = open_prepared(tmp_path / "mosi_binary").splits["train"]
    assert [(r["inputs"]["text"][0], r["label"]) for r in records] == [
        (i, label) for i, label in enumerate(outcome) if label is not None]
    binary = "label 0 or 1, taken as negative or positive"
    assert summary["notes"].get(binary, {"count": 0})["count"] == (8 if labels[0] == 0 else 0)


def test_votes_of_annotators(layouts, tmp_path):
    content = layouts.mvsa(tmp_path / "source", clips=5)
    votes = {"1": "positive,neutral\tpositive,positive\tnegative,neutral",       # two of three, neutral
             "2": "positive,neutral\tnegative,neutral\tneutral,neutral",         # of the text: none
             "3": "Negative, neutral\tnegative,negative\tpositive,negative"}
    lines = (tmp_path / "source/labelResult.txt").read_text().splitlines()
    lines = [f"{line.split()[0]}\t{votes[line.split()[0]]}" if line.split()[0] in votes else line
             for line in lines]
    layouts.write_lines(tmp_path / "source/labelResult.txt", lines)
    summary = prepare("mvsa", tmp_path / "source", tmp_path, progress=False)
    assert {reason: entry["first"] for reason, entry in summary["skipped"].items()} == {
        "the annotators do not agree": ["2"]}
    labels = {r["key"]: r["label"] for records in open_prepared(tmp_path / "mvsa").splits.values()
              for r in records}
    assert (labels["1"], labels["3"]) == (0, 2) and len(labels) == len(content) - 1


def test_files_that_no_list_names_are_counted(cremad, layouts, tmp_path):
    source = shutil.copytree(cremad, tmp_path / "source")
    for name in ("1009_DFA_ANG_XX.wav", "1009_DFA_SAD_XX.WAV", "notes.txt"):
        layouts.write_wav(source / "AudioWAV" / "a.wav")
        shutil.move(source / "AudioWAV/a.wav", source / "AudioWAV" / name)
    summary = prepare("cremad", source, tmp_path, progress=False)
    assert summary["unlisted"] == {"count": 2, "first": [
        str(source / "AudioWAV" / name) for name in ("1009_DFA_ANG_XX.wav", "1009_DFA_SAD_XX.WAV")]}
    assert f"not listed: 2 files ({source}/AudioWAV/1009" in run.describe(summary, tmp_path)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"3", b"{\"fingerprint\": []}", b"\xff"])
def test_plans_and_summaries_of_any_kind_are_no_reason_to_trust_them(content, cremad, tmp_path):
    folder = tmp_path / "cremad/1.1.0"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_bytes(content)
    with pytest.raises(UserError, match="is there already, made from other files"):
        prepare("cremad", cremad, tmp_path, progress=False)
    folder.rename(folder.with_name("1.1.0.incomplete"))
    (folder.with_name("1.1.0.incomplete") / "plan.json").write_bytes(content)
    assert prepare("cremad", cremad, tmp_path, progress=False)["used"] == 24


@pytest.mark.parametrize("names, used", [
    ({"train": "train_list.csv", "test": "testing.csv"}, "train_list.csv testing.csv"),
    ({"train": "trainlist01.txt", "val": "Validation.TXT", "test": "test-split.txt"},
     "trainlist01.txt Validation.TXT test-split.txt"),
    ({"train": "train.csv", "test": "test.csv", "ignored": "train.txt val_old_labels.csv"},
     "train.csv test.csv")])
def test_lists_with_other_usual_names(names, used, cremad, tmp_path):
    source = shutil.copytree(cremad, tmp_path / "source")
    lines = {split: (source / f"{split}.csv").read_text(encoding="utf-8-sig").splitlines()
             for split in ("train", "test")}
    for split in lines:
        (source / f"{split}.csv").unlink()
    lines["val"] = lines["train"][:6] if "val" in names else []
    lines["train"] = lines["train"][len(lines["val"]):]
    for name in names.pop("ignored", "").split():
        (source / name).write_text("nothing")
    ignored = {path.name for path in source.glob("*.*")}
    for split, name in names.items():
        (source / name).write_text("LABEL,ID\n" + "".join(
            f"{label},{key}\n" for key, label in (line.split(",") for line in lines[split])))
    summary = prepare("cremad", source, tmp_path, progress=False)
    assert {split: part["used"] for split, part in summary["splits"].items()} == {
        split: len(lines[split]) for split in ("train", "val", "test") if lines[split]}
    assert set(summary["ignored_lists"]) == ignored
    said = run.describe(summary, tmp_path)
    assert f"not read: {', '.join(sorted(ignored))}" in said if ignored else "not read" not in said


def test_files_that_arrive_or_change_later_are_read_and_no_others(cremad, layouts, tmp_path, monkeypatch):
    source, options = shutil.copytree(cremad, tmp_path / "source"), {"progress": False, "shard_size": 6}
    kept, sound = tmp_path / "kept.wav", source / "AudioWAV/1002_DFA_HAP_XX.wav"
    shutil.move(sound, kept)
    first = prepare("cremad", source, tmp_path, **options)
    folder = tmp_path / "cremad/1.1.0"
    assert first["left_out"] == 1 and prepare("cremad", source, tmp_path, **options) == first
    shutil.move(kept, sound)
    frame = source / "Image-01-FPS/1003_DFA_SAD_XX/00002.jpg"
    layouts.write_image(frame, (1, 2, 3))           # of the same name, in place
    written = []
    monkeypatch.setattr(run, "write_shard", lambda work, shard, stopped: (
        written.append(shard.file), shards.write_shard(work, shard, stopped))[1])
    second = prepare("cremad", source, tmp_path, **options)
    assert written == [f"cremad-train.array_record-0000{i}-of-00003" for i in (1, 2)]
    assert second["left_out"] == 0 and (folder / "skipped.txt").read_text() == ""
    train = open_prepared(tmp_path / "cremad").splits["train"]
    assert len(train) == 18 and train[17]["inputs"]["visual"][1] == frame.read_bytes()
    straight = prepare("cremad", source, tmp_path / "straight", **options)
    assert straight["shards"] == second["shards"]
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["1.1.0"]
    # Also where the first call was stopped.
    with pytest.raises(shards.Stopped):
        prepare("cremad", source, tmp_path / "again", stopped=lambda: len(written) == 8, **options)
    (source / "AudioWAV/1001_DFA_ANG_XX.wav").unlink()
    assert prepare("cremad", source, tmp_path / "again", **options)["left_out"] == 1


def test_a_source_that_is_gone_leaves_the_finished_data_set(cremad, tmp_path):
    source = shutil.copytree(cremad, tmp_path / "source")
    first = prepare("cremad", source, tmp_path, progress=False)
    shutil.rmtree(source / "AudioWAV")
    (source / "AudioWAV").mkdir()
    with pytest.raises(UserError, match="24 of 24 examples would be left out"):
        prepare("cremad", source, tmp_path, progress=False)
    assert open_prepared(tmp_path / "cremad").summary == first
