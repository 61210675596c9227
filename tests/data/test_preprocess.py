import dataclasses
import itertools
import pathlib

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv
from PIL import Image, ImageEnhance

from jaxmm.config import FlowConfig, FramesConfig, PictureConfig, SpectrogramConfig
from jaxmm.data import decode, preprocess, spectrogram
from jaxmm.data.prepared import Sound
from jaxmm.errors import UserError
from jaxmm.experiments.presets import cav_mae_sound

KEY = jax.random.key(0)
CAV_MAE = cav_mae_sound()
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (9, 12, 3)).astype(np.uint8)


def mel(samples, rate):
    y = librosa.effects.preemphasis(samples, coef=0.97, zi=np.zeros(1))
    power = librosa.feature.melspectrogram(
        y=y, sr=rate, n_fft=512, win_length=400, hop_length=160, center=False, n_mels=128, fmin=20,
        htk=True, norm=None)
    log = np.log(np.maximum(power, 2.0**-23)).T
    return np.pad(log, ((0, 1024 - len(log)), (0, 0)))


@pytest.mark.parametrize("config, shape, expected", [
    (SpectrogramConfig(rate=22050, seconds=3, n_fft=512, hop=353), (257, 188),
     lambda y, _: np.log(np.abs(librosa.stft(y, n_fft=512, hop_length=353)) + 1e-7)),
    (SpectrogramConfig(rate=16000, seconds=5, n_fft=256, hop=128), (129, 626),
     lambda y, _: np.log(np.abs(librosa.stft(y, n_fft=256, hop_length=128)) + 1e-7)),
    (SpectrogramConfig(rate=16000, seconds=10, n_fft=1024, hop=512, log=False), (513, 313),
     lambda y, _: np.abs(librosa.stft(y, n_fft=1024, hop_length=512))),
    (SpectrogramConfig(rate=16000, seconds=10, n_fft=512, window=400, hop=160, center=False, mels=128,
                       preemphasis=0.97, columns=1024), (1024, 128), mel)],
    ids=["257 x 188", "129 x 626", "513 x 313", "1024 x 128"])
