"""Heads of segmentations: maps [B, h, w, s] of a decoder -> logits [B, H, W, C], and what is counted of them."""
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp

from jaxmm.encoders.conv import conv2d
from jaxmm.encoders.decoder import upsample, upsample_init
from jaxmm.encoders.draws import pytorch_layer
from jaxmm.heads import Head
from jaxmm.keys import named_key

UPSAMPLINGS = ("upsample_0", "upsample_1")     # of the map "fused", which is at 1/4 of an image's size


def dense(num_outputs: int) -> Head:
    """ESANet's: logits of the map "fused" by a 3x3 convolution and two learned upsamplings, and of all others, the
    side outputs that training has, by a linear layer at each position (arXiv 2011.06961).
    """

    def init(key, widths):
        out = {name: pytorch_layer(named_key(key, name), (*((3, 3) if name == "fused" else (1, 1)), width, num_outputs))
               for name, width in widths.items()}
        return {"out": out} | {name: upsample_init(num_outputs) for name in UPSAMPLINGS}

    def apply(params, maps):
        logits = {name: conv(params["out"][name], x.astype(jnp.float32)) for name, x in maps.items()}
        for name in UPSAMPLINGS:
            logits["fused"] = upsample(params[name], logits["fused"])
        return logits

    return Head(init, apply, last=lambda params: [("out", name) for name in params["out"]])


def conv(params: Mapping[str, chex.Array], x: chex.Array) -> chex.Array:
    """[B, H, W, s] -> [B, H, W, C], in the type of x."""
    return conv2d(x, params["kernel"].astype(x.dtype)) + params["bias"].astype(x.dtype)


def resized(logits: chex.Array, size: tuple[int, int]) -> chex.Array:
    """Logits [B, h, w, C] at another size, bilinear, pixel centres at halves; float32."""
    shape = (logits.shape[0], *size, logits.shape[-1])
    return jax.image.resize(logits.astype(jnp.float32), shape, "bilinear", antialias=False)


def classes(logits: chex.Array, size: tuple[int, int]) -> chex.Array:
    """The class int32 [B, H, W] at each pixel of an image of this size, of logits [B, h, w, C]."""
    return resized(logits, size).argmax(-1).astype(jnp.int32)


def confusion(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """How many pixels of each class are predicted as each, int32 [B, C, C], row by label.

    Args:
      logits: [B, h, w, C].
      labels: int [B, H, W]; those below 0 are void, and left out.
    """
    chex.assert_rank([logits, labels], [4, 3])
    chex.assert_type(labels, int)
    count = logits.shape[-1]
    pairs = jnp.where(labels < 0, count * count, labels * count + classes(logits, labels.shape[1:]))

    def of_one(pairs):
        return jnp.zeros(count * count, jnp.int32).at[pairs].add(1, mode="drop").reshape(count, count)

    return jax.vmap(of_one)(pairs.reshape(len(pairs), -1))
