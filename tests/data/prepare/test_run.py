import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxmm import files
from jaxmm.data.prepare import run, shards
from jaxmm.data.prepare.decode import Options
from jaxmm.data.prepare.run import prepare
from jaxmm.data.prepared import open_prepared
from jaxmm.errors import UserError, WriteError


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
    summary = prepare("cremad", damaged, tmp_path, allow_broken=True, progress=False)
    assert {reason: (entry["count"], entry["first"])
            for reason, entry in summary["skipped"].items()} == {
        "broken audio": (1, ["1001_DFA_ANG_XX"]),
        "broken visual": (2, ["1001_DFA_DIS_XX", "1001_DFA_FEA_XX"]),
        "no audio: no such file": (2, ["1001_DFA_HAP_XX", "1010_DFA_ANG_XX"]),
        "no visual: no such folder": (1, ["1001_DFA_NEU_XX"]),
        "duplicate": (3, ["1002_DFA_ANG_XX", "1002_DFA_DIS_XX", "1004_DFA_FEA_XX"]),
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
    assert "train\t1001_DFA_ANG_XX\tbroken audio\tValueError: cut short: 7900 of 8000 bytes of " \
        "sound" in lines
    assert "train\t1002_DFA_DIS_XX\tduplicate\tkept in train as DIS" in lines
    assert "train\t1004_DFA_FEA_XX\tduplicate\tkept in test as FEA" in lines
    said = run.describe(summary, data.folder)
    assert "19 examples used, 10 skipped" in said and "1 broken audio (1001_DFA_ANG_XX)" in said


def test_examples_may_lack_a_modality_if_so_wished(damaged, tmp_path):
    summary = prepare("cremad", damaged, tmp_path, allow_broken=True, allow_missing=True,
                      progress=False)
    records = {r["key"]: r for r in open_prepared(tmp_path / "cremad").splits["train"]}
    silent, blind = records["1001_DFA_HAP_XX"], records["1001_DFA_NEU_XX"]
    assert silent["present"] == {"audio": False, "visual": True}
    assert len(silent["inputs"]["audio"].samples) == 0 and len(silent["inputs"]["visual"]) == 3
    assert blind["present"] == {"audio": True, "visual": False}
    assert blind["inputs"]["visual"] == [] and len(blind["inputs"]["audio"].samples) == 4000
    assert {m: info["present"] for m, info in summary["modalities"].items()} == {
        "audio": 20, "visual": 20}
    # Nothing at all is still nothing.
    assert summary["skipped"]["no audio: no such file"]["first"] == ["1010_DFA_ANG_XX"]


def test_videos_without_sound_and_short_clips_are_skipped(layouts, tmp_path):
    layouts.kinetics400(tmp_path / "a", clips=1)
    layouts.write_video(tmp_path / "a/train/abseiling/mute.mp4", fps=4, sound=False)
    summary = prepare("kinetics400", tmp_path / "a", tmp_path, progress=False)
    assert summary["skipped"] == {"no audio: video without sound": {"count": 1, "first": ["mute"]}}

    content = layouts.vggsound(tmp_path / "b")
    first = next(iter(content))
    for number in (4, 5):
        (tmp_path / f"b/images/Image-01-FPS/{first}.mp4/{number:05d}.jpg").unlink()
    summary = prepare("vggsound", tmp_path / "b", tmp_path, progress=False)
    assert summary["skipped"] == {
        "visual of fewer than 4 frames": {"count": 1, "first": [first]}}


def test_text_in_another_encoding_is_read_and_counted(layouts, tmp_path):
    layouts.mvsa(tmp_path / "source", clips=5)
    (tmp_path / "source/data/1.txt").write_bytes("größer".encode("cp1252"))
    (tmp_path / "source/data/2.txt").write_bytes(b"\0\1\2")
    with open(tmp_path / "source/labelResult.txt", "a", encoding="utf-8") as file:
        file.write("90\tpositive,negative\n91\tjolly,neutral\n1\tpositive,neutral\n")
    summary = prepare("mvsa", tmp_path / "source", tmp_path, progress=False)
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
        return prepare("cremad", damaged, tmp_path, progress=False, shard_size=4, **options)

    with pytest.raises(UserError) as error:
        attempt()
    assert str(error.value).startswith(
        "3 of 25 examples are broken, more than 5%; the first, 1001_DFA_ANG_XX: broken audio")
    listed = tmp_path / "cremad/1.0.0.incomplete/skipped.txt"
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
    first, folder = list(written), tmp_path / "again/cremad/1.0.0.incomplete"
    times = [(folder / file).stat().st_mtime_ns for file in first]
    (folder / f"{first[0]}.part").write_bytes(b"left behind")
    # A shard that lost its end is made again; so is one whose report is damaged.
    os.truncate(folder / first[1], 100)
    (folder / "reports" / f"{first[2]}.json").write_text('{"size":')
    written.clear()
    again = prepare("cremad", cremad, tmp_path / "again", progress=False, shard_size=4)
    assert first[0] not in written and {first[1], first[2]} <= set(written)
    assert (tmp_path / "again/cremad/1.0.0" / first[0]).stat().st_mtime_ns == times[0]
    assert again | {"seconds": 0} == straight | {"seconds": 0}
    for file in straight["shards"]:
        assert ((tmp_path / "straight/cremad/1.0.0" / file).read_bytes()
                == (tmp_path / "again/cremad/1.0.0" / file).read_bytes())


SCRIPT = """
import sys
from jaxmm.data.prepare.run import prepare
if __name__ == "__main__":
    prepare("cremad", sys.argv[1], sys.argv[2], shard_size=1, workers=2, progress=False)
"""


def test_a_kill_leaves_no_process_and_no_half_shard(cremad, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    killed = subprocess.Popen([sys.executable, tmp_path / "script.py", cremad, tmp_path],
                              env=os.environ | {"PYTHONPATH": os.getcwd()}, start_new_session=True)
    reports = tmp_path / "cremad/1.0.0.incomplete/reports"
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

    folder = tmp_path / "cremad/1.0.0.incomplete"
    with pytest.raises(shards.Stopped):
        prepare("cremad", cremad, tmp_path, progress=False,
                stopped=lambda: any(folder.glob("reports/*-train.*")))
    assert prepare("cremad", cremad, tmp_path, small, progress=False)["shards"] == wanted["shards"]


def test_only_one_call_writes_a_data_set(cremad, tmp_path):
    with files.lock(tmp_path / "cremad/1.0.0.lock", ""):
        with pytest.raises(UserError, match=f"cremad is in use by process {os.getpid()}"):
            prepare("cremad", cremad, tmp_path, progress=False)


def test_what_the_user_can_mend_is_said(cremad, layouts, tmp_path):
    def refused(match, name="cremad", source=cremad, **options):
        with pytest.raises(UserError, match=match) as error:
            prepare(name, source, tmp_path / "out", Options(**options), progress=False)
        assert "\n" not in str(error.value)

    refused("--dataset='cremat'; expected one of avmnist, cremad", name="cremat")
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
    refused("no example can be used; the first, 1001_DFA_ANG_XX: no audio: no such file",
            source=tmp_path / "silent")


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
                                  allow_broken=True, progress=False)
                json.dumps(summary)
                assert len(open_prepared(tmp_path / f"{trial}" / name).splits) > 0
            except UserError as error:
                assert "\n" not in str(error)
            shutil.rmtree(tmp_path / f"{trial}", ignore_errors=True)
        path.write_bytes(whole)
