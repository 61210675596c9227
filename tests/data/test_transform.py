import jax
import numpy as np
import pytest

from jaxmm.batch import make_batch, take
from jaxmm.config import AugmentConfig, FramesConfig, MapConfig, SpectrogramConfig, TextConfig
from jaxmm.data import transform
from jaxmm.data.dataset import with_target
from jaxmm.data.rows import Rows
from jaxmm.errors import UserError

KEY = jax.random.key(0)
MATRIX = np.arange(1.0, 31.0, dtype=np.float32).reshape(5, 6)


def test_normalises_and_fills_what_is_missing_with_the_mean():
    batch = make_batch({"image": np.array([[10, 20], [30, 40]], np.uint8),
                        "sound": np.array([[np.nan], [5.0]])}, [0, 1],
                       present={"sound": [False, True]})
    apply = transform.make_transform({"image": (np.float32([10, 20]), np.float32([10, 5])),
                                      "sound": (np.float32([1]), np.float32([2]))})
    inputs = apply(None, batch)["inputs"]
    np.testing.assert_allclose(inputs["image"], [[0, 0], [2, 4]])
    np.testing.assert_allclose(inputs["sound"], [[0], [2]])


def test_evaluation_is_not_augmented_and_training_depends_on_key_and_id_alone():
    batch = make_batch({"sound": np.ones((4, 3), np.float32)}, np.zeros(4))
    apply = jax.jit(transform.make_transform({"sound": (np.float32(0), np.float32(1))},
                                             {"sound": AugmentConfig(noise=1.0)}))
    np.testing.assert_array_equal(apply(None, batch)["inputs"]["sound"], batch["inputs"]["sound"])
    whole = apply(KEY, batch)["inputs"]["sound"]
    assert len(np.unique(whole)) == whole.size
    part = apply(KEY, take(batch, np.array([3, 1])))["inputs"]["sound"]
    np.testing.assert_array_equal(part, whole[np.array([3, 1])])
    assert not np.array_equal(apply(jax.random.key(1), batch)["inputs"]["sound"], whole)


def test_a_modality_is_augmented_alike_whichever_others_there_are():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3)).astype(np.uint8)
    whole = make_batch({"image": images, "also": images, "sound": np.ones((3, 4), np.float32)}, np.zeros(3))
    section = FramesConfig(height=6, width=8, size=4)
    apply = jax.jit(transform.make_transform({}, {m: AugmentConfig(noise=1.0) for m in whole["inputs"]},
                                             {"image": section, "also": section}))
    found = apply(KEY, whole)["inputs"]
    assert not np.allclose(found["image"], found["also"], atol=0.1)
    for m, x in found.items():
        alone = {part: {m: whole[part][m]} for part in ("inputs", "present")}
        np.testing.assert_allclose(apply(KEY, whole | alone)["inputs"][m], x, atol=1e-6)


def test_noise_has_the_standard_deviation_asked_for():
    x = np.zeros((200, 100), np.float32)
    noisy = transform.augment_example(KEY, x, AugmentConfig(noise=0.5))
    np.testing.assert_allclose([noisy.mean(), noisy.std()], [0, 0.5], atol=0.01)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (1, 5, 6, 1)])
def test_crop_moves_the_example_by_at_most_pad_pixels(shape):
    """Every shift of up to one pixel occurs, and what it uncovers is 0."""
    crop = jax.jit(jax.vmap(lambda k: transform.augment_example(
        k, MATRIX.reshape(shape), AugmentConfig(crop=1))))
    padded = np.pad(MATRIX, 1)
    shifts = {padded[i:i + 5, j:j + 6].tobytes() for i in range(3) for j in range(3)}
    found = {np.asarray(x).reshape(5, 6).tobytes() for x in crop(jax.random.split(KEY, 200))}
    assert found == shifts


