"""Pretrained weights in files that users have: `.safetensors` and `.npz`. Nothing in them is executed.

The header of a file says the sizes of the network, and its SHA-256 which file it is; both become options of
the run. The weights are read for the first state of a run, and never again: later the file may be gone.
"""
import collections
import copy
import dataclasses
import functools
import math
import os
import pathlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxmm import files
from jaxmm.config import Config, EncoderConfig
from jaxmm.data import arrays
from jaxmm.data.dataset import say
from jaxmm.data.prepared import checksum
from jaxmm.errors import UserError, as_typed, check_choice, of
from jaxmm.pretrained import names as names_lib

FORM = "a .safetensors file, or an .npz file, with arrays under their released names"
FLOATS = ("F64", "F32", "F16", "BF16", "float64", "float32", "float16")     # types as either form calls them
MOST_NAMES = 20_000
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))        # how a file of this form begins
OPTIONS = {f.name: f for f in dataclasses.fields(EncoderConfig)}


class Source(NamedTuple):
    """A file, of which only the header has been read."""
    shapes: Mapping[str, tuple[int, ...]]       # by name of the array
    types: Mapping[str, str]
    read: Callable[[Collection[str]], dict[str, np.ndarray]]    # the arrays of these names, as they are


def complete(config: Config, kinds: Mapping[str, str]) -> Config:
    """The config with what its files of weights say of the encoders: their sizes, and which file it is.

    Encoders for which the latter is there are left as they are, and their files not read.

    Args:
      config: of a run.
      kinds: by modality, "text", "image" or "audio".

    Raises:
      UserError: a file cannot be read, is not of this network, or an option contradicts it.
    """
    found = {}
    for m, c in config.encoders.items():
        if c.weights and not c.sha256 and m in kinds:
            with of(f"encoders.{m}"):
                found[m] = _complete(c, kinds[m])
    if not found:
        return config
    config = copy.deepcopy(config)
    config.encoders.update(found)
    return config


def _complete(config: EncoderConfig, kind: str) -> EncoderConfig:
    path = files.expand(config.weights)
    check_choice("name", config.name, (*names_lib.TABLES, *names_lib.RESNETS))
    with of("weights"):
        source = open_file(path)
        with of(str(path)):
            sizes = names_lib.sizes({name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in
                                     source.shapes.items()}, config.name, kind)
    if "name" in sizes:
        say(f"{path} holds another relative of {config.name}: the encoder is {sizes['name']}")
    for name, size in sizes.items():
        given = getattr(config, name)
        if name != "name" and given not in (size, OPTIONS[name].default):
            raise UserError(f"{name}={given!r}, but {path} has {size!r}; leave it out, or choose another file")
    return dataclasses.replace(config, sha256=digest(path), **sizes)


def load(config: EncoderConfig, kind: str, like: Mapping[str, Any],
         shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """{"params", "batch_stats"} of an encoder, float32, from its file of weights.

    Parts that no released model has, such as the layer of `features`, are left out. The last ones that were
    read are kept in memory, as the seeds and methods of a comparison start from the same.

    Args:
      config: of the encoder; with `sha256` no other file is taken.
      kind: "text", "image" or "audio".
      like: the same tree of the network, of arrays or their shapes.
      shape: height and width of an input; of a sound, times and bands.

    Raises:
      UserError: the file cannot be read or is another one, its arrays do not fit the network, or hold numbers
        that are not finite in float32.
    """
    path = files.expand(config.weights)
    leaves, treedef = jax.tree.flatten(like)
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)
    with of("weights"):
        if not path.is_file():
            open_file(path)     # which says why
        found = digest(path)
        if found != config.sha256 != "":
            raise UserError(f"{path} has the SHA-256 {found[:12]}..., expected {config.sha256[:12]}...; restore "
                            "that file, or set sha256= to take this one")
        return _load(path, found, config.name, kind, shapes, treedef, shape)


@functools.lru_cache(maxsize=4)
def _load(path: pathlib.Path, sha256: str, network: str, kind: str, shapes, treedef, shape) -> dict[str, Any]:
    del sha256      # another file is loaded again
    source = open_file(path)
    with of(str(path)):
        like = jax.tree.unflatten(treedef, shapes)
        used = sorted(names_lib.used_names(source.shapes, network, kind, names_lib.num_channels(like)))
        _check_types({name: source.types[name] for name in used})
        _check_room(sum(4 * math.prod(source.shapes[name]) for name in used))
    read = source.read(used)
    with of(str(path)):
        read = {name: _to_float32(name, x) for name, x in read.items()}
        tree = names_lib.to_tree(read, network, kind, like, shape)
    _say_what_is_left(path, source, used)
    if kind == "text":
        known, used_words = names_lib.num_words(source.shapes, network), len(tree["params"]["embed"]["embedding"])
        if used_words < known:
            say(f"{path} knows {known} words, and the vocabulary has {used_words}: the first of the file are taken, "
                "which is right only if the words begin with these in the same order")
    return {"params": {}, "batch_stats": {}} | tree