def test_spectrograms_are_those_of_librosa(config, shape, expected):
    t = np.arange(int(config.rate * config.seconds)) / config.rate
    y = 0.5 * np.sin(2 * np.pi * 440 * t**2) + 0.1 * RNG.normal(size=t.size)
    y = y.astype(np.float32)
    found = jax.jit(lambda y: spectrogram.spectrogram(y, config))(y)
    assert found.shape == shape
    expected = expected(y, config.rate)
    if config.log:      # near zero, float32 rounds magnitudes to nothing that a logarithm can tell
        well = expected > np.log(1e-3)
        assert well.mean() > 0.85
        np.testing.assert_allclose(found[well], expected[well], atol=1e-3)
        found, expected = np.exp(found), np.exp(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(name="kaldi", scope="module")
def make_kaldi():
    return jax.jit(lambda x: preprocess.preprocess(None, 0.5, x, CAV_MAE))


@pytest.mark.parametrize("name, tolerance", [("noise", 1e-3), ("tone", 2e-2), ("chirp", 2e-2)])
def test_the_filterbank_of_kaldi(kaldi, name, tolerance):
    """Of torchaudio's Kaldi module; rows after the sound are 0, and the mean once standardised."""
    with np.load(pathlib.Path(__file__).with_name("fbank.npz"), allow_pickle=False) as arrays:
        sound, expected = arrays[f"input/{name}"], arrays[f"output/exact/{name}"]
        standardised = arrays[f"output/standardised/{name}"]
    row = decode.sound(Sound(sound, 16000), CAV_MAE)
    found = np.asarray(kaldi(row))
    assert found.shape == (1024, 128)
    np.testing.assert_allclose(found[:128], expected, rtol=0, atol=tolerance)
    assert not found[128:].any() and found[127].all()
    mean, std = CAV_MAE.mean[0], CAV_MAE.std[0]
    np.testing.assert_allclose(((found - mean) / std)[:160], standardised, rtol=0, atol=tolerance)
    np.testing.assert_allclose((0 - mean) / std, 1.13291, atol=1e-5)


def test_a_tone_lies_in_the_band_of_kaldi_that_it_is_in_by_hand(kaldi):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    found = np.asarray(kaldi(decode.sound(Sound(np.rint(32768 * tone).astype(np.int16), 16000), CAV_MAE)))[:98]
    assert (found.argmax(1) == 43).all()
    np.testing.assert_allclose(found.max(1), 5.627, atol=1e-3)


def test_silence_at_the_end_of_a_sound_is_not_what_comes_after_it(kaldi):
    """Rows of 400 samples every 160: 15,920 samples have 98, the last 17 of them without sound."""
    sound = np.r_[RNG.integers(-9000, 9000, 12880), np.zeros(3040)].astype(np.int16)
    found = np.asarray(kaldi(decode.sound(Sound(sound, 16000), CAV_MAE)))
    np.testing.assert_allclose(found[81:98], np.log(2.0**-23), rtol=1e-6)
    assert not found[98:].any() and (found[:80] > -12).mean() > 0.9
    no_sound = dataclasses.replace(CAV_MAE, fill="zeros")
    found = np.asarray(preprocess.preprocess(None, 0.5, decode.sound(Sound(sound, 16000), no_sound), no_sound))
    np.testing.assert_allclose(found[98:], np.log(2.0**-23), rtol=1e-6)


def test_silence_has_a_finite_logarithm():
    silence = jnp.zeros(1600)
    np.testing.assert_allclose(spectrogram.spectrogram(silence, SpectrogramConfig()), np.log(1e-7),
                               rtol=1e-6)
    np.testing.assert_allclose(spectrogram.spectrogram(silence, SpectrogramConfig(mels=4)),
                               np.log(2.0**-23), rtol=1e-6)


def test_sound_and_frames_are_cropped_at_the_same_moment():
    """Sound and frames that count their time: the crops of each moment agree, and reach the ends."""
    sound = np.arange(800, dtype=np.int16)              # 10 s at 80 Hz
    frames = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 2, 2, 1))
    config = SpectrogramConfig(rate=80, seconds=10, crop_seconds=4)
    frames_config = FramesConfig(frames=100, crop_frames=40)
    for moment, first in ((0.0, 0.0), (0.5, 3.0), (1.0, 6.0)):
        seconds = preprocess.crop_sound(sound, moment, config) * 32768 / 80
        np.testing.assert_allclose(seconds, first + np.arange(320) / 80, atol=1e-4)
        seconds = preprocess.crop_frames(frames, moment, frames_config)[:, 0, 0, 0] / 10
        np.testing.assert_allclose(seconds, first + np.arange(40) / 10, atol=0.01)


@pytest.mark.parametrize("moment, allowed", [(0.1, [(0.4, 1.0)]), (0.5, [(0.0, 0.2), (0.8, 1.0)]), (1.0, [(0.0, 0.7)])])
def test_another_moment_is_anywhere_far_enough(moment, allowed):
    """Uniform over all that is 0.3 or more away: a share of each part, and its mean, as its length says."""
    drawn = np.asarray(jax.vmap(preprocess.elsewhere, (0, None, None))(jax.random.split(KEY, 4000), moment, 0.3))
    whole = sum(b - a for a, b in allowed)
    inside = [drawn[(drawn > a - 1e-6) & (drawn < b + 1e-6)] for a, b in allowed]
    assert sum(map(len, inside)) == 4000
    for part, (a, b) in zip(inside, allowed):
        assert abs(len(part) / 4000 - (b - a) / whole) < 0.03
        assert abs(part.mean() - (a + b) / 2) < 0.03 and np.ptp(part) > 0.95 * (b - a)
    assert preprocess.elsewhere(KEY, 0.5, 0.5) in (0, 1)