def test_all_frames_change_alike():
    frames = np.broadcast_to(MATRIX[None, :, :, None], (3, 5, 6, 1))
    config = AugmentConfig(crop=2, flip=True, time_mask=2, frequency_mask=2)
    for seed in range(5):
        out = np.asarray(transform.augment_example(jax.random.key(seed), frames, config))
        np.testing.assert_array_equal(out[0], out[1])
        np.testing.assert_array_equal(out[0], out[2])


def test_flip_mirrors_columns_half_of_the_time():
    flip = jax.jit(jax.vmap(lambda k: transform.augment_example(k, MATRIX, AugmentConfig(flip=True))))
    out = np.asarray(flip(jax.random.split(KEY, 400)))
    mirrored = (out == MATRIX[:, ::-1]).all((1, 2))
    assert ((out == MATRIX).all((1, 2)) ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 0.1


@pytest.mark.parametrize("option, axis", [("frequency_mask", 0), ("time_mask", 1)])
def test_masks_are_spans_of_every_length_up_to_the_longest(option, axis):
    apply = jax.jit(jax.vmap(lambda k: transform.augment_example(
        k, MATRIX, AugmentConfig(**{option: 3}))))
    out = np.moveaxis(np.asarray(apply(jax.random.split(KEY, 300))), axis + 1, 1)
    zero = (out == 0).all(2)
    np.testing.assert_array_equal((out == 0).any(2), zero)     # whole rows or columns
    assert set(zero.sum(1)) == {0, 1, 2, 3}
    edges = np.diff(np.pad(zero.astype(int), ((0, 0), (1, 1))), axis=1)
    assert ((edges == 1).sum(1) <= 1).all()                    # one run
    assert zero.any(0).all()                                   # anywhere


def test_vectors_take_only_noise():
    config = AugmentConfig(crop=1, flip=True, time_mask=2, frequency_mask=2)
    x = np.arange(4.0, dtype=np.float32)
    np.testing.assert_array_equal(transform.augment_example(KEY, x, config), x)


def test_preprocessing_comes_first_and_is_random_in_training_alone():
    """Images of 6 x 8 cut to 4 x 4, normalised with given numbers; one key, one crop for each id."""
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 6, 8, 3)).astype(np.uint8)
    batch = make_batch({"image": images, "sound": np.ones((5, 2), np.float32)}, np.zeros(5))
    section = FramesConfig(frames=2, height=6, width=8, size=4, center=True, mean=(0.5,), std=(0.25,))
    apply = jax.jit(transform.make_transform({"image": (np.float32(0.5), np.float32(0.25))}, {},
                                             {"image": section}))
    plain = apply(None, batch)["inputs"]
    np.testing.assert_allclose(plain["image"], (images[:, :, 1:5, 2:6] / 255 - 0.5) / 0.25, atol=1e-5)
    np.testing.assert_array_equal(plain["sound"], batch["inputs"]["sound"])
    whole = apply(KEY, batch)["inputs"]["image"]
    part = apply(KEY, take(batch, np.array([4, 2])))["inputs"]["image"]
    np.testing.assert_allclose(part, whole[np.array([4, 2])], atol=1e-5)
    again = np.broadcast_to(images[:1], images.shape)
    crops = apply(KEY, batch | {"inputs": batch["inputs"] | {"image": again}})["inputs"]["image"]
    assert len({np.asarray(crop).tobytes() for crop in crops}) == 5


def test_missing_frames_and_sound_are_the_mean_after_preprocessing_too():
    section = SpectrogramConfig(rate=16, seconds=1, n_fft=4, hop=4, mean=(-2.0,), std=(3.0,))
    frames = FramesConfig(frames=2, height=4, width=4, size=4, mean=(0.25,), std=(0.5,))
    batch = make_batch({"image": np.full((2, 2, 4, 4, 3), 255, np.uint8), "sound": np.full((2, 16), 9, np.int16)},
                       [0, 1], present={"image": [True, False], "sound": [False, True]})
    sections = {"image": frames, "sound": section}
    apply = jax.jit(transform.make_transform(transform.normalisation(batch, sections), {}, sections))
    for key in (None, KEY):
        inputs = apply(key, batch)["inputs"]
        np.testing.assert_allclose(inputs["image"][0], 1.5, rtol=1e-5)
        assert not inputs["image"][1].any() and not inputs["sound"][0].any() and inputs["sound"][1].all()