def _check_types(types: Mapping[str, str]) -> None:
    for name, found in types.items():
        if found not in FLOATS:
            raise UserError(f"{name} is {found}; expected float32, float16, bfloat16 or float64")


def _check_room(size: int) -> None:
    if size > (left := arrays.memory_left()):
        raise UserError(f"its weights take {size / 2**30:.1f} GiB of memory in float32, {left / 2**30:.1f} GiB "
                        "are left; run it on a larger machine")


def _to_float32(name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = np.asarray(array, np.float32)
    if wrong := np.count_nonzero(~np.isfinite(x)):
        raise UserError(f"{name} holds numbers that are not finite in float32, {wrong} of {x.size}; choose an "
                        "undamaged file")
    return x


def digest(path: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    found = path.stat()
    return _digest(path, found.st_size, found.st_mtime_ns, found.st_ino)


@functools.lru_cache(maxsize=64)
def _digest(path: pathlib.Path, *_) -> str:
    return checksum(path)


def open_file(path: pathlib.Path) -> Source:
    """The header of a file, whose arrays can be read.

    Raises:
      UserError: there is no such file, it is neither form, or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: {arrays.not_there(path)}; expected {FORM}")
    with files.open_regular(path) as file:
        start = file.read(64)
    if path.suffix not in (".npz", ".safetensors"):
        raise UserError(f"{path}: {_looks_like(path, start) or 'has another ending'}; expected {FORM}")
    source = _open_npz(path) if path.suffix == ".npz" else _open_safetensors(path, start)
    far = [name for name in source.shapes if re.search(r"[._][1-9]\d{4,}[./]", name)]     # of a block
    if far or len(source.shapes) > MOST_NAMES:
        raise UserError(f"{path}: holds " + (f"{far[0][:80]}; expected numbers of layers below 10000" if far else
                                             f"{len(source.shapes)} arrays; expected at most {MOST_NAMES}"))
    return source


def _open_safetensors(path: pathlib.Path, start: bytes) -> Source:
    try:
        file = safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}
        shapes = {name: tuple(x.get_shape()) for name, x in slices.items()}
        types = {name: x.get_dtype() for name, x in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        other = _looks_like(path, start) or f"is no safetensors file, or damaged or cut short ({said})"
        raise UserError(f"{path}: {other}; expected {FORM}") from error
    return Source(shapes, types, lambda names: {name: file.get_tensor(name) for name in names})


def _open_npz(path: pathlib.Path) -> Source:
    def read(names):
        with arrays.open_file(path, FORM) as (file, members):
            return {name: arrays.read_member(file, members[name]) for name in names}

    headers = {}
    with arrays.open_file(path, FORM) as (file, members):
        for name, member in members.items():
            with file.open(member) as stream:
                headers[name] = arrays.read_header(file, member, stream)
    return Source({name: header.shape for name, header in headers.items()},
                  {name: str(header.dtype) for name, header in headers.items()}, read)


def _looks_like(path: pathlib.Path, start: bytes) -> str:
    """What another file is by its first bytes, and what to do; "" if they say nothing."""
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer in place of the file, which `git lfs pull` fetches"
    form = "a zip archive" if start.startswith(b"PK\3\4") else "a pickle" if start.startswith(PICKLES) else ""
    return form and (f"looks like {form}, as PyTorch and JAX write them, which may hold code; convert it once: "
                     f"`{as_typed('convert')} --weights={path} --output={path.with_suffix('.safetensors')}`")


def _say_what_is_left(path: pathlib.Path, source: Source, used: Collection[str]) -> None:
    """Says which arrays are not used, by prefix, and which were of another type than float32."""
    rest = sorted(set(source.shapes) - set(used))
    wrapped = len(re.match(r"(.*[./])?", os.path.commonprefix(list(source.shapes)))[0])
    by_prefix = collections.Counter(re.split(r"[./]", name[wrapped:])[0] for name in rest)
    cast = collections.Counter(source.types[name] for name in used)
    cast = {kind: count for kind, count in cast.items() if kind not in ("F32", "float32")}
    if rest:
        say(f"{path}: {len(used)} of {len(source.shapes)} arrays are used; not used: "
            + ", ".join(f"{prefix} {count}" for prefix, count in sorted(by_prefix.items())))
    if cast:
        say(f"{path}: " + ", ".join(f"{count} arrays of {kind}" for kind, count in sorted(cast.items()))
            + " become float32")
