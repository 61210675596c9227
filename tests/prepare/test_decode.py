import fractions
import io
import random
import struct
import zlib

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from jaxmm.config import FramesConfig
from jaxmm.data.decode import image as read_image
from jaxmm.prepare import decode
from jaxmm.prepare.decode import Missing, Options, Source
from jaxmm.prepare.layout import Example, Modality, Skip
from jaxmm.prepare.shards import Work
from jaxmm.prepare.shards import decode as decode_example

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


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def png_of_16_bits(values, colour_type):
    """A PNG file of values uint16 [H, W, C]."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def ramp(*colours):
    """Eight columns of each colour, uint8 [16, 8 n, C]."""
    return np.repeat(np.array(colours, np.uint8)[None], 8, 1).repeat(16, 0)


PICTURES = {        # by what is special: the file, its colours as they are to be seen, what is noted
    "grey of 16 bits": (png_of_16_bits(ramp([0], [1], [2]).astype(np.uint16) * 32640, 0),
                        [0, 127, 254], {"turned into JPEG", "16 bits a channel, scaled to 8"}),
    "colour of 16 bits": (png_of_16_bits(ramp([0] * 3, [1] * 3).astype(np.uint16) * 0x8080, 2),
                          [[0] * 3, [128] * 3], {"turned into JPEG", "16 bits a channel, scaled to 8"}),
    "bits": (Image.fromarray(ramp([0], [255])[..., 0]).convert("1"), [0, 255], {"turned into JPEG"}),
    "palette": (Image.fromarray(ramp([200, 0, 0], [0, 0, 200])).quantize(4),
                [[200, 0, 0], [0, 0, 200]], {"turned into JPEG"}),
    "alpha": (Image.fromarray(ramp([200, 0, 0, 255], [0, 0, 0, 51])), [[200, 0, 0], [204] * 3],
              {"turned into JPEG", "transparent, laid over white"}),
    "grey and alpha": (Image.fromarray(ramp([100, 255], [0, 0])), [100, 255],
                       {"turned into JPEG", "transparent, laid over white"}),
    "opaque alpha": (Image.fromarray(ramp([200, 0, 0, 255], [0, 0, 0, 255])), [[200, 0, 0], [0] * 3],
                     {"turned into JPEG"}),
    "one colour": (Image.fromarray(ramp([9], [9])[..., 0]), [9, 9],
                   {"turned into JPEG", "images of one colour"})}


@pytest.mark.parametrize("case", PICTURES)
def test_pixels_are_those_that_are_to_be_seen(case, tmp_path):
    picture, colours, noted = PICTURES[case]
    path = tmp_path / "a.png"
    path.write_bytes(picture) if isinstance(picture, bytes) else picture.save(path)
    (data,), notes = decode.images((str(path),), SAME)
    np.testing.assert_allclose(pixels(data)[4, 4::8], colours, atol=4)
    assert set(notes) == noted
    stored = path.read_bytes()          # as somebody else may have prepared it
    if "alpha" not in case:
        read = read_image(stored, FramesConfig(height=16, width=8 * len(colours)), "RGB")
        np.testing.assert_allclose(read[4, 4::8], np.broadcast_to(
            np.reshape(colours, (len(colours), -1)), (len(colours), 3)), atol=1)


def test_animations_and_colours_for_print_are_named(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    (data,), notes = decode.images((str(tmp_path / "a.webp"),), SAME)
    np.testing.assert_allclose(pixels(data)[8, 8], [254, 0, 0], atol=3)
    assert "animated, the first image taken" in notes
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", icc_profile=b"P3")
    (data,), notes = decode.images((str(tmp_path / "a.jpg"),), SAME)
    read = read_image(data, FramesConfig(height=16, width=16), "RGB")
    np.testing.assert_allclose(read[8, 8], [255, 0, 0], atol=6)
    assert notes == ["colour profile, not applied", "images of one colour"]


CORNERS = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 250]]], np.uint8)
SEEN = np.kron(CORNERS, np.ones((16, 24, 1), np.uint8))         # 32 x 48, a colour in each quarter
# How to store it for every orientation of EXIF: turned the other way.
STORED = {1: SEEN, 2: SEEN[:, ::-1], 3: SEEN[::-1, ::-1], 4: SEEN[::-1], 5: SEEN.swapaxes(0, 1),
          6: np.rot90(SEEN), 7: SEEN[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(SEEN, -1)}


@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_as_they_say(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(path, exif=exif, quality=95)
    (data,), notes = decode.images((str(path),), SAME)
    assert data == path.read_bytes() and notes == ["turned upright"][:orientation > 1]
    (shrunk,), _ = decode.images((str(path),), Options(short_side=16))
    assert pixels(shrunk).shape == (16, 24, 3)
    for stored, (height, width) in ((data, (32, 48)), (shrunk, (16, 24)), (data, (4, 6))):
        read = read_image(stored, FramesConfig(height=height, width=width), "RGB")
        np.testing.assert_allclose(read[height // 4::height // 2, width // 4::width // 2], CORNERS,
                                   atol=25)
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(tmp_path / "a.png", exif=exif)
    (data,), _ = decode.images((str(tmp_path / "a.png"),), SAME)
    np.testing.assert_allclose(pixels(data)[8::16, 12::24], CORNERS, atol=12)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_data_that_is_damaged_turns_nothing(tmp_path):
    Image.fromarray(SEEN).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (data,), notes = decode.images((str(tmp_path / "a.jpg"),), SAME)
    assert read_image(data, FramesConfig(height=32, width=48), "RGB").shape == (32, 48, 3)
    assert notes == []


def write_streams(path, *, video_at=0.0, sound_at=0.0, gap=0.0, turn=None, pixel=None):
    """One second of a picture, 10 frames a second that grow darker, and of sound at 8 kHz.

    Samples are 1, 2, 3, ...; `gap` seconds follow the first half of them.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10, options={"qscale": "1"})
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        video.codec_context.bit_rate = 4_000_000
        if pixel:
            video.codec_context.sample_aspect_ratio = fractions.Fraction(*pixel)
        if turn:
            video.set_display_rotation(*turn)
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(SEEN - np.minimum(SEEN, np.uint8(20 * i)), format="rgb24")
            frame.pts, frame.time_base = i + round(10 * video_at), fractions.Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for i in range(0, 8000, 1000):
            samples = np.arange(i + 1, i + 1001, dtype=np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            frame.sample_rate, frame.time_base = 8000, fractions.Fraction(1, 8000)
            frame.pts = i + round(8000 * (sound_at + gap * (i >= 4000)))
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


@pytest.mark.parametrize("video_at, sound_at, gap", [
    (0, 0, 0), (0, 0.5, 0), (0.3, 0, 0), (0.3, 0.5, 0), (2.3, 2.0, 0), (0, 0, 0.25), (0, 0.1, 0.2)])
def test_sound_and_frames_of_a_video_have_one_time_line(video_at, sound_at, gap, tmp_path):
    path = tmp_path / "a.mkv"
    write_streams(path, video_at=video_at, sound_at=sound_at, gap=gap)
    (samples, rate), notes = decode.sound(str(path), SAME)
    begin = min(video_at, sound_at)
    silence, hole = round(8000 * (sound_at - begin)), round(8000 * gap)
    wave = np.arange(1, 8001)
    expected = np.concatenate([np.zeros(silence), wave[:4000], np.zeros(hole), wave[4000:]])
    assert rate == 8000
    np.testing.assert_array_equal(samples, expected)
    assert ("silence where the sound has a gap" in notes) == (gap > 0)
    assert any("starts later than the pictures" in note for note in notes) == (silence > 0)
    frames, notes = decode.video(str(path), 10.0, SAME)
    late = round(10 * (video_at - begin))
    expected = [0] * late + list(range(10))
    red = [250 - int(pixels(frame)[8, 12, 0]) for frame in frames]
    np.testing.assert_allclose(red, 20 * np.array(expected), atol=9)
    assert notes == ["first frame repeated, as the sound starts earlier"][:late]


@pytest.mark.parametrize("turn, seen", [
    ((90,), np.rot90(CORNERS)), ((180,), np.rot90(CORNERS, 2)), ((-90,), np.rot90(CORNERS, -1)),
    ((0, True), CORNERS[:, ::-1]), ((0, False, True), CORNERS[::-1]),
    ((90, True), np.rot90(CORNERS)[:, ::-1]), ((-90, True), np.rot90(CORNERS, -1)[:, ::-1])])
def test_videos_are_turned_as_they_say(turn, seen, tmp_path):
    write_streams(tmp_path / "a.mov", turn=turn)
    (frame, *_), notes = decode.video(str(tmp_path / "a.mov"), 1.0, SAME)
    height, width = (48, 32) if abs(turn[0]) == 90 else (32, 48)
    assert pixels(frame).shape == (height, width, 3) and notes == ["turned upright"]
    np.testing.assert_allclose(pixels(frame)[height // 4::height // 2, width // 4::width // 2], seen, atol=20)


def test_pixels_that_are_not_square_and_odd_angles(tmp_path):
    write_streams(tmp_path / "a.mkv", pixel=(4, 3))
    (frame, *_), notes = decode.video(str(tmp_path / "a.mkv"), 1.0, SAME)
    assert pixels(frame).shape == (32, 64, 3) and notes == ["made to square pixels"]
    write_streams(tmp_path / "a.mov", turn=(30,))
    with pytest.raises(ValueError, match="turned by 30 degrees; expected a multiple of 90"):
        decode.video(str(tmp_path / "a.mov"), 1.0, SAME)


WAVE = np.array([0, 16384, -32768, 32767] * 50, np.int16)


def riff(data, kind=1, bits=16, size=None, extensible=False, behind=b""):
    """A wav file of mono sound at 8 kHz whose header says `size` bytes."""
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else kind, 1, 8000, 8000 * bits // 8, bits // 8, bits)
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, kind) + bytes.fromhex("000000001000800000aa00389b71")
    body = (b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" +
            struct.pack("<I", len(data) if size is None else size) + data + behind)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("data, options, rounded", [
    (WAVE, {}, 0), (WAVE, {"extensible": True}, 0), (WAVE // 256 + 128, {"bits": 8}, 256),
    (WAVE.astype("<i4") << 16, {"bits": 32}, 0), (WAVE.astype("<f4") / 32768, {"bits": 32, "kind": 3}, 0),
    (WAVE.astype("<f8") / 32768, {"bits": 64, "kind": 3, "extensible": True}, 0),
    (WAVE, {"size": 0xFFFFFFFF}, 0), (WAVE, {"size": 0x7FFFFFFF}, 0),
    (WAVE, {"behind": b"LIST\4\0\0\0INFO"}, 0)])
def test_wav_files_of_every_kind_keep_their_scale(data, options, rounded, tmp_path):
    data = data.astype(np.uint8) if rounded else data
    (tmp_path / "a.wav").write_bytes(riff(data.tobytes(), **options))
    (samples, _), notes = decode.sound(str(tmp_path / "a.wav"), SAME)
    np.testing.assert_allclose(samples, WAVE, atol=rounded)
    assert notes == ["at full scale for more than a thousandth of the time: clipped in the file"]


@pytest.mark.parametrize("data, options, message", [
    (WAVE, {"size": 200}, "200 bytes of sound by its header, but 200 more follow"),
    (WAVE, {"size": 0}, "0 bytes of sound by its header, but 400 more follow"),
    (WAVE, {"size": 5000}, "cut short: 400 of 5000 bytes"),
    (WAVE.astype("<f4"), {"bits": 32, "kind": 3}, "75% of the samples are beyond full scale, up to 32768"),
    (np.full(8, np.nan, "<f4"), {"bits": 32, "kind": 3}, "samples that are not finite"),
    (WAVE[:0], {}, "no samples")])
def test_wav_files_whose_sound_is_not_what_they_say(data, options, message, tmp_path):
    (tmp_path / "a.wav").write_bytes(riff(data.tobytes(), **options))
    with pytest.raises(ValueError, match=message):
        decode.sound(str(tmp_path / "a.wav"), SAME)


@pytest.mark.parametrize("wave, noted", [
    (np.zeros(100), ["silent"]), (np.full(100, 0.5), ["silent"]),
    (np.linspace(-5e-4, 5e-4, 100), ["below a thousandth of full scale, so with few levels"]),
    (np.linspace(-1.05, 1, 100), ["samples beyond full scale, clipped"]),
    (np.linspace(-0.9, 0.9, 100), [])])
def test_sound_that_says_little_is_noted(wave, noted):
    (samples, _), notes = decode.mono(wave[:, None].astype(np.float32), 8000, SAME)
    assert [note for note in notes if "in the file" not in note] == noted
    np.testing.assert_allclose(samples, np.clip(32768 * wave, -32768, 32767), atol=0.51)


@pytest.mark.parametrize("data, message", [
    (b"", "an empty file"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "run git lfs pull"),
    (b"<!DOCTYPE html><html></html>", "an HTML page"), (b"\n<html><body>404", "an HTML page")])
def test_what_stands_in_place_of_a_file_is_named(data, message, tmp_path):
    for name, read in (("a.wav", decode.sound), ("a.mp4", decode.sound), ("a.npy", decode.array),
                       ("a.png", decode.png), ("a.jpg", lambda p, o: decode.images((p,), o)),
                       ("b.mp4", lambda p, o: decode.video(p, 1.0, o))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message):
            read(str(tmp_path / name), SAME)


def test_endings_may_be_in_capitals_and_what_is_not_there_has_a_path(layouts, tmp_path):
    layouts.write_wav(tmp_path / "a.WAV")
    layouts.write_image(tmp_path / "b.JPG")
    layouts.write_video(tmp_path / "c.MP4")
    for read, args in ((decode.sound, ("a.wav",)), (decode.video, ("c.mp4", 1.0))):
        read(str(tmp_path / args[0]), *args[1:], SAME)
    decode.images((str(tmp_path / "b.jpg"),), SAME)
    work = Work("", {"m": Modality("audio")}, (), SAME, False, {})
    path = str(tmp_path / "none.wav")
    example = Example("a", "train", None, {"m": Source(decode.sound, (path,))})
    assert decode_example(work, example)[2:4] == ("no m: no such file", path)


def test_numbers_are_those_of_float32_or_refused(tmp_path):
    for values, noted in ((np.array([1.5, np.inf, np.nan]), ["values that are not finite set to 0"]),
                          (np.array([2**24 + 1, 3]), ["integers beyond 2^24, rounded to float32"]),
                          (np.array([1, 2], ">i2"), [])):
        np.save(tmp_path / "a.npy", values)
        found, notes = decode.array(str(tmp_path / "a.npy"), SAME)
        assert notes == noted and found.dtype == np.float32
        np.testing.assert_array_equal(found, np.nan_to_num(values, posinf=0).astype(np.float32))
    np.save(tmp_path / "a.npy", np.array([1e300]))
    with pytest.raises(ValueError, match="beyond the range of float32, up to 1e[+]300"):
        decode.array(str(tmp_path / "a.npy"), SAME)