def test_modalities_are_cropped_at_the_same_moment():
    """Frames and sound of 10 s that count time, both cut to 4 s."""
    frames = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (8, 100, 2, 2, 3))
    sound = np.broadcast_to((20 * np.arange(1000)).astype(np.int16), (8, 1000))
    sections = {"image": FramesConfig(frames=100, crop_frames=40, height=2, width=2, size=2),
                "sound": SpectrogramConfig(rate=100, seconds=10, crop_seconds=4, n_fft=50, hop=50,
                                           center=False, log=False)}
    batch = make_batch({"image": frames, "sound": sound}, np.zeros(8))
    inputs = jax.jit(transform.make_transform({}, {}, sections))(KEY, batch)["inputs"]
    began = inputs["image"][:, 0, 0, 0, 0] * 255 / 10                       # s
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(50) / 50)
    level = inputs["sound"][:, 0, 0] * 32768 / window.sum() / 20 / 100      # s, of the first column
    np.testing.assert_allclose(level, began + 0.25, atol=0.07)
    assert np.ptp(began) > 1


def test_a_second_cut_is_as_far_from_the_first_as_asked_for_and_else_alike():
    """Sound of 3 s that counts time, cut to 1 s: half a second or more away, and augmented as the first."""
    sound = np.broadcast_to((20 * np.arange(300)).astype(np.int16), (200, 300))
    sections = {"sound": SpectrogramConfig(rate=100, seconds=3, crop_seconds=1, n_fft=50, hop=50, center=False,
                                           log=False, preemphasis=0.0)}
    batch = make_batch({"sound": sound}, np.zeros(200))
    apply = transform.make_transform({}, {}, sections)
    first, second = (jax.jit(lambda more=more: apply(KEY, batch | more))()["inputs"]["sound"][:, 0, 0] * 32768
                     / (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(50) / 50)).sum() / 20 / 100
                     for more in ({}, {"view": {"apart": 0.5}}))
    assert np.abs(second - first).min() > 0.48      # of cuts that begin 0.5 s apart, to a sample
    assert (second < first).any() and (second > first).any()
    masked = transform.make_transform({}, {"sound": AugmentConfig(time_mask=2)}, sections)
    silent = [np.asarray(masked(KEY, batch | more)["inputs"]["sound"] == 0).all(axis=1)
              for more in ({}, {"view": {"apart": 0.5}})]
    np.testing.assert_array_equal(*silent)
    assert silent[0].any()


def test_mel_spectrograms_are_masked_by_time_along_their_first_axis():
    section = SpectrogramConfig(rate=1000, seconds=1, n_fft=64, hop=32, mels=8)
    sound = np.random.default_rng(0).integers(-9999, 9999, (4, 1000)).astype(np.int16)
    apply = transform.make_transform({}, {"sound": AugmentConfig(time_mask=9)}, {"sound": section})
    found = np.asarray(apply(KEY, make_batch({"sound": sound}, np.zeros(4)))["inputs"]["sound"])
    assert found.shape == (4, 32, 8)
    silent = (found == 0).all(axis=2)                   # whole columns of the sound
    np.testing.assert_array_equal((found == 0).any(axis=2), silent)
    assert silent.any() and silent.sum(axis=1).max() <= 9