def test_seconds_as_a_share_of_moments():
    config = SpectrogramConfig(rate=100, seconds=10.0, crop_seconds=2.0)
    assert preprocess.gap_of("m", np.zeros((2, 1000), np.int16), 0.5, config) == 0.5 / 8
    for options, shape in (({"crop_seconds": 0.0}, (2, 1000)), ({"crop_seconds": 9.1}, (2, 1000)), ({}, (2, 5, 4))):
        with pytest.raises(UserError, match="data.preprocess.m: a second sound"):
            preprocess.gap_of("m", np.zeros(shape, np.int16), 0.5, dataclasses.replace(config, **options))


def test_enlarging_is_that_of_pillow():
    box = 1.5, 2.25, 6.0, 7.5                           # top, left, height, width
    expected = Image.fromarray(IMAGE).resize((16, 16), Image.Resampling.BILINEAR,
                                             box=(2.25, 1.5, 9.75, 7.5))
    # Pillow rounds to whole numbers, and sees nothing of the image outside the box.
    found = np.asarray(preprocess.resize(IMAGE, box, 16))
    np.testing.assert_allclose(found[2:-2, 2:-2], np.asarray(expected, float)[2:-2, 2:-2], atol=1.5)
    whole = Image.fromarray(IMAGE).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(preprocess.resize(IMAGE, (0, 0, 9, 12), 16), np.asarray(whole, float),
                               atol=1.5)


def test_same_size_is_the_same_image_and_its_mirror():
    square = IMAGE[:, :9]
    np.testing.assert_array_equal(preprocess.resize(square, (0, 0, 9, 9), 9), square)
    np.testing.assert_allclose(preprocess.resize(square, (0, 0, 9, 9), 9, True), square[:, ::-1],
                               atol=1e-3)


def test_evaluation_resizes_all_or_cuts_out_the_middle():
    whole = preprocess.crop_images(None, IMAGE, FramesConfig(size=5))
    np.testing.assert_allclose(whole, preprocess.resize(IMAGE, (0, 0, 9, 12), 5) / 255, rtol=1e-6)
    cut = preprocess.crop_images(None, IMAGE, FramesConfig(size=5, center=True))
    np.testing.assert_allclose(cut, IMAGE[2:7, 3:8] / 255, rtol=1e-6)


def test_all_frames_are_cropped_and_flipped_alike():
    frames = np.stack([IMAGE, IMAGE + 1, IMAGE])
    found = np.asarray(jax.jit(lambda k: preprocess.crop_images(k, frames, FramesConfig(size=6)))(KEY))
    np.testing.assert_array_equal(found[0], found[2])
    assert found.shape == (3, 6, 6, 3)


def test_frames_are_cropped_as_each_would_be_alone():
    frames, config = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]]), FramesConfig(size=6)
    found = preprocess.crop_images(KEY, frames, config)
    for frame, expected in zip(frames, found):
        np.testing.assert_allclose(preprocess.crop_images(KEY, frame, config), expected, atol=1e-6)


def test_random_boxes_have_the_areas_and_proportions_asked_for_and_lie_inside():
    config = FramesConfig(min_area=0.25)
    keys = jax.random.split(KEY, 2000)
    top, left, tall, wide = jax.vmap(lambda k: preprocess.random_box(k, 100, 100, config))(keys)
    area, shape = tall * wide / 1e4, wide / tall
    free = (tall < 99.9) & (wide < 99.9)                # those that the image did not cut
    assert area[free].min() > 0.249 and abs(np.percentile(area, 50) - 0.6) < 0.05
    assert shape[free].min() > 0.749 and shape[free].max() < 1.334
    assert abs(np.mean(np.log(shape))) < 0.02
    assert top.min() >= 0 and left.min() >= 0
    assert (top + tall).max() <= 100.001 and (left + wide).max() <= 100.001
    assert (top + tall).max() > 99 and top.min() < 1


def test_without_an_area_crops_keep_the_scale():
    config = FramesConfig(min_area=0, size=4, flip=False)
    found = np.asarray(preprocess.crop_images(KEY, np.full((9, 12, 3), 7, np.uint8), config))
    np.testing.assert_allclose(found, 7 / 255, rtol=1e-6)
    box = preprocess.random_box(KEY, 9, 12, config)
    assert box[2:] == (4, 4)


