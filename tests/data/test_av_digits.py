import pathlib
import sys

import librosa
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from jaxmm import data
from jaxmm.config import DataConfig
from jaxmm.data import av_digits, spectrogram
from jaxmm.data.dataset import check_dataset, fingerprint
from jaxmm.errors import UserError

FILE = pathlib.Path(av_digits.__file__).with_name("av_digits.npz")
FINGERPRINT = {"train": "9ab477f9", "val": "d343207e", "test": "2b366073"}     # without sound
OPTIONS = {"sample_rate": 8000, "n_fft": 64, "hop_length": 32, "n_mels": 5}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def dataset(cache):
    return av_digits.load(DataConfig(seed=0))


@pytest.fixture(scope="module")
def clips():
    return av_digits.read()[1]


@pytest.fixture(scope="module")
def pairs(clips):
    return av_digits.draw_pairs(load_digits().target, clips, np.random.default_rng(0))


@pytest.fixture
def audio():
    return np.random.default_rng(0).normal(size=(3, 200)).astype(np.float32)


def test_images_are_those_of_scikit_learn():
    known, (digits, _) = load_digits(), av_digits.read()
    np.testing.assert_array_equal(digits.images, known.images)
    np.testing.assert_array_equal(digits.digit, known.target)


def test_data_are_the_very_ones_that_runs_and_tables_were_made_with(dataset):
    """Without spectrograms, which may round otherwise on another processor."""
    assert fingerprint(dataset._replace(splits={s: b | {"inputs": {"visual": b["inputs"]["visual"]}}
                                                for s, b in dataset.splits.items()})) == FINGERPRINT


def test_file_is_small_and_holds_every_digit_of_many_voices_once():
    assert FILE.stat().st_size <= 3_000_000
    with np.load(FILE, allow_pickle=False) as file:
        arrays = dict(file)
    voices = arrays["voices"]
    assert len(voices) >= 40 and len({v.partition("+")[0] for v in voices}) == 8
    assert len({v.partition("+")[2] for v in voices}) == len(voices)        # speakers
    spoken = sorted(zip(arrays["voice"].tolist(), arrays["digit"].tolist()))
    assert spoken == [(v, d) for v in range(len(voices)) for d in range(10)]
    lengths = np.diff(arrays["offsets"])
    assert lengths.min() > 0 and arrays["offsets"][-1] == len(arrays["samples"])
    assert lengths.max() <= av_digits.WINDOW
    assert arrays["samples"].dtype == np.int16


def test_clips_differ_and_have_the_same_peak(clips):
    assert len({c.tobytes() for c in clips.samples}) == len(clips.samples) == len(clips.digit)
    np.testing.assert_array_equal([np.abs(c).max() for c in clips.samples], 1)


def test_splits_have_their_sizes_and_share_neither_images_nor_voices(clips, pairs):
    images = np.concatenate([p.image for p in pairs.values()])
    np.testing.assert_array_equal(np.sort(images), np.arange(1797))         # each once
    voices = {s: set(clips.voice[p.clip]) for s, p in pairs.items()}
    assert {s: len(p.image) for s, p in pairs.items()} == {"train": 1200, "val": 297, "test": 300}
    assert {s: len(v) for s, v in voices.items()} == av_digits.VOICES
    assert sum(map(len, voices.values())) == len(set.union(*voices.values())) == 79


def test_images_and_clips_of_a_pair_are_of_one_digit_in_equal_shares(clips, pairs):
    digit = load_digits().target
    for p in pairs.values():
        np.testing.assert_array_equal(digit[p.image], clips.digit[p.clip])
        expected = np.bincount(digit) * len(p.image) / 1797
        assert np.abs(np.bincount(digit[p.image]) - expected).max() <= 1


def test_accents_have_equal_shares_of_the_voices(clips, pairs):
    expected = {a: (clips.accents == a).mean() for a in clips.accents}
    for p in pairs.values():
        accents = clips.accents[np.unique(clips.voice[p.clip])]
        for accent, share in expected.items():
            assert abs((accents == accent).sum() - share * len(accents)) <= 1


