"""Predictions of a run for whole splits, and their scores."""
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxmm.batch import Batch, Logits, batch_size
from jaxmm.config import scalar_options
from jaxmm.data.dataset import check_split
from jaxmm.methods.common import TrainState
from jaxmm.train.programs import Feed
from jaxmm.train.scores import score, score_tasks
from jaxmm.train.setup import Setup


def predict_split(setup: Setup, state: TrainState, split: Batch, masks: bool = False) -> dict[str, np.ndarray]:
    """Outputs [N, K] of every head for a whole split, of the data set or of the same form.

    With `masks` a single program predicts for splits of N examples whatever is missing in them, see `Programs`.

    Raises:
      UserError: a split that is not the data set's has another form, see `check_split`.
    """
    return _read(setup, state, setup.programs.predict, split, masks=masks)


def split_features(setup: Setup, state: TrainState, split: Batch, shown: str = "") -> dict[str, np.ndarray]:
    """Encoder outputs [N, s] by modality for a whole split; `shown` names it on a progress bar."""
    return _read(setup, state, setup.programs.features, split, shown)


def split_squeezes(setup: Setup, state: TrainState, split: Batch) -> dict[str, np.ndarray]:
    """What enters each exchange between encoders for a whole split, [N, C] by "STAGE/MODALITY"."""
    return _read(setup, state, setup.programs.squeezes, split)


def predict_block(setup: Setup, state: TrainState, block: Batch, features: bool = False,
                  ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs of the heads and, if `features`, the features of rows that are already checked.

    The compiled programs do not depend on the number of rows.
    """
    found = [_read_rows(setup, state, read, block, "host")
             for read in [setup.programs.predict] + [setup.programs.features] * features]
    return found[0], found[1] if features else {}


def make_weights(setup: Setup, state: TrainState) -> Callable[[Logits, Mapping], Logits]:
    """weights(outputs, present): the weights [B] by head of fusion at test time.

    They are empty for methods that fuse without weights.
    """
    weights = setup.make_method(None, scalar_options(setup.config)).weights
    if weights is None:
        return lambda outputs, present: {}
    state = setup.programs.fetch(state)
    return lambda outputs, present: jax.device_get(weights(state, outputs, present))


def _read(setup, state, read, split, shown="", masks=False):
    splits = setup.dataset.splits
    if not any(split is known for known in splits.values()):
        check_split("split", split, setup.spec.forms, target=setup.spec.target)
    return _read_rows(setup, state, read, split, setup.config.data.placement, shown, masks)


def _read_rows(setup, state, read, split, placement, shown="", masks=False):
    feed = setup.programs.feed(split, placement, masks=masks)
    return read_rows(setup, state, read, feed, np.arange(batch_size(split)), shown)


def read_rows(setup: Setup, state: TrainState, read: Callable, feed: Feed, rows: np.ndarray, shown: str = "",
              ) -> dict[str, np.ndarray]:
    """What `read`, one of the compiled readers, finds in the rows int [N] of a split's feed: {name: [N, ...]}."""
    rows = rows.astype(np.int32)
    order = [(rows[chunk],) for chunk in row_chunks(len(rows), setup.config.train.batch_size)]
    state = setup.programs.ready(state)
    parts = on_host(read(state, fed) for _, fed in feed.through(order))
    return join_parts(tqdm(parts, shown, len(order), disable=not shown, unit="batch"), len(rows))


def on_host(parts: Iterable[Any]) -> Iterator[Any]:
    """Arrays of the devices, each fetched after the next ones were asked for, so that they do not wait."""
    waiting = []
    for part in parts:
        waiting.append(part)
        if len(waiting) > 1:
            yield jax.device_get(waiting.pop(0))
    yield from map(jax.device_get, waiting)


def row_chunks(rows: int, size: int) -> list[np.ndarray]:
    """Positions of all rows in chunks of one length int32 [size], the last filled up with row 0."""
    index = np.zeros(-(-rows // size) * size, np.int32)
    index[:rows] = np.arange(rows)
    return list(index.reshape(-1, size))


def join_parts(parts: Iterable[Mapping[str, np.ndarray]], rows: int) -> dict[str, np.ndarray]:
    """The first `rows` rows of arrays that come in parts, {name: [B, ...]} each."""
    outputs: dict[str, np.ndarray] = {}
    start = 0
    for part in parts:
        for name, x in part.items():
            # Written in place: with many classes, a list of parts and its join take twice the memory.
            outputs.setdefault(name, np.empty((rows, *x.shape[1:]), x.dtype))[start:start + len(x)] = (
                x[:rows - start])
        start += len(next(iter(part.values())))
    return outputs


def score_split(setup: Setup, logits: Logits, split: str) -> dict[str, Any]:
    """"scores" of every head on a split and, on a stream, what `score_tasks` finds, and the "exposure" [C]: how
    many training examples all tasks have of each label."""
    batch = setup.dataset.splits[split]
    scores = {"scores": score(logits, batch, setup.task.scores)}
    if not setup.stream:
        return scores
    learned = setup.dataset.splits["train"]["label"][np.concatenate(setup.tasks)]
    return scores | score_tasks(logits, batch, setup.stream, split) | {
        "exposure": np.bincount(learned, minlength=setup.task.size).tolist()}