@pytest.mark.parametrize("kind, enhancer", [
    (0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)])
def test_colours_change_as_in_pillow(kind, enhancer):
    for factor in (0.0, 0.7, 1.0, 1.6):
        expected = np.asarray(enhancer(Image.fromarray(IMAGE)).enhance(factor), float)
        found = np.asarray(preprocess.adjust(IMAGE / np.float32(255), kind, factor)) * 255
        np.testing.assert_allclose(found, expected, atol=2)
    np.testing.assert_allclose(preprocess.adjust(IMAGE / np.float32(255), kind, 1.0), IMAGE / 255, atol=1e-6)


def test_contrast_keeps_the_mean_grey_and_saturation_the_grey_of_each_pixel():
    x = np.float32(0.4 + 0.2 * IMAGE / 255)             # far enough from 0 and 1
    grey = [np.asarray(y @ np.float32(preprocess.GREY)) for y in
            (x, preprocess.adjust(x, 1, 1.5), preprocess.adjust(x, 2, 1.5))]
    np.testing.assert_allclose(grey[1].mean(), grey[0].mean(), rtol=1e-5)
    np.testing.assert_allclose(grey[1] - grey[0].mean(), 1.5 * (grey[0] - grey[0].mean()), atol=1e-5)
    np.testing.assert_allclose(grey[2], grey[0], atol=1e-6)


def test_jitter_is_the_three_in_any_order_and_alike_for_all_frames():
    """From grey 0.5 alone brightness moves; with 0.3 its factors reach from 0.7 to 1.3, with 2 from 0 to 3."""
    keys = jax.random.split(KEY, 500)
    changed = jax.jit(jax.vmap(lambda k, s: preprocess.jitter(k, jnp.full((2, 2, 2, 3), 0.25), s), (0, None)),
                      static_argnums=1)
    for strength, least, most in ((0.3, 0.7, 1.3), (2.0, 0.0, 3.0)):
        found = np.asarray(changed(keys, strength))
        np.testing.assert_allclose(found, np.broadcast_to(found[:, :1, :1, :1, :1], found.shape), atol=1e-6)
        factors = 4 * found[:, 0, 0, 0, 0]
        assert least <= factors.min() < least + 0.05 * most and 0.98 * most < factors.max() <= most + 1e-5
    x = np.float32(np.stack([IMAGE, IMAGE[::-1]]) / 255)
    apply = jax.jit(lambda k: preprocess.jitter(k, x, 0.9))
    orders = set()
    for key in keys[:60]:
        found = np.asarray(apply(key))
        np.testing.assert_allclose(found[1], found[0, ::-1], atol=1e-5)
        factors = np.asarray(jax.random.uniform(jax.random.split(key)[1], (3,), minval=0.1, maxval=1.9))
        matches = []
        for order in itertools.permutations(range(3)):
            y = x
            for kind in order:
                y = adjusted(y, kind, factors[kind])
            matches += [order] if np.abs(y - found).max() < 1e-4 else []
        assert matches
        orders |= {matches[0]} if len(matches) == 1 else set()
    assert len(orders) == 6


def adjusted(x, kind, factor):
    """`preprocess.adjust` in NumPy, with the formulas of torchvision."""
    grey = x @ np.float32(preprocess.GREY)
    other = [np.zeros_like(x), np.ones_like(x) * grey.mean((1, 2))[:, None, None, None],
             np.repeat(grey[..., None], 3, -1)][kind]
    return np.clip(factor * x + (1 - factor) * other, 0, 1)


