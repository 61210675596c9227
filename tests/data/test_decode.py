import io

import numpy as np
import pytest
from PIL import Image

from jaxmm.config import FlowConfig, FramesConfig, SpectrogramConfig
from jaxmm.data import decode
from jaxmm.data.prepared import Sound
from jaxmm.errors import UserError


def jpeg(values, mode="RGB"):
    data = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint8), mode).save(data, "PNG")
    return data.getvalue()


def grey(value, height=4, width=6):
    return jpeg(np.full((height, width, 3), value))


@pytest.mark.parametrize("sampling, count, frames, expected", [
    ("uniform", 9, 3, [0, 3, 6]), ("uniform", 2, 4, [0, 0, 1, 1]), ("segments", 9, 3, [1, 4, 7]),
    ("segments", 5, 2, [1, 3]), ("consecutive", 9, 3, [3, 4, 5]), ("consecutive", 2, 4, [0, 1, 1, 1]),
    ("uniform", 9, 0, [4])])
def test_which_frames_are_read(sampling, count, frames, expected):
    config = FramesConfig(frames=frames, sampling=sampling, height=4, width=6)
    np.testing.assert_array_equal(decode.choose(count, config), expected)
    read = decode.frames([grey(10 * i) for i in range(count)], config)
    assert read.shape == decode.frames_shape(config) and read.dtype == np.uint8
    np.testing.assert_array_equal(read.reshape(-1, 72)[:, 0], 10 * np.array(expected))


def test_flow_is_stacked_horizontal_first():
    stored = [jpeg(np.full((4, 6), value), "L") for value in (1, 2, 3, 11, 12, 13)]
    read = decode.flow(stored, FlowConfig(frames=2, sampling="consecutive", height=4, width=6))
    np.testing.assert_array_equal(read[0, 0], [1, 2, 11, 12])
    assert read.shape == (4, 6, 4)


def test_images_are_stretched_or_their_middle_is_taken():
    """Left half black, right half white; the middle of a 4 x 8 image is 4 x 4."""
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 255
    image[:, [0, 7]] = 100
    crop = decode.image(jpeg(image), FramesConfig(height=4, width=4, fit="crop"), "RGB")
    np.testing.assert_array_equal(crop[..., 0], [[0, 0, 255, 255]] * 4)
    stretched = decode.image(jpeg(image), FramesConfig(height=4, width=4), "RGB")
    assert 20 < stretched[0, 0, 0] < 80 and stretched[0, 3, 0] > 150


def test_bicubic_is_that_of_pillow_and_what_fits_is_cut_out_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (12, 19, 3)).astype(np.uint8)
    found = decode.image(jpeg(image), FramesConfig(height=6, width=6, fit="crop_bicubic"), "RGB")
    expected = Image.fromarray(image).resize((6, 6), Image.Resampling.BICUBIC, box=(3.5, 0, 15.5, 12))
    np.testing.assert_array_equal(found, np.asarray(expected))
    smooth = Image.fromarray(image).resize((38, 36), Image.Resampling.BICUBIC)
    data = io.BytesIO()
    smooth.save(data, "JPEG")       # of which readers could decode a half alone
    found = decode.image(data.getvalue(), FramesConfig(height=18, width=18, fit="crop_bicubic"), "RGB")
    expected = Image.open(data).resize((18, 18), Image.Resampling.BICUBIC, box=(1, 0, 37, 36))
    np.testing.assert_array_equal(found, np.asarray(expected))
    for fit in ("crop", "crop_bicubic"):
        found = decode.image(jpeg(image), FramesConfig(height=12, width=12, fit=fit), "RGB")
        np.testing.assert_array_equal(found, image[:, 4:16])


