"""Networks without convolutions: transformers over words or patches, and bags of words.

Texts are token ids, int32 [B, L], 0 where there is none (padding).
"""
from collections.abc import Callable
import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.encoders.draws import he_normal, lecun_normal, small_normal

HEAD_SIZE = 64          # channels of an attention head, at least
POOLS = ("mean", "all", "first", "end")

exact_gelu = functools.partial(nn.gelu, approximate=False)


class Bag(nn.Module):
    """Token ids [B, L] -> mean embedding of the tokens of each text, Dense, ReLU: [B, features]."""
    num_tokens: int
    width: int
    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        words = nn.Embed(self.num_tokens, self.width, dtype=self.dtype)(x)
        return nn.relu(nn.Dense(self.features, dtype=self.dtype, kernel_init=he_normal)(
            masked_mean(words, x != 0)))


def quick_gelu(x):
    """GELU as CLIP has it."""
    return x * jax.nn.sigmoid(1.702 * x)


class Style(NamedTuple):
    """What tells the transformers of papers apart, besides their sizes."""
    width: int = 768                # of a network that no option gives one
    post: bool = False              # normalise after each skip connection, not before each layer
    activation: Callable = exact_gelu
    epsilon: float = 1e-6           # of the norms
    cls: bool = False               # a trained vector before the tokens
    sincos: bool = False            # fixed positions, and a trained vector `type` on every token
    norm_in: bool = False           # of what the first block gets
    norm_out: bool = True           # of what the last block puts out
    attends: str = "all"            # to all tokens; to what is "there"; "causal": to none after itself
    pool: str = "first"             # of POOLS: the mean of what is there or of all, the first token, or the
                                    # one at the end of a text, which has the highest id
    layer_scale: bool = False       # a trained factor for each channel of what a layer adds
    projection: int = 0             # size after a matrix on the pooled token; 0: there is none
    embed_bias: bool = True         # of the embedding of patches
    named: bool = True              # the layers, as below; else they have the names that flax gives


OWN = Style(128, activation=nn.gelu, attends="there", pool="mean", named=False)
M3AE = Style(activation=nn.gelu, cls=True, sincos=True, attends="there", pool="mean")
CLIP = Style(activation=quick_gelu, epsilon=1e-5, cls=True, norm_in=True, projection=512, embed_bias=False)
VIT = Style(cls=True, epsilon=1e-12)    # as of Hugging Face
STYLES = {      # by network and whether it reads texts
    ("transformer", False): OWN,
    ("transformer", True): OWN,
    ("m3ae", False): M3AE,
    ("m3ae", True): M3AE,
    ("cav_mae", False): Style(epsilon=1e-5, pool="mean"),
    ("clip", False): CLIP,
    ("clip", True): CLIP._replace(width=512, cls=False, norm_in=False, attends="causal", pool="end"),
    ("bert", True): Style(post=True, epsilon=1e-12, norm_in=True, norm_out=False, attends="there",
                          pool="mean"),
    ("vit", False): VIT,
    ("mae", False): VIT._replace(epsilon=1e-6),     # and ViTs of timm
    ("dinov2", False): VIT._replace(width=384, epsilon=1e-6, layer_scale=True),
}


