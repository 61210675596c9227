import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(8, 3, 8, 8, 2)).astype(np.float32)
CNN = EncoderConfig("cnn", width=4, depth=2, features=6)


@functools.cache
def built(rank, name="cnn", **options):
    """An encoder with its parameters, and its jitted `apply`."""
    options = {"width": 4, "depth": 2, "features": 6} | options
    encoder = make_encoder(EncoderConfig(name, **options), rank)
    x = {2: FRAMES[:, 0, :, :, 0], 3: FRAMES[:, 0], 4: FRAMES}[rank]
    return encoder.init(KEY, x), jax.jit(encoder.apply, static_argnames="train"), x


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_mlp_is_dense_relu_layers_over_the_flattened_example():
    encoder = make_encoder(EncoderConfig("auto", width=5, depth=2, features=3), 1)
    x = RNG.normal(size=(4, 7)).astype(np.float32)
    params, batch_stats = encoder.init(KEY, x)
    features, updated = encoder.apply(params, batch_stats, x, train=True)
    hidden = x
    for layer in params["Dense_0"], params["Dense_1"]:
        hidden = np.maximum(hidden @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(features, hidden, rtol=1e-5, atol=1e-6)
    assert features.shape == (4, 3) and batch_stats == updated == {}
    image = make_encoder(EncoderConfig("mlp", width=5, depth=2, features=3), 2)
    folded, _ = image.apply(params, {}, x.reshape(4, 7, 1), train=False)
    np.testing.assert_allclose(folded, features, rtol=1e-6)


def test_identity_is_the_flattened_example_without_parameters():
    encoder = make_encoder(EncoderConfig("identity"), 2)
    x = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    assert encoder.init(KEY, x) == ({}, {})
    features, batch_stats = encoder.apply({}, {}, x, train=True)
    np.testing.assert_array_equal(features, x.reshape(2, 12))
    assert batch_stats == {}


def test_mlp_default_sizes():
    params = jax.eval_shape(make_encoder(EncoderConfig(), 1).init, KEY, np.zeros((2, 10)))[0]
    assert size(params) == 10 * 128 + 128 + 2 * (128 * 128 + 128)


@pytest.mark.parametrize("stem, channels, expected", [
    ("standard", 3, 11_176_512),                        # torchvision's, without its last layer
    ("small", 1, 11_176_512 - 49 * 3 * 64 + 9 * 64)])
def test_resnet18_has_the_parameters_of_torchvision(stem, channels, expected):
    encoder = make_encoder(EncoderConfig("resnet18", stem=stem), 3)
    x = jnp.zeros((1, 32, 32, channels))
    params, batch_stats = jax.eval_shape(encoder.init, KEY, x)
    assert size(params) == expected
    assert size(batch_stats) == 2 * 4800                # one mean and variance a channel
    apply = functools.partial(encoder.apply, train=True)
    features, _ = jax.eval_shape(apply, params, batch_stats, x)
    assert features.shape == (1, 512)


def test_resnet18_width_and_features():
    encoder = make_encoder(EncoderConfig("resnet18", width=2, features=5), 3)
    params, _ = jax.eval_shape(encoder.init, KEY, FRAMES[:, 0])
    assert params["Dense_0"]["kernel"].shape == (16, 5)
    encoder = make_encoder(EncoderConfig("resnet18", width=2, features=16), 3)
    assert "Dense_0" not in jax.eval_shape(encoder.init, KEY, FRAMES[:, 0])[0]


def test_frames_give_the_mean_of_the_features_of_single_frames():
    (params, batch_stats), apply, _ = built(3)
    video = built(4)[1]
    mean = np.mean([apply(params, batch_stats, FRAMES[:, t], train=False)[0] for t in range(3)], 0)
    features, _ = video(params, batch_stats, FRAMES, train=False)
    np.testing.assert_allclose(features, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_masked_rows_change_neither_statistics_nor_other_rows(rank):
    (params, batch_stats), apply, x = built(rank)
    mask = np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)
    features, stats = apply(params, batch_stats, x, train=True, mask=mask)
    few, few_stats = apply(params, batch_stats, x[mask], train=True)
    np.testing.assert_allclose(features[mask], few, rtol=1e-4, atol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
                 stats, few_stats)


def test_no_row_leaves_statistics_and_stays_finite():
    (params, batch_stats), apply, x = built(3)
    features, stats = apply(params, batch_stats, x, train=True, mask=np.zeros(8, bool))
    assert np.isfinite(features).all()
    jax.tree.map(np.testing.assert_array_equal, stats, batch_stats)


def test_training_moves_the_statistics_and_evaluation_does_not():
    (params, batch_stats), apply, x = built(3)
    trained = apply(params, batch_stats, x, train=True)[1]
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), trained, batch_stats)))
    evaluated = apply(params, trained, x, train=False)[1]
    jax.tree.map(np.testing.assert_array_equal, evaluated, trained)


def test_bfloat16_computes_near_float32_and_keeps_float32_state():
    (params, batch_stats), apply, x = built(3)
    (params16, _), apply16, _ = built(3, dtype="bfloat16")
    jax.tree.map(np.testing.assert_array_equal, params16, params)
    features, stats = apply16(params, batch_stats, x, train=True)
    expected, _ = apply(params, batch_stats, x, train=True)
    assert features.dtype == jnp.float32 and (features != expected).any()
    np.testing.assert_allclose(features, expected, atol=0.02 * np.abs(expected).max())
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("rank, name, shapes", [
    (2, "cnn", [(8, 4, 4, 4), (8, 2, 2, 8)]), (4, "cnn", [(8, 3, 4, 4, 4), (8, 3, 2, 2, 8)]),
    (3, "mlp", [(8, 4), (8, 6)])])