def test_jitter_is_of_training_alone_and_changes_no_box():
    plain, config = FramesConfig(size=6), FramesConfig(size=6, jitter=1.0)
    np.testing.assert_array_equal(preprocess.crop_images(None, IMAGE, config),
                                  preprocess.crop_images(None, IMAGE, plain))
    cropped = preprocess.crop_images(KEY, IMAGE, plain)
    np.testing.assert_array_equal(
        preprocess.crop_images(KEY, IMAGE, config),
        preprocess.jitter(preprocess.named_key(KEY, "jitter"), cropped, 1.0))
    assert repr(plain) == repr(config)      # as the rows that are read are the same


def test_mirrored_flow_changes_its_direction():
    """One pixel a frame to the right, stored as 138, becomes one to the left: 118."""
    flow = np.full((6, 6, 4), 138, np.uint8)
    config = FlowConfig(frames=2, size=6, min_area=1)
    for seed in range(8):
        key = jax.random.key(seed)
        flipped = bool(jax.random.bernoulli(jax.random.split(key)[1]))
        found = np.asarray(preprocess.crop_images(key, flow, config)) * 255
        np.testing.assert_allclose(found[..., :2], 118 if flipped else 138, rtol=1e-5)
        np.testing.assert_allclose(found[..., 2:], 138, rtol=1e-5)


def test_hue_saturation_and_value_are_those_of_matplotlib():
    x = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    x[:4] = [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.2], [0.3, 0.3, 0.3]]
    np.testing.assert_allclose(preprocess.to_hsv(x), rgb_to_hsv(x), atol=1e-6)
    np.testing.assert_allclose(preprocess.from_hsv(rgb_to_hsv(x)), x, atol=1e-6)


def test_colours_vary_by_at_most_what_is_said_and_in_training_alone():
    x = np.broadcast_to(np.uint8([60, 180, 120]), (4, 5, 3))
    config = PictureConfig(height=4, width=5, jitter=True)
    np.testing.assert_allclose(preprocess.preprocess(None, 0.5, x, config), x / 255, rtol=1e-6)
    change = jax.jit(jax.vmap(lambda key: preprocess.preprocess(key, 0.5, x, config)[0, 0]))
    found = rgb_to_hsv(np.clip(change(jax.random.split(jax.random.key(0), 300)), 0, 1))
    hue, saturation, value = rgb_to_hsv(x[0, 0] / 255)
    for ratio in found[:, 0] / hue, found[:, 1] / saturation:
        np.testing.assert_allclose([ratio.min(), ratio.max()], [0.9, 1.1], atol=0.01)
    np.testing.assert_allclose([found[:, 2].min(), found[:, 2].max()], value + np.array([-25, 25]) / 255, atol=0.01)


def test_the_nearest_pixels_of_a_box():
    x = np.arange(12).reshape(3, 4)[..., None]
    np.testing.assert_array_equal(preprocess.resize(x, (0, 0, 3, 4), (3, 4), nearest=True), x)
    np.testing.assert_array_equal(preprocess.resize(x, (0, 0, 3, 4), (3, 4), True, nearest=True), x[:, ::-1])
    found = preprocess.resize(x, (1, 2, 2, 2), (4, 2), nearest=True)
    np.testing.assert_array_equal(found[..., 0], [[6, 7], [6, 7], [10, 11], [10, 11]])
    bilinear = preprocess.resize(x, (0, 1, 3, 2), (3, 2))
    np.testing.assert_allclose(bilinear, x[:, 1:3], atol=1e-5)


def test_a_box_of_zoom_lies_in_the_picture_and_all_sizes_occur():
    box, flip = jax.vmap(lambda key: preprocess.zoom_box(key, 30, 60, 1.5))(jax.random.split(jax.random.key(0), 500))
    top, left, tall, wide = map(np.asarray, box)
    np.testing.assert_allclose(wide, 2 * tall, rtol=1e-5)
    np.testing.assert_allclose([(30 / tall).min(), (30 / tall).max()], [1, 1.5], atol=0.01)
    assert (top >= 0).all() and (left >= 0).all() and (top + tall < 30.001).all() and (left + wide < 60.001).all()
    assert (top / np.maximum(30 - tall, 0.1)).max() > 0.9 and abs(np.mean(flip) - 0.5) < 0.1
