import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.encoders import make_encoder
from jaxmm.encoders.exchange import lateral_add
from jaxmm.encoders.video import slow_frames
from jaxmm.errors import UserError

KEY = jax.random.key(0)


def count(init, key, x):
    """Parameters that init(key, x) -> (parameters, statistics) makes; x is an array, or shapes by name."""
    if isinstance(x, dict):
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: init(key, x))[0]))
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, key, x)[0]))


@pytest.mark.parametrize("name, size", [     # torchvision's and PySlowFast's, less the last layer
    ("resnet3d18", 33_166_272), ("slow50", 31_634_496), ("slowfast50", 33_644_488), ("slowfast101", 61_904_968)])
def test_networks_have_the_parameters_of_the_published_ones(name, size):
    assert count(make_encoder(EncoderConfig(name), 4).init, KEY, jnp.zeros((1, 8, 32, 32, 3))) == size


def test_the_parts_of_avslowfast_have_the_parameters_of_the_published_ones():
    clips, sound = jnp.zeros((1, 8, 32, 32, 3)), jnp.zeros((1, 128, 80))
    video = jax.eval_shape(make_encoder(EncoderConfig("avslowfast50"), 4).init, KEY, clips)[0]
    parts = {part: sum(x.size for name, tree in video.items() if name.startswith(part) for x in jax.tree.leaves(tree))
             for part in ("slow", "fast", "lateral")}
    assert parts == {"slow": 32_781_376, "fast": 514_152, "lateral": 287_488}
    assert count(make_encoder(EncoderConfig("separable50"), 2).init, KEY, sound) == 6_124_032
    exchange = lateral_add((2, 3), "video")
    assert sum(count(exchange.init, KEY, {"video": (1, 8, *maps, channels), "audio": audio})
               for maps, channels, audio in (((28, 28), 640, (1, 64, 40, 256)), ((14, 14), 1280, (1, 32, 20, 512)))
               ) == 864_256
    params, _ = jax.eval_shape(make_encoder(EncoderConfig("avslowfast101"), 4).init, KEY, clips)
    both = sum(x.size for x in jax.tree.leaves(params)) + count(
        make_encoder(EncoderConfig("separable101"), 2).init, KEY, sound)
    assert both + 864_256 + (2048 + 256 + 1024 + 1) * 400 == 75_010_744


@pytest.mark.parametrize("name, features", [("resnet3d18", 512), ("slow14", 2048), ("slowfast14", 2304)])
def test_features_are_as_wide_as_the_published_ones(name, features):
    def run(x, **options):
        encoder = make_encoder(EncoderConfig(name, **options), 4)
        return encoder.apply(*encoder.init(KEY, x), x, train=True)[0]

    x = jnp.zeros((1, 8, 32, 32, 3))
    assert jax.eval_shape(run, x).shape == (1, features)
    assert jax.eval_shape(functools.partial(run, features=7), x).shape == (1, 7)


def test_the_slow_pathway_sees_the_frames_of_pyslowfast():
    assert slow_frames(np.arange(32)[None])[0].tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    with pytest.raises(UserError, match="found clips of 6 frames, expected a multiple of 4"):
        slow_frames(np.zeros((1, 6)))


@functools.cache
def clips():
    return np.random.default_rng(3).standard_normal((3, 4, 16, 16, 3), np.float32)


@functools.cache
def made(name):
    encoder = make_encoder(EncoderConfig(name, width=8), 4)
    params, stats = encoder.init(KEY, clips())
    # Blocks of slow pathways begin as their skip connections; the others would not show.
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: x + 0.5 if path[-1].key == "scale" else x, params)
    return encoder, params, stats, jax.jit(functools.partial(encoder.apply, train=False))


@pytest.mark.parametrize("name", ["resnet3d18", "slow14", "slowfast14"])
def test_motion_counts_and_examples_do_not_mix(name):
    _, params, stats, apply = made(name)
    features = apply(params, stats, clips())[0]
    assert features.dtype == jnp.float32
    shuffled = apply(params, stats, clips()[:, [2, 0, 3, 1]])[0]
    assert np.abs(shuffled - features).max() > 1e-3 * np.abs(features).max()
    turned = apply(params, stats, clips()[::-1])[0]
    np.testing.assert_allclose(turned[::-1], features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet3d18", "slow14", "slowfast14"])
def test_stages_one_after_the_other_are_the_encoder(name):
    encoder, params, stats, apply = made(name)

    @jax.jit
    def chain(params, stats, x):
        for stage in (*encoder.stages, encoder.pool):
            x, stats = stage(params, stats, x, train=False)
        return x

    assert len(encoder.stages) == 5
    np.testing.assert_allclose(chain(params, stats, clips()), apply(params, stats, clips())[0], rtol=1e-5, atol=1e-6)


def test_blocks_begin_as_their_skip_connections():
    encoder = make_encoder(EncoderConfig("slow14", width=8), 4)
    params, _ = jax.jit(encoder.init)(KEY, clips())
    for stage in range(1, 5):
        norms = params[f"slow_{stage}"]["block_0"]
        assert not norms["BatchNorm_2"]["scale"].any() and norms["BatchNorm_3"]["scale"].all()


@pytest.mark.parametrize("name", ["resnet3d18", "slow14", "slowfast14", "separable14"])
def test_remat_keeps_less_and_bfloat16_is_of_the_inside_alone(name):
    """By shapes and types alone: what stays for the backward pass besides the parameters, and what comes out.

    The stem is not computed again, and most of what a small network keeps are the patches of its convolution.
    """
    x = jnp.zeros((2, 64, 32) if name == "separable14" else (2, 8, 64, 64, 3))
    kept = []
    for remat in (False, True):
        encoder = make_encoder(EncoderConfig(name, width=8, remat=remat, dtype="bfloat16"), x.ndim - 1)
        params, stats = jax.eval_shape(encoder.init, KEY, x)
        features, pull, updated = jax.eval_shape(lambda params, stats, encoder=encoder: jax.vjp(
            lambda p: encoder.apply(p, stats, x, train=True), params, has_aux=True), params, stats)
        assert {s.dtype for s in jax.tree.leaves((params, features, updated))} == {jnp.dtype("float32")}
        residuals = jax.tree.leaves(pull)
        kept.append(sum(s.size for s in residuals if s.dtype == jnp.bfloat16))
    assert 0 < kept[1] < kept[0] - sum(s.size for s in jax.tree.leaves(params)) / 4


def test_what_is_added_keeps_the_type_of_maps():
    exchange = lateral_add((2, 3), "video")
    maps = {"video": jnp.zeros((3, 2, 4, 4, 8), jnp.bfloat16), "audio": jnp.zeros((3, 8, 4, 8), jnp.bfloat16)}
    params, stats = exchange.init(KEY, {m: x.shape for m, x in maps.items()})
    present = dict.fromkeys(maps, jnp.ones(3, bool))
    found, updated = jax.eval_shape(functools.partial(exchange.apply, train=True, mean=None), params, stats, maps,
                                    present)
    assert {x.dtype for x in found.values()} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in jax.tree.leaves((params, updated))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("options, rank, message", [
    ({"name": "slow50"}, 3, "'slow50': found examples of rank 3"),
    ({"name": "slowfast50", "width": 12}, 4, "width=12; 'slowfast50' needs a multiple of 8")])
def test_what_does_not_fit(options, rank, message):
    with pytest.raises(UserError, match=message):
        make_encoder(EncoderConfig(**options), rank)