class Transformer(nn.Module):
    """A transformer encoder (Vaswani et al., 2017) in the style of one of several papers.

    Token ids [B, L], or images [B, H, W, C] cut into patches as a vision transformer does (Dosovitskiy et
    al., 2021) -> [B, width], pooled from the tokens. `features` is the size of the style's projection, or
    else that of a Dense layer more.
    """
    style: Style
    width: int
    depth: int
    heads: int
    features: int = 0
    patch: int = 0          # side of a patch; 0: see `patch_size`
    num_tokens: int = 0     # ids are below it; 0 for images
    dtype: str = "float32"
    remat: bool = False     # compute the inside of blocks again in the backward pass

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        style, ids = self.style, x
        make_block, name = nn.remat(Block) if self.remat else Block, naming(style)

        def norm(which):
            return nn.LayerNorm(style.epsilon, dtype=self.dtype, name=name(which))

        def vectors(which, *shape):
            return self.param(which, small_normal, (*shape, self.width), jnp.float32).astype(self.dtype)

        if self.num_tokens:
            there, places = ids != 0, ids.shape[1:]
            x = nn.Embed(self.num_tokens, self.width, dtype=self.dtype, embedding_init=small_normal,
                         name=name("embed"))(ids)
        else:
            size = self.patch or patch_size(*x.shape[1:3])
            places = tuple(-(-side // size) for side in x.shape[1:3])
            x = nn.Dense(self.width, dtype=self.dtype, use_bias=style.embed_bias, kernel_init=lecun_normal,
                         name=name("embed"))(patches(x, size))
            there = jnp.ones(x.shape[:2], bool)
        if style.sincos:
            x = x + sincos(places, self.width).astype(x.dtype) + vectors("type")
        if style.cls:
            x = jnp.concatenate([jnp.broadcast_to(vectors("cls", 1), (x.shape[0], 1, self.width)), x], axis=1)
            there = jnp.pad(there, ((0, 0), (1, 0)), constant_values=True)
        if not style.sincos:
            x = x + vectors("positions", x.shape[1])
        if style.norm_in:
            x = norm("norm_in")(x)
        seen = {"all": None, "there": there[:, None, None, :],
                "causal": jnp.tri(x.shape[1], dtype=bool)[None, None]}[style.attends]
        for layer in range(self.depth):
            x = make_block(style, self.heads, self.dtype,
                           name=f"{'block' if style.named else 'Block'}_{layer}")(x, seen)
        if style.norm_out:
            x = norm("norm_out")(x)
        x = pooled(x, style.pool, there, ids)
        if style.projection:
            return nn.Dense(self.features or style.projection, use_bias=False, dtype=self.dtype,
                            kernel_init=lecun_normal, name="projection")(x)
        if self.features not in ((0, self.width) if style.named else (0,)):
            x = nn.Dense(self.features, dtype=self.dtype, kernel_init=lecun_normal, name=name("Dense_0"))(x)
        return x


class Block(nn.Module):
    """Self-attention and a two-layer network, each with a skip connection: [B, L, width]."""
    style: Style
    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x, seen):
        style, width, name = self.style, x.shape[-1], naming(self.style)

        def attention(x):
            return nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, kernel_init=lecun_normal, attention_fn=attend,
                                                   name=name("attention"))(x, mask=seen)

        def network(x):
            dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=lecun_normal)
            x = style.activation(dense(4 * width, name=name("expand"))(x))
            return dense(width, name=name("contract"))(x)

        for i, layer in enumerate((attention, network), 1):
            norm = nn.LayerNorm(style.epsilon, dtype=self.dtype, name=name(f"norm_{i}"))
            y = layer(x if style.post else norm(x))
            if style.layer_scale:
                y = y * self.param(f"scale_{i}", nn.initializers.ones, (width,), jnp.float32).astype(y.dtype)
            x = norm(x + y) if style.post else x + y
        return x


def naming(style: Style) -> Callable[[str], str | None]:
    """The name of a layer in the tree; None leaves it to flax."""
    return lambda name: name if style.named else None


def attend(query, key, value, mask=None):
    """Attention [B, L, heads, channels] by a softmax in float32."""
    weights = nn.dot_product_attention_weights(query, key, mask=mask, force_fp32_for_softmax=True)
    return jnp.einsum("...hqk,...khd->...qhd", weights.astype(value.dtype), value)


def pooled(x, how: str, there, ids):
    """One vector [B, D] of the tokens x [B, L, D]; see POOLS. The last tokens are those of the ids."""
    if how == "first":
        return x[:, 0]
    if how == "end":
        return x[jnp.arange(x.shape[0]), ids.argmax(axis=1) + x.shape[1] - ids.shape[1]]
    return masked_mean(x, there if how == "mean" else jnp.ones_like(there))


def sincos(shape: tuple[int, ...], width: int) -> np.ndarray:
    """Positions [L, width] of a text of shape (L,), or of the patches of an image (rows, columns).

    Sines, then cosines of place / 10000^(k / n), k = 0 .. n - 1; of an image the first half of the channels
    is for the column and the second for the row.
    """
    n = width // (2 * len(shape))
    angles = [places.reshape(-1, 1) / 10000 ** (np.arange(n) / n) for places in np.indices(shape)[::-1]]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def num_heads(width: int) -> int:
    """The largest number of heads of at least HEAD_SIZE channels (or 1) that divides the width."""
    return next(n for n in range(max(width // HEAD_SIZE, 1), 0, -1) if width % n == 0)


def patch_size(height: int, width: int) -> int:
    """16 pixels as in the paper, a fourth of the shorter side for images below 64 pixels."""
    return max(min(16, min(height, width) // 4), 1)


def patches(x, size: int):
    """Images [B, H, W, C], zero-padded to whole patches, as vectors [B, patches, size^2 C]."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))
    rows, columns = x.shape[1] // size, x.shape[2] // size
    x = x.reshape(batch, rows, size, columns, size, channels).swapaxes(2, 3)
    return x.reshape(batch, rows * columns, -1)


def masked_mean(x, there):
    """Mean of x [B, L, D] over the positions in `there` bool [B, L], in float32; 0 if none is."""
    weight = there[..., None].astype(jnp.float32)
    total = (x.astype(jnp.float32) * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
    return total.astype(x.dtype)
