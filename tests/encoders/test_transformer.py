import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.encoders import make_encoder
from jaxmm.encoders.transformer import attend, num_heads, patch_size, patches, pooled, sincos
from jaxmm.errors import UserError

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
TEXTS = np.array([[5, 3, 9, 0, 0], [1, 2, 3, 4, 5], [7, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.int32)
IMAGES = RNG.normal(size=(2, 5, 7, 3)).astype(np.float32)


@functools.cache
def built(name, text=True, **options):
    options = {"width": 8, "depth": 2, "features": 6} | options
    encoder = make_encoder(EncoderConfig(name, **options), 1 if text else 3,
                           num_tokens=10 if text else 0)
    params, _ = encoder.init(KEY, TEXTS if text else IMAGES)
    return params, jax.jit(lambda params, x: encoder.apply(params, {}, x, train=True)[0])


@pytest.mark.parametrize("name", ["bag", "transformer", "m3ae"])
def test_padding_changes_nothing_and_words_do(name):
    params, apply = built(name)
    features = apply(params, TEXTS)
    assert features.dtype == np.float32 and np.isfinite(features).all()
    # Neither the words nor the positions of padding matter: a shorter batch has the same features.
    positions = params.get("positions")
    shorter = params | ({} if positions is None else {"positions": positions[:3]})
    np.testing.assert_allclose(apply(shorter, TEXTS[:1, :3]), features[:1], rtol=1e-5, atol=1e-6)
    changed = TEXTS.copy()
    changed[0, 1] = 4
    assert not np.allclose(apply(params, changed)[0], features[0], atol=1e-4)


def test_bag_is_a_dense_layer_on_the_mean_embedding():
    params, apply = built("bag")
    mean = np.asarray(params["Embed_0"]["embedding"])[[5, 3, 9]].mean(0)
    expected = np.maximum(mean @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    np.testing.assert_allclose(apply(params, TEXTS)[0], expected, rtol=1e-5, atol=1e-6)


def test_bag_ignores_the_order_of_words_and_transformer_does_not():
    for name, same in ("bag", True), ("transformer", False):
        params, apply = built(name)
        order = apply(params, TEXTS[:, [2, 1, 0, 3, 4]])[0]
        assert np.allclose(order, apply(params, TEXTS)[0], rtol=1e-5, atol=1e-6) == same


def test_gradients_are_finite_even_for_empty_texts():
    params, apply = built("transformer")
    grads = jax.jit(jax.grad(lambda params: (apply(params, TEXTS) ** 2).sum()))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    moved = grads["Embed_0"]["embedding"].any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), np.unique(TEXTS[TEXTS > 0]))


def test_attention_is_softmax_of_scaled_products():
    """One block with its output computed by hand, from the layers' own parameters."""
    params, apply = built("transformer", depth=1, features=0)

    def norm(x, p):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * p["scale"] + p["bias"]

    block = params["Block_0"]
    x = np.asarray(params["Embed_0"]["embedding"])[TEXTS[1]] + params["positions"]
    y = norm(x, block["LayerNorm_0"])
    a = block["MultiHeadDotProductAttention_0"]
    q, k, v = (np.einsum("ld,dhe->lhe", y, a[n]["kernel"]) + a[n]["bias"]
               for n in ("query", "key", "value"))
    weights = np.exp(np.einsum("qhe,khe->hqk", q, k) / np.sqrt(8))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("hqk,khe->qhe", weights, v)
    x = x + np.einsum("qhe,hed->qd", mixed, a["out"]["kernel"]) + a["out"]["bias"]
    hidden = norm(x, block["LayerNorm_1"]) @ block["Dense_0"]["kernel"] + block["Dense_0"]["bias"]
    x = x + jax.nn.gelu(hidden) @ block["Dense_1"]["kernel"] + block["Dense_1"]["bias"]
    expected = norm(x, params["LayerNorm_0"]).mean(0)
    np.testing.assert_allclose(apply(params, TEXTS)[1], expected, rtol=1e-4, atol=1e-5)


def test_patches_hold_every_pixel_once():
    cut = np.asarray(patches(IMAGES, 4))
    assert cut.shape == (2, 4, 4 * 4 * 3)
    first, last = cut[:, 0].reshape(2, 4, 4, 3), cut[:, 3].reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(first, IMAGES[:, :4, :4])
    np.testing.assert_array_equal(last[:, :1, :3], IMAGES[:, 4:, 4:])
    assert not last[:, 1:].any() and not last[:, :, 3:].any()


def test_sizes():
    assert [patch_size(*shape) for shape in ((224, 224), (129, 626), (28, 28), (3, 9))] == [16, 16, 7, 1]
    assert [num_heads(width) for width in (768, 128, 6, 200)] == [12, 2, 1, 2]


def test_images_without_convolutions():
    params, apply = built("transformer", text=False, patch=4)
    assert params["positions"].shape == (4, 8) and "Conv" not in str(jax.tree.structure(params))
    moved = np.roll(IMAGES, 4, axis=2)
    assert not np.allclose(apply(params, IMAGES), apply(params, moved), atol=1e-3)


@pytest.mark.parametrize("name, rank, num_tokens, message", [
    ("cnn", 1, 10, "text encoder: found 'cnn'; expected one of auto, bag, transformer, m3ae, clip, bert"),
    ("bag", 1, 0, "encoder: found 'bag'"),
    ("transformer", 1, 0, r"encoder 'transformer': found examples of rank 1")])
def test_texts_and_the_rest_have_encoders_of_their_own(name, rank, num_tokens, message):
    with pytest.raises(UserError, match=message):
        make_encoder(EncoderConfig(name), rank, num_tokens=num_tokens)


def test_sines_and_cosines_of_places_by_hand():
    np.testing.assert_allclose(sincos((2,), 8)[1], [0.8415, 0.0998, 0.0100, 0.0010, 0.5403, 0.9950, 1, 1], atol=5e-5)
    grid = sincos((2, 3), 8)    # the column, then the row
    np.testing.assert_allclose(grid[1], [0.8415, 0.0100, 0.5403, 1, 0, 0, 1, 1], atol=5e-5)
    np.testing.assert_allclose(grid[3], [0, 0, 1, 1, 0.8415, 0.0100, 0.5403, 1], atol=5e-5)
    assert grid.shape == (6, 8)


def test_one_token_is_pooled_from_a_text():
    x, there = RNG.normal(size=(2, 4, 3)).astype(np.float32), np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)
    ids = np.array([[3, 9, 9], [1, 2, 8]])      # behind a vector that is no token
    np.testing.assert_array_equal(pooled(x, "end", there, ids), [x[0, 2], x[1, 3]])
    np.testing.assert_array_equal(pooled(x, "first", there, ids), x[:, 0])
    np.testing.assert_allclose(pooled(x, "mean", there, ids)[0], x[0, :3].mean(0), rtol=1e-6)
    np.testing.assert_allclose(pooled(x, "all", there, ids)[0], x[0].mean(0), rtol=1e-6)


