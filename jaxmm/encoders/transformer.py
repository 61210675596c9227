"""Networks without convolutions: transformers over words or patches, and bags of words.

Texts are token ids, int32 [B, L], 0 where there is none (padding).
"""
from flax import linen as nn
import jax.numpy as jnp

HEAD_SIZE = 64          # channels of an attention head, at least

small_normal = nn.initializers.normal(0.02)
he_normal = nn.initializers.he_normal()


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


class Transformer(nn.Module):
    """A transformer encoder (Vaswani et al., 2017), normalised before each layer.

    Token ids [B, L], or images [B, H, W, C] cut into patches as a vision transformer does
    (Dosovitskiy et al., 2021). Positions are learned. The output [B, width], or a Dense layer of
    `features` more, is the mean over positions; padding is neither attended to nor averaged.
    """
    width: int
    depth: int
    features: int = 0
    patch: int = 0          # side of a patch; 0: see `patch_size`
    num_tokens: int = 0     # ids are below it; 0 for images
    dtype: str = "float32"
    remat: bool = False     # compute the inside of blocks again in the backward pass

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        make_block = nn.remat(Block) if self.remat else Block
        if self.num_tokens:
            there = x != 0
            x = nn.Embed(self.num_tokens, self.width, dtype=self.dtype,
                         embedding_init=small_normal)(x)
        else:
            x = nn.Dense(self.width, dtype=self.dtype)(
                patches(x, self.patch or patch_size(*x.shape[1:3])))
            there = jnp.ones(x.shape[:2], bool)
        positions = self.param("positions", small_normal, x.shape[1:], jnp.float32)
        x = x + positions.astype(x.dtype)
        for layer in range(self.depth):
            x = make_block(num_heads(self.width), self.dtype, name=f"Block_{layer}")(x, there)
        x = masked_mean(nn.LayerNorm(dtype=self.dtype)(x), there)
        return nn.Dense(self.features, dtype=self.dtype)(x) if self.features else x


class Block(nn.Module):
    """Self-attention and a two-layer network, each with a skip connection: [B, L, width]."""
    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x, there):
        y = nn.LayerNorm(dtype=self.dtype)(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(
            y, mask=there[:, None, None, :])
        y = nn.LayerNorm(dtype=self.dtype)(x)
        y = nn.gelu(nn.Dense(4 * x.shape[-1], dtype=self.dtype)(y))
        return x + nn.Dense(x.shape[-1], dtype=self.dtype)(y)


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
