import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.encoders.decoder import adaptive_mean, esanet_decoder, nearest, upsample, upsample_init
from jaxmm.errors import UserError


def test_upsampling_of_ones_by_hand():
    """The kernel at the start is bilinear, and zeros stand around the map."""
    y = np.asarray(upsample(upsample_init(2), jnp.ones((1, 2, 2, 2))))[0, ..., 1]
    edge = [0.75, 1, 1, 0.75]
    np.testing.assert_array_equal(y, np.outer(edge, edge))
    assert y[0, 0] == 0.5625 and y[0, 1] == 0.75 and y[1, 1] == 1


def test_upsampling_and_its_gradients_are_those_of_pytorch():
    truth = np.load(pathlib.Path(__file__).with_name("kernels.npz"))
    x = truth["input/upsample/map"].transpose(0, 2, 3, 1)
    params = {"kernel": truth["weights/upsample.conv.weight"][:, 0].transpose(1, 2, 0),
              "bias": truth["weights/upsample.conv.bias"]}

    def close(found, expected, tolerance=1e-5):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())

    close(upsample(upsample_init(3), x), truth["output/upsample/initial"].transpose(0, 2, 3, 1))
    close(upsample(params, x), truth["output/upsample/learned"].transpose(0, 2, 3, 1))
    grads, map_gradient = jax.jit(jax.grad(lambda p, x: (upsample(p, x) ** 2).sum(), (0, 1)))(params, x)
    close(map_gradient, truth["output/upsample/gradient_map"].transpose(0, 2, 3, 1), 1e-4)
    close(grads["kernel"], truth["output/upsample/gradient_weight"][:, 0].transpose(1, 2, 0), 1e-4)
    close(grads["bias"], truth["output/upsample/gradient_bias"], 1e-4)


def test_bins_that_divide_a_map_by_hand():
    """5 x 5 bins of 15 x 20 numbers that count row by row: of 3 rows and 4 columns each."""
    x = jnp.arange(300.0).reshape(1, 15, 20, 1)
    np.testing.assert_allclose(adaptive_mean(x, 5)[0, 0, :2, 0], [21.5, 25.5])
    np.testing.assert_allclose(adaptive_mean(x, 1), [[[[149.5]]]], rtol=1e-6)


@pytest.mark.parametrize("height, width", [(7, 9), (2, 3), (1, 11)])
def test_bins_that_overlap_and_their_places(height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    ends = [[(i * n // 5, -(-(i + 1) * n // 5)) for i in range(5)] for n in (height, width)]
    expected = np.array([[x[:, a:b, c:d].mean((1, 2)) for c, d in ends[1]] for a, b in ends[0]])
    found = adaptive_mean(x, 5)
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1, 3), rtol=1e-5, atol=1e-6)
    rows, columns = (np.arange(n) * 5 // n for n in (height, width))
    np.testing.assert_array_equal(nearest(found, (height, width)), np.asarray(found)[:, rows][:, :, columns])


def shapes(height, width, strides=(2, 4, 8, 16, 32), channels=(8, 8, 16, 32, 64)):
    return {"a": [(1, height, width, 3), *((1, -(-height // s), -(-width // s), c) for s, c in zip(strides, channels))]}


@pytest.mark.parametrize("width, first", [(0, 64), (24, 24)])
def test_widths_follow_from_the_last_stage_and_halve(width, first):
    """A map that has the width of the module it is added behind is added as it is."""
    decoder = esanet_decoder("a", width, blocks=1)
    found = shapes(64, 96)
    params, stats = jax.eval_shape(lambda key: decoder.init(key, found), jax.random.key(0))
    assert {name for name in params if "skip" in name} == {"skip_0", "skip_1", "skip_2"}
    taps = {"a": [jax.ShapeDtypeStruct(s, np.float32) for s in found["a"][1:]]}
    maps, _ = jax.eval_shape(lambda p, s, t: decoder.apply(p, s, t, train=True), params, stats, taps)
    assert {name: x.shape[1:] for name, x in maps.items()} == {
        "side_32": (2, 3, first), "side_16": (4, 6, first // 2), "side_8": (8, 12, first // 4),
        "fused": (16, 24, first // 4)}
    params, _ = jax.eval_shape(lambda key: esanet_decoder("a", 32, 0).init(key, found), jax.random.key(0))
    assert not {name for name in params if "skip" in name}


@pytest.mark.parametrize("found, made", [
    (shapes(240, 320), "120 x 160, 60 x 80, 30 x 40, 15 x 20, 8 x 10 of 240 x 320 pixels"),
    (shapes(64, 64, (1, 1, 2, 4, 8)), "64 x 64, 64 x 64, 32 x 32, 16 x 16, 8 x 8 of 64 x 64"),
    (shapes(64, 64, (2, 4, 8)), "32 x 32, 16 x 16, 8 x 8 of 64 x 64"), ({"a": [(1, 64, 64, 3)]}, "none of 64 x 64")])
def test_maps_that_do_not_fit(found, made):
    with pytest.raises(UserError, match=made) as error:
        esanet_decoder("a").init(jax.random.key(0), found)
    assert "\n" not in str(error.value) and "multiples of 32" in str(error.value)
