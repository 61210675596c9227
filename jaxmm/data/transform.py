"""Preprocessing, normalisation and augmentation of batches, as pure functions inside the step.

Random draws depend only on the key of the step, the modality's name and the example's id. So a global
batch is augmented in the same way on any number of devices, and a modality whatever the others are.
"""
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.batch import Batch
from jaxmm.config import (AugmentConfig, FramesConfig, MapConfig, PictureConfig, PreprocessConfig,
                          SpectrogramConfig, TextConfig)
from jaxmm.data.dataset import statistics
from jaxmm.data.preprocess import elsewhere, gap_of, map_entries, preprocess, zoom_box, zoomed
from jaxmm.data.rows import Rows
from jaxmm.errors import UserError
from jaxmm.keys import named_key

Norms = Mapping[str, tuple[np.ndarray, np.ndarray]]     # mean and standard deviation by modality
Transform = Callable[[chex.PRNGKey | None, Batch], Batch]

IN_TURN = FramesConfig, PictureConfig, SpectrogramConfig    # sections whose examples `map_entries` takes


class Dense(NamedTuple):
    """What is particular to a segmentation."""
    target: str         # the input that is the label, int [B, H, W]
    zoom: float         # see `DataConfig`


def make_transform(statistics: Norms,
                   augment: Mapping[str, AugmentConfig] | None = None,
                   sections: Mapping[str, PreprocessConfig] | None = None,
                   dense: Dense | None = None) -> Transform:
    """transform(key, batch): inputs preprocessed, normalised, and augmented unless key is None.

    A batch may say by "view" at which "moment" and "place" evaluation looks, see `preprocess`, and by "apart" how
    many seconds or more from what training would hear with this key, instead of that, it is to hear. Of a
    segmentation the target is no input afterwards, but the label int32 [B, H, W], where rows have it.

    Args:
      statistics: mean and standard deviation by modality, broadcast against its inputs. Modalities
        without them are not normalised here: texts, and those that `normalise` handled on the host.
      augment: random augmentation, by modality; modalities it does not name are not augmented.
      sections: how to preprocess, by modality; modalities it does not name are not preprocessed.
      dense: of a segmentation.
    """
    augment, sections = augment or {}, sections or {}

    def change(m, section, view, example):
        """One example of modality m, whole, so that what is large is written once."""
        training, x = "moment" in example, example["x"]
        holes = isinstance(section, MapConfig) and section.holes and x == 0
        x = (preprocess(example["preprocess"], example["moment"], x, section) if training else
             preprocess(None, x=x, config=section, **view))
        if m in statistics:
            mean, std = (jnp.asarray(s, jnp.float32) for s in statistics[m])
            x = (x.astype(jnp.float32) - mean) / std
            x = x if holes is False else jnp.where(holes, 0, x)
        if training and m in augment:
            lying = isinstance(section, SpectrogramConfig) and section.mels     # [times, mels]
            x = augment_example(example["augment"], x.T if lying else x, augment[m])
            x = x.T if lying else x
        # Missing inputs may hold anything, NaN included; they are replaced by the mean (padding).
        return jnp.where(example["present"], x, 0)

    def transform(key, batch):
        inputs = {}
        batch = dict(batch)
        view = {"moment": 0.5} | batch.pop("view", {})
        apart = view.pop("apart", None)

        def keys(name):                 # one for each example
            return jax.vmap(jax.random.fold_in, (None, 0))(named_key(key, name), batch["id"])

        if dense and key is not None and dense.zoom:
            batch = zoom_all(keys("zoom"), batch, dense.zoom)
        if dense:
            batch = take_label(batch, dense.target)
        drawn = None if key is None else jax.vmap(jax.random.uniform)(keys("moment"))   # alike for all m
        for m, x in batch["inputs"].items():
            section = sections.get(m, PreprocessConfig())
            examples = {"x": x, "present": batch["present"][m]}
            gap = None if apart is None else gap_of(m, x, apart, section)
            if key is not None:
                moments = drawn if gap is None else jax.vmap(elsewhere, (0, 0, None))(keys("apart"), drawn, gap)
                examples |= {"moment": moments, "preprocess": keys(f"preprocess/{m}"), "augment": keys(f"augment/{m}")}
            one = functools.partial(change, m, section, view)
            inputs[m] = map_entries(one, examples) if isinstance(section, IN_TURN) else jax.vmap(one)(examples)
        return batch | {"inputs": inputs}

    return transform


def zoom_all(keys: chex.PRNGKey, batch: Batch, zoom: float) -> Batch:
    """The batch with the inputs [H, W] and [H, W, C] of each example enlarged, cut and mirrored alike.

    `keys` are one for each example; see `zoom_box`. Images become float32.
    """
    def change(key, inputs):
        height, width = next(iter(inputs.values())).shape[:2]
        box, flip = zoom_box(key, height, width, zoom)
        return {m: zoomed(x, box, flip) for m, x in inputs.items()}

    return batch | {"inputs": map_entries(change, keys, batch["inputs"])}


def take_label(batch: Batch, target: str) -> Batch:
    """The batch with the input `target`, if it is there, as the label int32 [B, H, W]."""
    if target not in batch["inputs"]:
        return batch
    parts = {part: {m: x for m, x in batch[part].items() if m != target} for part in ("inputs", "present")}
    return batch | parts | {"label": batch["inputs"][target].astype(jnp.int32)}