def test_bfloat16_keeps_the_softmax_in_float32():
    """A sum of 1024 weights, each of which bfloat16 would round away beside it."""
    query = key = np.zeros((1, 1024, 1, 4), jnp.bfloat16)
    value = np.ones((1, 1024, 1, 4), jnp.bfloat16)
    text = str(jax.make_jaxpr(attend)(query, key, value))
    assert "exp" in text and "f32[1,1,1024,1024] = exp" in text
    assert attend(query, key, value).dtype == jnp.bfloat16


@pytest.mark.parametrize("name, num_tokens, options, message", [
    ("vit", 0, {"pool": "end"}, "encoder pool='end'; expected one of mean, all, first"),
    ("clip", 10, {"pool": "last"}, "encoder pool='last'; expected one of mean, all, first, end"),
    ("bert", 10, {"width": 30, "heads": 4}, "encoder heads=4 does not divide its width of 30"),
    ("m3ae", 0, {"width": 6}, "encoder width=6; 'm3ae' needs a multiple of 4"),
    ("cnn", 0, {"heads": 2}, "encoder heads: 'cnn' has none; it is for transformer, m3ae"),
    ("bag", 10, {"pool": "first"}, "encoder pool: 'bag' has none")])
def test_options_that_do_not_fit(name, num_tokens, options, message):
    with pytest.raises(UserError) as error:
        make_encoder(EncoderConfig(name, **options), 1 if num_tokens else 3, num_tokens=num_tokens)
    assert str(error.value).startswith(message)