def test_normalisation_is_given_or_that_of_the_processed_training_data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 6, 6, 3)).astype(np.uint8)
    batch = make_batch({"image": images, "sound": rng.normal(2, 3, (40, 2)), "text": np.ones((40, 5), np.int32),
                        "flow": images}, np.zeros(40))
    sections = {"image": FramesConfig(height=6, width=6, size=6), "text": TextConfig(),
                "flow": FramesConfig(mean=(0.5,), std=(2, 2, 1))}
    found = transform.normalisation(batch, sections)
    assert sorted(found) == ["flow", "image", "sound"]
    np.testing.assert_allclose(found["image"][0], images.mean((0, 1, 2)) / 255, rtol=1e-5)
    np.testing.assert_allclose(found["image"][1], images.std((0, 1, 2)) / 255, rtol=1e-5)
    np.testing.assert_allclose(found["sound"][0], batch["inputs"]["sound"].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(found["flow"][1], [2, 2, 1])


PATTERN = np.array([[0, 3], [1, 1], [2, 0], [5, 4]])     # of which all cases are an offset and a scale


@pytest.mark.parametrize("dtype, offset, scale", [
    ("i1", -128, 1), ("u1", 250, 1), ("i2", -30000, 1), ("u2", 65000, 1), ("i4", 2**30, 1),
    ("u4", 2**32 - 9, 1), ("i8", 2**60, 1), ("i8", -2**63, 1), ("u8", 2**64 - 9, 1),
    ("i8", -5 * 10**17, 10**18), ("f2", 2000, 1), ("f4", 0, 1e-9), ("f4", 2**-14, 2**-30), ("f4", 0, 1e-39),
    ("f4", 0, 5e37), ("f4", 2**23, 1), ("f8", 1.7e9, 1), ("f8", 1.7e9, 2**-9), ("f8", 0, 1e-100),
    ("f8", 0, 1e100), ("f8", 1e-7, 1e-15), ("g", 2**60, 1), (">f8", 1.7e9, 1), (">f4", 0, 1), (">i2", 300, 1),
])
def test_whatever_the_type_and_scale_the_encoder_gets_the_same(dtype, offset, scale):
    """Numbers of every type, as far from zero and as close together as it holds."""
    if np.dtype(dtype).kind == "f":
        x = (np.longdouble(offset) + np.longdouble(scale) * PATTERN).astype(dtype)
    else:
        x = np.array([[offset + scale * int(v) for v in row] for row in PATTERN], dtype)
    batch = make_batch({"x": np.repeat(x, 2, axis=0)[::2]}, np.zeros(4, int))     # not contiguous
    norms = transform.normalisation(batch, {})
    wide = transform.on_host(batch["inputs"], norms, {})
    apply = transform.make_transform({m: norm for m, norm in norms.items() if m not in wide})
    found = apply(None, transform.normalise(batch, wide))["inputs"]["x"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (PATTERN - PATTERN.mean(0)) / PATTERN.std(0),
                               rtol=0, atol=4e-6)


def test_ordinary_numbers_are_normalised_on_the_device():
    rng = np.random.default_rng(0)
    inputs = {"image": rng.integers(0, 255, (9, 4, 4), np.uint8), "flags": rng.random((9, 2)) > 0.5,
              "sound": rng.normal(3, 2, (9, 2)).astype(np.float32), "wide": rng.normal(3, 2, (9, 2)),
              "text": np.ones((9, 4), np.int32), "flow": rng.integers(0, 9, (9, 4, 4, 2))}
    batch = make_batch(inputs, np.zeros(9))
    sections = {"text": TextConfig(), "flow": FramesConfig(height=4, width=4, size=4)}
    norms = transform.normalisation(batch, sections)
    assert list(transform.on_host(batch["inputs"], norms, sections)) == ["wide"]


def test_rows_read_on_demand_are_normalised_as_arrays_are():
    x = 1.7e9 + PATTERN
    rows = Rows(list(x), lambda record, position: record, (2,), x.dtype, 0)
    norms = {"x": (np.float64([1.7e9, 1.7e9]), np.float64([1, 2]))}
    lazy, plain = (transform.normalise(make_batch({"x": part}, np.zeros(4)), norms)["inputs"]["x"]
                   for part in (rows, x))
    np.testing.assert_array_equal(plain, PATTERN / np.float32([1, 2]))
    np.testing.assert_array_equal(lazy[np.arange(4)], plain)


def test_what_is_too_far_away_for_float32_is_refused_unless_missing():
    norms = {"x": (np.zeros(1), np.ones(1))}
    batch = make_batch({"x": np.array([[1.0], [1e39]])}, [0, 0])
    with pytest.raises(UserError, match="x: row 1 is too far"):
        transform.normalise(batch, norms)
    batch["present"]["x"][1] = False
    assert transform.normalise(batch, norms)["inputs"]["x"][0] == 1


def dense_batch(rows=40, height=6, width=8):
    """Every pixel has its own number, in all inputs alike; class numbers from -1 on."""
    number = np.arange(height * width).reshape(height, width)
    maps = np.broadcast_to(number, (rows, height, width))
    batch = make_batch({"colour": np.repeat(maps[..., None], 3, -1).astype(np.uint8), "depth": maps.astype(np.uint16),
                        "classes": maps.astype(np.int16) - 1}, np.zeros(rows, np.int32))
    return with_target(batch, "classes")


def test_the_target_of_a_segmentation_becomes_the_label():
    batch = dense_batch(2)
    apply = transform.make_transform({"depth": (1.0, 2.0)}, dense=transform.Dense("classes", 1.4))
    found = apply(None, batch)
    assert sorted(found["inputs"]) == sorted(found["present"]) == ["colour", "depth"]
    assert found["label"].dtype == np.int32
    np.testing.assert_array_equal(found["label"], batch["inputs"]["classes"])
    np.testing.assert_array_equal(found["inputs"]["depth"], (batch["inputs"]["depth"] - 1.0) / 2)
    unlabelled = {part: {m: batch[part][m] for m in ("colour", "depth")} for part in ("inputs", "present")}
    np.testing.assert_array_equal(apply(None, batch | unlabelled)["label"], batch["label"])


def test_all_inputs_of_a_segmentation_are_zoomed_cut_and_mirrored_alike():
    batch = dense_batch()
    apply = jax.jit(transform.make_transform({}, dense=transform.Dense("classes", 1.4)))
    found = apply(KEY, batch)
    label, depth, colour = map(np.asarray, (found["label"], found["inputs"]["depth"], found["inputs"]["colour"]))
    np.testing.assert_array_equal(depth, label + 1)             # nearest pixels, the same ones
    interior = np.s_[:, 1:-1, 1:-1]     # where no border pixel is extended, bilinear is off by half a pixel at most
    assert np.abs(colour[..., 0] - depth)[interior].max() <= (8 + 1) / 2
    assert not np.array_equal(colour[..., 0], depth)            # which maps are not
    mirrored = (np.diff(depth.astype(int), axis=2).sum((1, 2)) < 0)
    assert 0.2 < mirrored.mean() < 0.8
    assert len({x.tobytes() for x in depth}) > 20 and 0 < depth.min(axis=(1, 2)).max()
    part = apply(KEY, take(batch, np.array([7, 3])))["label"]
    np.testing.assert_array_equal(part, label[[7, 3]])          # by key and id alone


def test_holes_of_a_map_stay_zero():
    maps = np.array([[[0, 5], [1, 0]]], np.uint16)
    batch = make_batch({"raw": maps, "filled": maps}, [0])
    sections = {m: MapConfig(height=2, width=2, holes=m == "raw", mean=(1.0,), std=(2.0,)) for m in ("raw", "filled")}
    norms = transform.normalisation(batch, sections)
    found = transform.make_transform(norms, {}, sections)(None, batch)["inputs"]
    np.testing.assert_array_equal(found["raw"], [[[0, 2], [0, 0]]])
    np.testing.assert_array_equal(found["filled"], [[[-0.5, 2], [0, -0.5]]])
