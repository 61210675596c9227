import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from PIL import Image

from jaxmm.config import FlowConfig, FramesConfig, SpectrogramConfig
from jaxmm.data import preprocess, spectrogram

KEY = jax.random.key(0)
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
