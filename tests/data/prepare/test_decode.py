import io
import random

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from jaxmm.data.prepare import decode
from jaxmm.data.prepare.decode import Missing, Options, Source
from jaxmm.data.prepare.layout import Example, Modality, Skip
from jaxmm.data.prepare.shards import Work
from jaxmm.data.prepare.shards import decode as decode_example

SAME = Options()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_sound_is_kept_to_one_step_of_int16(subtype, layouts, tmp_path):
    wave = layouts.tone(seconds=0.1)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype=subtype)
    (samples, rate), notes = decode.sound(str(tmp_path / "a.wav"), SAME)
    assert rate == 16000 and samples.shape == (1600,) and notes == []
    np.testing.assert_allclose(samples / 32768, wave[:, 0], atol=1.01 / 32768)


def test_sound_in_stereo_is_mixed_down_and_resampled(tmp_path):
    time = np.arange(4410) / 44100
    left, right = np.sin(2 * np.pi * 200 * time), np.sin(2 * np.pi * 500 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1) / 2, 44100)
    (samples, _), notes = decode.sound(str(tmp_path / "a.wav"), SAME)
    np.testing.assert_allclose(samples / 32768, (left + right) / 4, atol=1e-4)
    assert notes == ["mixed down to mono"]
    (samples, rate), _ = decode.sound(str(tmp_path / "a.wav"), Options(audio_rate=22050))
    assert rate == 22050 and abs(len(samples) - 2205) <= 1
    np.testing.assert_allclose(samples[200:-200] / 32768, ((left + right) / 4)[400:-400:2][:len(
        samples) - 400], atol=2e-3)