def test_examples_are_the_pairs_drawn_if_there_is_no_noise(clips, pairs, monkeypatch):
    monkeypatch.setattr(av_digits, "AUDIO_SNR_DB", np.inf)
    monkeypatch.setattr(av_digits, "VISUAL_NOISE", 0.0)
    monkeypatch.setattr(av_digits, "cached_log_mel", lambda audio, **_: audio)
    digits = load_digits()
    starts = set()
    for split, batch in av_digits.load(DataConfig(seed=0)).splits.items():
        np.testing.assert_array_equal(batch["label"], digits.target[pairs[split].image])
        np.testing.assert_array_equal(batch["inputs"]["visual"],
                                      np.round(digits.images[pairs[split].image] * 255 / 16))
        for row, clip in zip(batch["inputs"]["audio"], pairs[split].clip):
            np.testing.assert_array_equal(np.trim_zeros(row), np.trim_zeros(clips.samples[clip]))
            starts.add(np.flatnonzero(row)[0])
    assert len(starts) > 500


def test_data_set_is_valid_and_has_the_form_promised(dataset):
    check_dataset(dataset)
    assert dataset.class_names[0] == "zero" and dataset.class_names[9] == "nine"
    for batch in dataset.splits.values():
        audio, visual = batch["inputs"]["audio"], batch["inputs"]["visual"]
        assert audio.shape[1:] == (32, 32) and audio.dtype == np.float32
        assert visual.shape[1:] == (8, 8) and visual.dtype == np.uint8
        np.testing.assert_array_equal(batch["id"], np.arange(len(batch["label"])))


