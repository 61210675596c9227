import dataclasses
import json

import librosa
import numpy as np
import pytest
import soundfile

from jaxmm import data
from jaxmm.config import DataConfig, FramesConfig, PreprocessConfig, SpectrogramConfig
from jaxmm.data.prepared import open_prepared
from jaxmm.data.transform import make_transform
from jaxmm.errors import UserError
from jaxmm.prepare.run import prepare

SOUND = SpectrogramConfig(rate=16000, seconds=0.5, n_fft=64, hop=32, mean=(1.0,), std=(2.0,))
SECTIONS = {"audio": SOUND, "visual": FramesConfig(height=16, width=24, size=8)}


@pytest.fixture(name="source", scope="module")
def make_source(layouts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cremad")
    layouts.cremad(folder, actors=3)        # two training clips of each class, to share with val
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMM_CACHE", str(tmp_path / "cache"))


def load(folder, **sections):
    return data.load(DataConfig(name="prepared", path=str(folder), preprocess=SECTIONS | sections))


def test_stored_spectrograms_are_those_of_librosa_and_of_the_step(source, tmp_path):
    summary = prepare("cremad", source, tmp_path / "stored", sections=SECTIONS, progress=False)
    record = open_prepared(tmp_path / "stored/cremad").splits["train"][0]
    wave, _ = soundfile.read(source / f"AudioWAV/{record['key']}.wav", dtype="float32")
    wave = np.tile(wave, 2)
    wanted = np.abs(librosa.stft(wave, n_fft=64, hop_length=32))
    assert summary["modalities"]["audio"]["shape"] == list(wanted.shape) == [33, 251]
    np.testing.assert_allclose(np.exp(record["inputs"]["audio"]) - 1e-7, wanted, atol=1e-5)

    prepare("cremad", source, tmp_path / "sound", progress=False)
    transform = make_transform({"audio": (1.0, 2.0)}, sections=SECTIONS)
    batches = []
    for name in ("stored", "sound"):
        test = load(tmp_path / name / "cremad").splits["test"]
        rows = {"audio": np.asarray(test["inputs"]["audio"][np.arange(6)])}
        batches.append(transform(None, test | {"inputs": rows})["inputs"]["audio"])
    np.testing.assert_allclose(batches[0], batches[1], atol=1e-5)
    # A config that says nothing of the sound takes what is stored.
    sections = {"visual": SECTIONS["visual"]}
    bare = data.load(DataConfig(name="prepared", path=str(tmp_path / "stored/cremad"),
                                preprocess=sections)).splits["test"]["inputs"]["audio"]
    np.testing.assert_array_equal(np.asarray(bare[np.arange(1)])[0, 0, 0] / 2 - 0.5,
                                  batches[0][0, 0, 0])


def test_a_config_that_asks_for_other_spectrograms_is_refused(source, tmp_path):
    prepare("cremad", source, tmp_path, sections=SECTIONS, progress=False)
    for option, said in (({"n_fft": 128}, "n_fft was 64, is 128"),
                         ({"kaldi": True}, "kaldi was False, is True")):
        with pytest.raises(UserError, match=f"holds spectrograms made otherwise: {said}"):
            load(tmp_path / "cremad", audio=dataclasses.replace(SOUND, **option))
    path, = (tmp_path / "cremad").glob("*/summary.json")    # of before there was such an option
    summary = json.loads(path.read_text())
    del summary["modalities"]["audio"]["spectrogram"]["kaldi"]
    path.write_text(json.dumps(summary))
    load(tmp_path / "cremad")
    with pytest.raises(UserError, match="kaldi was False, is True"):
        load(tmp_path / "cremad", audio=dataclasses.replace(SOUND, kaldi=True))


def test_only_what_is_no_crop_can_be_stored(source, tmp_path):
    for sections, message in [
            ({"audio": SpectrogramConfig(seconds=1.0, crop_seconds=0.5)}, "draws crops at random"),
            ({"visual": FramesConfig()}, "the config computes no spectrogram of audio"),
            ({"audio": PreprocessConfig()}, "the config computes no spectrogram of audio")]:
        with pytest.raises(UserError, match=message):
            prepare("cremad", source, tmp_path, sections=sections, progress=False)