@pytest.mark.parametrize("suffix", ["mp4", "avi", "flv"])
def test_sound_and_frames_of_video(suffix, layouts, tmp_path):
    path = tmp_path / f"a.{suffix}"
    layouts.write_video(path, seconds=1.0, fps=8)
    (samples, rate), _ = decode.sound(str(path), SAME)
    assert rate == (22050 if suffix == "flv" else 16000)
    assert 0.9 < len(samples) / rate < 1.2          # coders add silence to the ends
    middle = samples[rate // 4: rate * 3 // 4] / 32768
    assert abs(np.sqrt(np.mean(middle**2)) - 0.5 / np.sqrt(2)) < 0.03
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(spectrum.argmax() * rate / len(middle) - 440) < 5
    frames, _ = decode.video(str(path), 0.0, SAME)
    red = [np.asarray(Image.open(io.BytesIO(f)))[..., 0].mean() for f in frames]
    np.testing.assert_allclose(red, 255 * np.arange(8) / 7, atol=12)


def test_frames_are_in_the_order_of_their_numbers(layouts, tmp_path):
    for number in (10, 9, 2, 1):
        layouts.write_image(tmp_path / "f" / f"frame_{number}.jpg", (20 * number, 0, 0))
    (tmp_path / "f" / "notes.txt").write_text("no frame")
    frames, _ = decode.folder(str(tmp_path / "f"), SAME)
    assert frames == [(tmp_path / "f" / f"frame_{n}.jpg").read_bytes() for n in (1, 2, 9, 10)]


def test_frames_are_shrunk_to_the_shorter_side(layouts, tmp_path):
    layouts.write_image(tmp_path / "a.jpg", (200, 100, 50), (64, 48))
    for side, size in ((24, (32, 24)), (48, (64, 48)), (99, (64, 48))):
        (frame,), _ = decode.images((str(tmp_path / "a.jpg"),), Options(short_side=side))
        image = Image.open(io.BytesIO(frame))
        assert image.size == size and image.format == "JPEG"
        assert (frame == (tmp_path / "a.jpg").read_bytes()) == (side >= 48)
        np.testing.assert_allclose(np.asarray(image).mean((0, 1)), (200, 100, 50), atol=3)


def test_what_is_absent_is_missing_and_not_broken(layouts, tmp_path):
    layouts.write_video(tmp_path / "mute.mp4", fps=4, sound=False)
    with pytest.raises(Missing, match="video without sound"):
        decode.sound(str(tmp_path / "mute.mp4"), SAME)
    (tmp_path / "empty").mkdir()
    for read, args in [(decode.sound, ("no.wav",)), (decode.sound, ("no.mp4",)),
                       (decode.folder, ("no",)), (decode.folder, (str(tmp_path / "empty"),)),
                       (decode.images, (("no.jpg",),)), (decode.video, ("no.mp4", 1.0)),
                       (decode.text_file, ("no.txt",)), (decode.array, ("no.npy",)),
                       (decode.png, ("no.png",)), (decode.flow, (("no", "no"),))]:
        with pytest.raises(Missing):
            read(*args, SAME)


def test_truncated_files_are_broken(layouts, tmp_path):
    layouts.write_wav(tmp_path / "a.wav")
    layouts.write_image(tmp_path / "a.jpg", size=(200, 200))
    for name, read in (("a.wav", lambda p: decode.sound(p, SAME)),
                       ("a.jpg", lambda p: decode.images((p,), SAME))):
        path = tmp_path / name
        whole = path.read_bytes()
        read(str(path))
        for size in (0, 10, len(whole) // 2, len(whole) - 4):
            path.write_bytes(whole[:size])
            with pytest.raises(Exception) as error:
                read(str(path))
            assert not isinstance(error.value, Missing)


def test_text_in_utf8_or_windows_1252():
    assert decode.decode_text("Grüße ☀\n".encode("utf-8-sig")) == ("Grüße ☀", [])
    text, notes = decode.decode_text("Grüße “so”".encode("cp1252"))
    assert text == "Grüße “so”" and notes == ["not UTF-8, read as Windows-1252"]
    with pytest.raises(ValueError, match="not a text file"):
        decode.decode_text(b"\x89PNG\0\0")


def test_play_lists_are_no_videos(layouts, tmp_path):
    layouts.write_video(tmp_path / "secret.mp4")
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    (tmp_path / "b.mp4").write_text("#EXTM3U\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n")
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(av.FFmpegError):
            decode.video(str(tmp_path / name), 1.0, SAME)


def test_pickled_objects_are_not_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        decode.array(str(tmp_path / "a.npy"), SAME)


def test_readers_survive_any_bytes(layouts, tmp_path, capfd):
    """Random bytes, and real files cut and overwritten at random, under every name."""
    layouts.write_wav(tmp_path / "a.wav", seconds=0.05)
    layouts.write_image(tmp_path / "a.jpg")
    layouts.write_image(tmp_path / "a.png")
    for suffix in ("mp4", "avi", "flv"):
        layouts.write_video(tmp_path / f"a.{suffix}", seconds=0.5)
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.float32))
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4), np.float32))
    (tmp_path / "a.txt").write_text("some text")
    kinds = {".wav": [("audio", decode.sound, ())], ".txt": [("text", decode.text_file, ())],
             ".npy": [("features", decode.array, ())], ".jpg": [("frames", decode.images, None)],
             ".npz": [("features", decode.array_row, ("x", 1))],
             ".png": [("frames", decode.images, None), ("map", decode.png, ())],
             **{s: [("audio", decode.sound, ()), ("frames", decode.video, (4.0,))]
                for s in (".mp4", ".avi", ".flv")}}
    rng, outcomes = random.Random(0), set()
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for trial in range(24):
            if trial % 3 == 0:
                data = rng.randbytes(rng.choice([0, 1, 7, 100, 3000]))
            elif trial % 3 == 1:
                data = whole[:rng.randrange(len(whole))]
            else:
                spoiled = bytearray(whole)
                for _ in range(rng.choice([1, 20])):
                    spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
                data = bytes(spoiled)
            path = tmp_path / f"{trial}{path.suffix}"
            path.write_bytes(data)
            for kind, read, args in kinds[path.suffix]:
                args = ((str(path),),) if args is None else (str(path), *args)
                work = Work("", {"m": Modality(kind)}, (), SAME, False, {})
                example = Example("a", "train", None, {"m": Source(read, args)})
                result = decode_example(work, example)
                if isinstance(result, Skip):
                    assert "\n" not in result.detail
                else:
                    assert list(result) == ["m"]
                outcomes.add((path.suffix, isinstance(result, Skip)))
    assert {suffix for suffix, skipped in outcomes if skipped} == set(kinds)
    assert capfd.readouterr() == ("", "")
