import json
import shutil
import subprocess
import sys

import pytest


CONFIG = """
from jaxmm.config import Config, DataConfig, SpectrogramConfig

def get_config(method=""):
    sound = SpectrogramConfig(rate=8000, seconds=0.5, n_fft=64, hop=32)
    return Config(data=DataConfig(preprocess={"audio": sound}))
"""


@pytest.fixture(name="source")
def make_source(layouts, tmp_path):
    layouts.cremad(tmp_path / "source")
    return tmp_path / "source"


def test_a_folder_becomes_a_data_set_or_one_line_says_why_not(source, tmp_path, launch):
    (source / "Image-01-FPS/1001_DFA_ANG_XX/00001.jpg").write_bytes(b"")
    shutil.copytree(source, tmp_path / "worse")
    (tmp_path / "worse/AudioWAV/1002_DFA_ANG_XX.wav").write_bytes(b"RIFF")

    (tmp_path / "sound.py").write_text(CONFIG)

    def arguments(**options):
        return [f"--{name}={value}" for name, value in (
            {"dataset": "cremad", "source": source, "output": tmp_path / "out", "workers": 1,
             "progress": False} | options).items()]

    worse = {"source": tmp_path / "worse", "output": tmp_path / "other"}
    cases = [arguments(), arguments(), arguments(audio_rate=8000), arguments(**worse),
             arguments(**worse, allow_broken=True, spectrograms_of=tmp_path / "sound.py"),
             arguments(dataset="cremat"), arguments(dataset=""), arguments(fps=-1),
             ["--dataset=ucf101", "--describe_layout"],
             arguments(spectrograms_of=tmp_path / "none.py")]
    results = launch("launch.prepare", cases)
    assert [code for code, _, _ in results] == [0, 0, 2, 2, 0, 2, 2, 2, 0, 2]
    folder = tmp_path / "out/cremad/1.1.0"
    said = results[0][1]
    assert said.startswith(f"{folder}: 23 examples used, 1 skipped, ")
    assert "train: 17 of 18, 2 to 3 in a class" in said
    assert "skipped: 1 broken visual (1001_DFA_ANG_XX)" in said
    assert results[1][1] == said        # nothing to do, the same summary
    for (_, out, error), part in zip((results[i] for i in (2, 3, 5, 6, 7)), [
            "is there already, made from other files or with other options",
            "2 of 24 examples are broken, more than 5%: 1 broken visual, 1 broken audio; the first, 1001_DFA_ANG_XX: broken visual",
            "--dataset='cremat'; did you mean cremad? Expected one of avmnist, cremad,", "--dataset is empty",
            "--fps=-1.0; expected a number of at least 0"]):
        assert out == "" and part in error and error.count("\n") == 1
    assert results[8][1].startswith("UCF101: 101 actions") and "trainlist0K.txt" in results[8][1]
    assert "none.py: no such config file; expected one like" in results[9][2]
    summary = json.loads((tmp_path / "other/cremad/1.1.0/summary.json").read_text())
    assert summary["modalities"]["audio"]["shape"] == [33, 126] and summary["used"] == 22


INTERRUPTED = """
import signal
from jaxmm.commands import app, prepare
from jaxmm.prepare import shards
decode = shards.decode

def interrupted(work, example):
    if example.key == "1002_DFA_ANG_XX":
        signal.raise_signal(signal.SIGINT)
    return decode(work, example)

shards.decode = interrupted
app.run(prepare)
"""


def test_an_interrupt_ends_in_one_line(layouts, tmp_path):
    layouts.cremad(tmp_path / "source")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, "--dataset=cremad", "--noprogress",
                           f"--source={tmp_path / 'source'}", f"--output={tmp_path}", "--workers=1"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (
        75, "", "stopped; the same command resumes with what is left\n")
    assert (tmp_path / "cremad/1.1.0.incomplete/plan.json").exists()