def normalisation(train: Batch, sections: Mapping[str, PreprocessConfig]) -> Norms:
    """Mean and standard deviation of every modality but texts, after preprocessing.

    Those that a section does not name are taken from the training data in evaluation mode.
    """
    sections = {m: sections.get(m, PreprocessConfig()) for m in train["present"]}
    named = {m: s for m, s in sections.items() if s.mean and s.std}
    other = {m for m, s in sections.items() if m not in named and not isinstance(s, TextConfig)}
    processed = jax.jit(
        lambda m, x: map_entries(lambda e: preprocess(None, 0.5, e, sections[m]), x),
        static_argnums=0)
    part = {part: {m: train[part][m] for m in sections if m in other}
            for part in ("inputs", "present")}
    found = statistics(part, lambda m, x: processed(m, x) if sections[m].kind else x)
    return found | {m: (np.float64(s.mean), np.float64(s.std)) for m, s in named.items()}


def on_host(inputs: Mapping[str, Any], norms: Norms, sections: Mapping[str, PreprocessConfig]) -> Norms:
    """Those of the norms that `normalise` is for: in float32, numbers would lose digits or overflow.

    So do types that float32 does not hold, numbers that are far from zero and close together, and
    those that are about as small or large as float32 can be. What is preprocessed, on the device,
    is none of it. `inputs` are arrays by modality, or whatever has their dtype.
    """
    def exceeds(x, mean, std):
        return bool(not np.can_cast(x.dtype, np.float32) or (np.abs(mean) > 2**16 * std).any()
                    or std.min() < 1e-30 or max(np.abs(mean).max(), std.max()) > 1e30)

    return {m: norm for m, norm in norms.items()
            if not (m in sections and sections[m].kind) and exceeds(inputs[m], *norm)}


def normalise(split: Batch, norms: Norms) -> Batch:
    """The split with some modalities normalised, in float64 or more, then float32.

    `make_transform` does so on the device, in float32, for all that this loses nothing of.

    Args:
      split: a whole split, or some of its rows.
      norms: of the modalities to normalise.

    Raises:
      UserError: numbers too far from the mean for float32.
    """
    inputs = dict(split["inputs"])
    for m, (mean, std) in norms.items():
        x = inputs[m]
        if isinstance(x, Rows):
            read = functools.partial(read_normalised, read=x.read, mean=mean, std=std)
            inputs[m] = x.change(read, np.float32)
            continue
        inputs[m] = np.empty(x.shape, np.float32)
        for i in range(0, len(x), 256):     # a float64 copy of all rows may not fit
            inputs[m][i:i + 256] = _normalised(np.asarray(x[i:i + 256]), mean, std)
        far = split["present"][m] & ~np.isfinite(inputs[m]).reshape(len(x), -1).all(axis=1)
        if far.any():
            raise UserError(f"{m}: row {split['id'][np.argmax(far)]} is too far from the training data for "
                            "float32; repair or remove it")
    return split | {"inputs": inputs}


def read_normalised(record, position: int, read, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """A row that is read on demand, normalised."""
    return _normalised(read(record, position), mean, std)


def _normalised(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):      # what is missing may hold anything
        return ((x.astype(mean.dtype) - mean) / std).astype(np.float32)


def augment_example(key: chex.PRNGKey, x: chex.Array, config: AugmentConfig) -> chex.Array:
    """One example, changed at random as `config` says. x is normalised: 0 is the mean.

    x is a vector (which only takes noise), [H, W], [H, W, C] or frames [T, H, W, C], all of which
    change alike. Rows H are the frequencies of a spectrogram, columns W its times.
    """
    keys = jax.random.split(key, 5)
    if x.ndim > 1:
        rows = 1 if x.ndim == 4 else 0
        if config.crop:
            x = random_crop(keys[0], x, config.crop, rows)
        if config.flip:
            x = random_flip(keys[1], x, rows + 1)
        if config.time_mask:
            x = mask_span(keys[2], x, config.time_mask, rows + 1)
        if config.frequency_mask:
            x = mask_span(keys[3], x, config.frequency_mask, rows)
    if config.noise:
        x = x + config.noise * jax.random.normal(keys[4], x.shape, x.dtype)
    return x


def random_crop(key: chex.PRNGKey, x: chex.Array, pad: int, rows: int) -> chex.Array:
    """Pads the axes `rows` and `rows + 1` by `pad` zeros a side and cuts x's shape out of it."""
    widths = [(pad, pad) if axis in (rows, rows + 1) else (0, 0) for axis in range(x.ndim)]
    corner = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    start = [corner[axis - rows] if axis in (rows, rows + 1) else 0 for axis in range(x.ndim)]
    return jax.lax.dynamic_slice(jnp.pad(x, widths), start, x.shape)


def random_flip(key: chex.PRNGKey, x: chex.Array, axis: int) -> chex.Array:
    """x or, with probability 1/2, x reversed along `axis`."""
    return jnp.where(jax.random.bernoulli(key), jnp.flip(x, axis), x)


def mask_span(key: chex.PRNGKey, x: chex.Array, longest: int, axis: int) -> chex.Array:
    """x with a span of random length in [0, longest] at a random place of `axis` set to 0."""
    length_key, start_key = jax.random.split(key)
    size = x.shape[axis]
    length = jax.random.randint(length_key, (), 0, min(longest, size) + 1)
    start = jax.random.randint(start_key, (), 0, size - length + 1)
    position = jnp.arange(size).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return jnp.where((position >= start) & (position < start + length), 0, x)