def saved(mode="RGB", size=(37, 26), **options):
    """A smooth image as a JPEG file."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8))
    data = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).convert(mode).save(data, "JPEG", **options)
    return data.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"quality": 95},
                                     {"progressive": True}])
def test_a_file_of_the_right_size_has_the_pixels_of_pillow(mode, options):
    data, expected = saved(mode, **options), np.asarray(Image.open(io.BytesIO(saved(mode, **options))))
    out = np.zeros_like(expected)
    assert decode.read_jpeg(data, out)
    np.testing.assert_array_equal(out, expected)


def turned(how):
    exif = Image.Exif()
    exif[0x0112] = 3
    return {"exif": exif} if how == "exif" else {
        "xmp": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>3</tiff:Orientation></x:xmpmeta>'}


@pytest.mark.parametrize("data", [
    saved(size=(74, 52)), saved(size=(36, 26)), saved("L"), saved("CMYK"), saved(keep_rgb=True),
    saved(**turned("exif")), saved(**turned("xmp")), jpeg(np.full((26, 37, 3), 7))])
def test_any_other_file_is_left_to_pillow(data):
    config = FramesConfig(height=26, width=37)
    out = np.zeros((26, 37, 3), np.uint8)
    assert not decode.read_jpeg(data, out)
    decode.read_image(data, config, out)
    np.testing.assert_array_equal(out, decode.image(data, config, "RGB"))


def test_a_turned_file_of_the_right_size_is_turned():
    config, out = FramesConfig(height=26, width=37), np.zeros((26, 37, 3), np.uint8)
    for how in ("exif", "xmp"):
        decode.read_image(saved(**turned(how)), config, out)
        np.testing.assert_array_equal(out, np.asarray(Image.open(io.BytesIO(saved())))[::-1, ::-1])


def test_a_file_that_was_cut_off_is_refused():
    out = np.zeros((26, 37, 3), np.uint8)
    with pytest.raises(OSError, match="truncated"):
        decode.read_image(saved()[:-200], FramesConfig(height=26, width=37), out)


def test_nothing_stored_is_zeros():
    assert not decode.frames([], FramesConfig(frames=2, height=4, width=4)).any()
    assert not decode.sound(Sound(np.zeros(0, np.int16), 0), SpectrogramConfig(rate=100)).any()


@pytest.mark.parametrize("fill, expected", [("tile", [1, 2, 3, 1, 2, 3, 1, 2]),
                                            ("zeros", [1, 2, 3, 0, 0, 0, 0, 0]),
                                            ("columns", [1, 2, 3, 0, 0, 0, 0, 0])])
def test_short_sound_is_filled_up_and_long_sound_is_cut(fill, expected):
    config = SpectrogramConfig(rate=4, seconds=2, fill=fill)
    found = decode.sound(Sound(np.array([1, 2, 3], np.int16), 4), config)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int16
    long = decode.sound(Sound(np.arange(20, dtype=np.int16), 4), config)
    np.testing.assert_array_equal(long, np.arange(8))


def test_the_end_of_a_sound_shows_where_columns_after_it_are_0():
    config = SpectrogramConfig(rate=4, seconds=2, fill="columns")
    for stored, expected in (([5, 0, 0], [5, 0, 1, 0, 0, 0, 0, 0]), (range(9, -2, -1), range(9, 1, -1)),
                             (8 * [0], 7 * [0] + [1])):
        found = decode.sound(Sound(np.array([*stored], np.int16), 4), config)
        np.testing.assert_array_equal(found, [*expected])


def test_sound_is_resampled():
    """A tone keeps its frequency in Hz and its loudness."""
    t = np.arange(8000) / 8000
    tone = (10000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
    found = decode.sound(Sound(tone, 8000), SpectrogramConfig(rate=11025, seconds=1))
    expected = 10000 * np.sin(2 * np.pi * 440 * np.arange(11025) / 11025)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=60)


@pytest.mark.parametrize("check, config, message", [
    (decode.check_frames, FramesConfig(sampling="all"), "m.sampling='all'"),
    (decode.check_frames, FlowConfig(jitter=0.5), "m.jitter=0.5: optical flow has no colours"),
    (decode.check_frames, FramesConfig(jitter=-1.0), "m.jitter=-1.0"),
    (decode.check_sound, SpectrogramConfig(kaldi=True, center=False), "m.kaldi=True is for mel bands"),
    (decode.check_sound, SpectrogramConfig(kaldi=True, mels=9), "m.kaldi=True: no column .* m.center=False"),
    (decode.check_sound, SpectrogramConfig(fill="columns"), "m.fill='columns': no column .* m.center=False"),
    (decode.check_frames, FramesConfig(fit="fill"), "m.fit='fill'"),
    (decode.check_frames, FramesConfig(frames=2, crop_frames=3), "m.crop_frames=3 is more than"),
    (decode.check_frames, FramesConfig(height=100, center=True), "m.size=224 is more than"),
    (decode.check_frames, FramesConfig(size=0), "m.size=0"),
    (decode.check_sound, SpectrogramConfig(fill="noise"), "m.fill='noise'"),
    (decode.check_sound, SpectrogramConfig(crop_seconds=11), r"m.crop_seconds=11; .* \[0, 10\]"),
    (decode.check_sound, SpectrogramConfig(window=600), "m.window=600"),
    (decode.check_sound, SpectrogramConfig(hop=0), "m.hop=0")])
def test_options_that_cannot_be(check, config, message):
    with pytest.raises(UserError, match=message):
        check("m", config)
