"""Random numbers that follow from names, such as those of modalities, and never from positions.

So a modality starts, and is augmented, alike whichever others a model has: methods of one seed are
paired in all that they share.
"""
import zlib

import chex
import jax
import numpy as np


def named_key(key: chex.PRNGKey, name: str) -> chex.PRNGKey:
    """The key for what bears this name, another one for each."""
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))


def named_rng(seed: int, *names: str) -> np.random.Generator:
    """A generator of the host for what bears these names, such as a split and a modality."""
    return np.random.default_rng([seed, *"/".join(names).encode()])
