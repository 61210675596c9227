"""Random numbers that follow from names, such as those of modalities, and never from positions.

So a modality starts, and is augmented, alike whichever others a model has: methods of one seed are
paired in all that they share.
"""
import zlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import chex
import jax
import numpy as np


def named_key(key: chex.PRNGKey, name: str) -> chex.PRNGKey:
    """The key for what bears this name, another one for each."""
    return jax.random.fold_in(key, number_of(name))


def number_of(name: str) -> np.uint32:
    """The number that stands for a name."""
    return np.uint32(zlib.crc32(name.encode()))


def draw_by_name(draw: Callable[[chex.PRNGKey, Any], Any], key: chex.PRNGKey, kinds: Mapping[str, Hashable],
                 ) -> dict[str, Any]:
    """{name: draw(named_key(key, name), its kind)}, where what is drawn has the form that the kind says.

    All names of a kind are drawn in a loop, which is compiled once: a program that draws each by itself took
    minutes to compile for some hundred modalities.
    """
    found = {}
    for kind in dict.fromkeys(kinds.values()):
        names = [name for name in kinds if kinds[name] == kind]
        numbers = np.array([number_of(name) for name in names])
        if len(names) == 1:
            found[names[0]] = draw(named_key(key, names[0]), kind)
            continue
        drawn = jax.lax.map(lambda number, kind=kind: draw(jax.random.fold_in(key, number), kind), numbers)
        found |= {name: jax.tree.map(lambda x, i=i: x[i], drawn) for i, name in enumerate(names)}
    return {name: found[name] for name in kinds}


def named_rng(seed: int, *names: str) -> np.random.Generator:
    """A generator of the host for what bears these names, such as a split and a modality."""
    return np.random.default_rng([seed, *"/".join(names).encode()])