def test_same_seed_gives_the_same_bytes_from_the_cache_and_without(dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(spectrogram, "log_mel", None)         # the cache has to do
        again = av_digits.load(DataConfig(seed=0))
    monkeypatch.setenv("JAXMM_CACHE", str(tmp_path))
    anew = av_digits.load(DataConfig(seed=0))
    assert len(list(tmp_path.iterdir())) == 3
    for split, batch in dataset.splits.items():
        for m, x in batch["inputs"].items():
            assert x.tobytes() == again.splits[split]["inputs"][m].tobytes()
            assert x.tobytes() == anew.splits[split]["inputs"][m].tobytes()


def test_another_seed_gives_other_splits_and_noise(dataset, clips, pairs):
    other = av_digits.load(DataConfig(seed=1))
    for split, batch in dataset.splits.items():
        for m, x in batch["inputs"].items():
            assert (x != other.splits[split]["inputs"][m]).any(axis=(1, 2)).all()
    moved = av_digits.draw_pairs(load_digits().target, clips, np.random.default_rng(1))
    for split, p in pairs.items():
        assert set(p.image) != set(moved[split].image)
        assert set(clips.voice[p.clip]) != set(clips.voice[moved[split].clip])


def test_noise_of_images_has_its_standard_deviation(dataset, pairs):
    clean = load_digits().images[pairs["train"].image] / 16
    noisy = dataset.splits["train"]["inputs"]["visual"] / 255
    # Clipping hides half of the noise: of the pixels at 0, half stay, the rest are half-normal.
    black = noisy[clean == 0]
    assert (black == 0).mean() == pytest.approx(0.5, abs=0.01)
    assert np.median(black[black > 0]) == pytest.approx(0.6745 * av_digits.VISUAL_NOISE, abs=0.01)


def test_another_rate_is_the_same_sound_with_what_is_above_half_of_it_removed():
    """Tones below half the rate stay, those above are gone; 8000 Hz are not touched."""
    time = np.arange(8000) / 8000
    tone = {hz: np.sin(2 * np.pi * hz * time).astype(np.float32) for hz in (200, 700, 1500, 3000)}
    for rate in av_digits.RATES[1:]:
        found = av_digits.resample(np.stack(list(tone.values())), rate)
        assert found.shape == (4, rate) and found.dtype == np.float32
        for hz, row in zip(tone, found[:, rate // 10:-rate // 10]):     # not at its ends
            expected = np.sin(2 * np.pi * hz * (np.arange(rate) / rate))[rate // 10:-rate // 10]
            np.testing.assert_allclose(row, expected if hz < rate / 2 else 0, atol=0.05)
    audio = np.stack(list(tone.values()))
    assert av_digits.resample(audio, 8000) is audio


@pytest.mark.filterwarnings("ignore:Empty filters")
def test_spectrograms_of_another_rate_have_the_same_windows_in_seconds(dataset):
    expected = {8000: (256, 160, 32), 4000: (128, 80, 32), 2000: (64, 40, 32), 1000: (32, 20, 30)}
    for rate, sizes in expected.items():
        options = av_digits.spectrogram_of(rate)
        assert (options["n_fft"], options["hop_length"], options["n_mels"]) == sizes
    assert not librosa.filters.mel(sr=1000, n_fft=32, n_mels=31).any(axis=1).all()      # one would be empty
    found = av_digits.load(DataConfig(seed=0, audio_rate=1000)).splits["test"]
    assert found["inputs"]["audio"].shape == (300, 30, 32) and np.isfinite(found["inputs"]["audio"]).all()
    np.testing.assert_array_equal(found["inputs"]["visual"], dataset.splits["test"]["inputs"]["visual"])


@pytest.mark.parametrize("name, rate, message", [
    ("av_digits", 3000, "data.audio_rate=3000; expected one of 8000, 4000, 2000, 1000"),
    ("synthetic", 4000, "data.audio_rate=4000 is for av_digits and avt_digits; leave it out for synthetic")])
def test_rates_that_there_are_not_are_refused(name, rate, message):
    with pytest.raises(UserError, match=message):
        data.load(DataConfig(name=name, audio_rate=rate))


@pytest.mark.parametrize("snr_db", [-2.0, 10.0])
def test_measured_signal_to_noise_ratio_is_the_one_set(snr_db):
    rng = np.random.default_rng(0)
    speech = rng.normal(size=(4, 500)).astype(np.float32) * np.array([[1], [0.1], [3], [0.5]])
    speech = speech.astype(np.float32)
    mixed = av_digits.add_noise(speech, snr_db, rng)
    noise = mixed.astype(np.float64) - speech
    measured = 10 * np.log10((speech**2.0).sum(axis=1) / (noise**2).sum(axis=1))
    np.testing.assert_allclose(measured, snr_db, atol=1e-3)
    assert mixed.dtype == np.float32
    assert np.abs(np.corrcoef(noise) - np.eye(4)).max() < 0.2               # each row its own
    following = (noise[:, 1:] * noise[:, :-1]).sum(axis=1) / (noise**2).sum(axis=1)
    assert np.abs(following).max() < 0.2                                    # white


def test_divide_keeps_the_shares_of_the_strata():
    strata = np.repeat([0, 1, 2], [12, 24, 36])
    parts = av_digits.divide(strata, {"a": 36, "b": 24, "c": 12}, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(72))
    assert {s: np.bincount(strata[p]).tolist() for s, p in parts.items()} == {
        "a": [6, 12, 18], "b": [4, 8, 12], "c": [2, 4, 6]}


@pytest.mark.filterwarnings("ignore:Empty filters")     # of bands narrower than a bin, which both have
@pytest.mark.parametrize("rate, n_fft, mels", [(8000, 256, 32), (16000, 512, 128), (44100, 64, 40)])
def test_mel_bands_are_librosas(rate, n_fft, mels):
    for slaney, options in ((True, {}), (False, {"fmin": 20, "htk": True, "norm": None})):
        expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=mels, **options).T
        found = spectrogram.mel_bands(rate, n_fft, mels, slaney=slaney)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_log_mel_is_librosas(audio):
    filters = librosa.filters.mel(sr=8000, n_fft=64, n_mels=5)
    for row, result in zip(audio, spectrogram.log_mel(audio, **OPTIONS)):
        power = np.abs(librosa.stft(row, n_fft=64, hop_length=32, center=False))**2
        np.testing.assert_allclose(result, np.log(filters @ power + 1e-6), rtol=1e-4)


def test_log_mel_of_a_tone_peaks_in_its_band_and_of_silence_is_the_floor():
    centres = librosa.mel_frequencies(n_mels=34, fmin=0, fmax=4000)[1:-1]
    tone = np.sin(2 * np.pi * centres[20] * np.arange(800) / 8000)
    audio = np.stack([tone, np.zeros(800)]).astype(np.float32)
    result = spectrogram.log_mel(audio, **av_digits.spectrogram_of(8000))
    assert result.shape == (2, 32, 1 + (800 - 256) // 160)
    assert (result[0].argmax(axis=0) == 20).all()
    np.testing.assert_allclose(result[1], np.log(1e-6), rtol=1e-6)


@pytest.mark.parametrize("damage", [
    lambda data: b"",
    lambda data: data[:len(data) // 2],
    lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],      # a bit of the payload
    lambda data: b"no zip file",
])
def test_damaged_cache_file_is_made_again(damage, audio, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMM_CACHE", str(tmp_path))
    expected = spectrogram.cached_log_mel(audio, **OPTIONS)
    file, = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    np.testing.assert_array_equal(spectrogram.cached_log_mel(audio, **OPTIONS), expected)
    assert [f.name for f in tmp_path.iterdir()] == [file.name] and file.read_bytes() == whole


def test_cache_tells_apart_samples_and_options(audio, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMM_CACHE", str(tmp_path))
    for x, options in ((audio, OPTIONS), (audio + 1, OPTIONS), (audio, OPTIONS | {"n_mels": 6}),
                       (audio.reshape(6, 100), OPTIONS)):
        for _ in range(2):
            np.testing.assert_array_equal(spectrogram.cached_log_mel(x, **options),
                                          spectrogram.log_mel(x, **options))
    assert len(list(tmp_path.iterdir())) == 4


def test_folder_that_cannot_be_written_means_no_cache(audio, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("JAXMM_CACHE", str(tmp_path / "file"))
    np.testing.assert_array_equal(spectrogram.cached_log_mel(audio, **OPTIONS),
                                  spectrogram.log_mel(audio, **OPTIONS))
    assert (tmp_path / "file").read_text() == "in the way"


def test_interrupted_write_leaves_no_file(audio, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")
    monkeypatch.setenv("JAXMM_CACHE", str(tmp_path))
    monkeypatch.setattr(spectrogram.np, "savez", fail)
    np.testing.assert_array_equal(spectrogram.cached_log_mel(audio, **OPTIONS),
                                  spectrogram.log_mel(audio, **OPTIONS))
    assert not list(tmp_path.iterdir())


def test_file_is_what_the_tool_speaks(monkeypatch):
    pytest.importorskip("espeakng_loader")
    from launch import make_av_digits
    monkeypatch.setattr(make_av_digits, "SPEAKERS", make_av_digits.SPEAKERS[:1])
    made = make_av_digits.make_clips()
    with np.load(FILE, allow_pickle=False) as file:
        np.testing.assert_array_equal(made["offsets"], file["offsets"][:11])
        # One unit, as resampling may round otherwise on another processor.
        np.testing.assert_allclose(made["samples"], file["samples"][:made["offsets"][-1]], atol=1)
        assert made["voices"].tolist() == file["voices"][:1].tolist()


def test_tool_names_the_package_it_lacks(monkeypatch):
    from launch import make_av_digits
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match="pip install espeakng-loader"):
        make_av_digits.make_clips()


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_drawn_as_scikit_learn_draws_them(seed):
    strata = np.random.default_rng(seed).choice(7, 211, p=[.3, .2, .1, .1, .1, .1, .1])
    parts = av_digits.draw_share(strata, 100, np.random.RandomState(seed))
    expected = train_test_split(np.arange(211), train_size=100, stratify=strata, random_state=seed)
    for part, rows in zip(parts, expected):
        np.testing.assert_array_equal(part, rows)