def test_a_chain_of_stages_is_the_encoder(rank, name, shapes):
    (params, batch_stats), _, x = built(rank, name)
    encoder = make_encoder(EncoderConfig(name, width=4, depth=2, features=6), rank)
    options = {"train": True, "mask": np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)}

    @jax.jit
    def both(x):
        y, stats, taps = x, batch_stats, []
        for stage in encoder.stages:
            y, stats = stage(params, stats, y, **options)
            taps.append(y)
        return taps, encoder.pool(params, stats, y, **options), encoder.apply(
            params, batch_stats, x, **options)

    taps, chained, whole = both(x)
    assert [tap.shape for tap in taps] == shapes
    chex.assert_trees_all_close(chained, whole, rtol=1e-6, atol=1e-6)


def test_stages_of_a_resnet():
    """The stem before its max-pool, then four stages, which are those of torchvision."""
    encoder = make_encoder(EncoderConfig("resnet18", width=2, stem="standard"), 3)
    x, shapes = jax.ShapeDtypeStruct((2, 64, 96, 3), np.float32), []
    params, stats = jax.eval_shape(encoder.init, KEY, x)
    for stage in encoder.stages:
        x, stats = jax.eval_shape(functools.partial(stage, train=True), params, stats, x)
        shapes.append(x.shape[1:])
    assert shapes == [(32, 48, 2), (16, 24, 2), (8, 12, 4), (4, 6, 8), (2, 3, 16)]
    features, _ = jax.eval_shape(functools.partial(encoder.pool, train=True), params, stats, x)
    assert features.shape == (2, 16)


def test_eight_devices_are_one():
    (params, batch_stats), apply, x = built(3)
    mask = np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)
    features, stats = apply(params, batch_stats, x, train=True, mask=mask)
    encoder = make_encoder(CNN, 3, axis_name="device")
    sharded, sharded_stats = jax.pmap(
        lambda x, mask: encoder.apply(params, batch_stats, x, train=True, mask=mask),
        axis_name="device")(x[:, None], mask[:, None])
    np.testing.assert_allclose(sharded[:, 0], features, rtol=1e-4, atol=1e-5)
    for leaf, sharded_leaf in zip(jax.tree.leaves(stats), jax.tree.leaves(sharded_stats)):
        np.testing.assert_allclose(sharded_leaf, np.tile(leaf, (8, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options, rank, message", [
    ({"name": "unet"}, 3, "encoder: found 'unet'; expected one of auto, mlp, cnn, resnet18, resnet34, resnet50, esanet18, esanet34, resnet3d18, slow14, slow50, slow101, slowfast14, slowfast50, slowfast101, avslowfast14, avslowfast50, avslowfast101, separable14, separable50, separable101, transformer, m3ae, cav_mae, clip, vit, mae, dinov2, identity"),
    ({"conv": "fft"}, 3, "conv: found 'fft'; expected one of auto, xla, matmul"),
    ({"stem": "big"}, 3, "stem: found 'big'; expected one of standard, small"),
    ({"dtype": "float16"}, 3, "dtype: found 'float16'; did you mean bfloat16? Expected one of float32, bfloat16"),
    ({"name": "cnn"}, 1, "encoder 'cnn': found examples of rank 1, expected one of (2, 3, 4)"),
    ({"name": "mlp"}, 5, "encoder 'mlp': found examples of rank 5, expected one of (1, 2, 3, 4)"),
    ({"depth": 0}, 3, "encoder depth=0; expected a number of at least 1"),
    ({"width": -4}, 3, "encoder width=-4")])
def test_mistakes_are_one_line_that_lists_the_choices(options, rank, message):
    with pytest.raises(UserError) as error:
        make_encoder(EncoderConfig(**options), rank)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "transformer"])
def test_remat_keeps_less_and_gives_the_same_gradients(name):
    x, kept, gradients = FRAMES[:, 0], [], []
    for remat in (False, True):
        encoder = make_encoder(EncoderConfig(name, width=4, depth=1, features=6, patch=4,
                                             remat=remat), 3)
        params, batch_stats = jax.tree.map(
            lambda s: jnp.sin(jnp.arange(np.prod(s.shape), dtype=s.dtype)).reshape(s.shape) / 2,
            jax.eval_shape(encoder.init, KEY, x))

        def loss(params, encoder=encoder, batch_stats=batch_stats):
            features, updated = encoder.apply(params, batch_stats, x, train=True)
            return (features ** 2).mean(), updated

        residuals = jax.eval_shape(lambda p, f=loss: jax.vjp(f, p, has_aux=True)[1], params)
        kept.append(size(residuals))
        if name != "resnet18":      # which takes long to compile
            gradients.append(jax.jit(jax.grad(loss, has_aux=True))(params))
    assert kept[1] < 0.7 * kept[0]
    if gradients:
        chex.assert_trees_all_close(*gradients, rtol=1e-5, atol=1e-6)


def test_remat_is_for_networks_of_layers():
    with pytest.raises(UserError, match="remat: 'mlp' keeps little.*cnn, resnet18, .*transformer"):
        make_encoder(EncoderConfig("mlp", remat=True), 1)
