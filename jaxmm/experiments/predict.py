"""Predictions for rows without labels, by the model in a run folder."""
import contextlib
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from jaxmm import files
from jaxmm.data.dataset import say
from jaxmm.data.new_rows import Block, read_blocks, value_blocks
from jaxmm.errors import UserError, as_typed
from jaxmm.prepare import table
from jaxmm.prepare.decode import Options
from jaxmm.prepare.layout import split_name
from jaxmm.report import predictions
from jaxmm.task import not_for_maps
from jaxmm.train.predictions import make_weights, predict_block
from jaxmm.train.setup import Run, Setup

TABLES = (".csv", ".tsv")


def check_outputs(data: pathlib.Path, output: pathlib.Path, embeddings: pathlib.Path | None) -> None:
    """Raises UserError for files that cannot be made, or that are one and the same."""
    predictions.check_path("--output", output, predictions.SUFFIXES)
    if embeddings:
        predictions.check_path("--embeddings", embeddings, (".npz",))
    paths = [os.path.realpath(p) for p in (data, output, embeddings) if p]
    if len(set(paths)) < len(paths):
        raise UserError("--data, --output and --embeddings name the same file; name different ones")


def blocks_of(setup: Setup, data: str, split: str) -> Iterator[Block]:
    """The rows of an `.npz` file, a prepared data set or a table of files, in blocks.

    Raises:
      UserError: invalid rows, see `read_blocks` and `jaxmm.prepare.table`.
    """
    path, spec, config = files.expand(data), setup.spec, setup.config
    if path.suffix.lower() not in TABLES:
        return read_blocks(data, spec, config.data, config.train.batch_size, split)
    if not spec.files:
        raise UserError(f"{path} is a table of files, and the model was not trained on one (nor on one with stored "
                        "spectrograms); expected an .npz file, or a folder that was prepared")
    found = table.read(path)
    for column in ("label", "group"):
        if column in found.columns:
            say(f"{path}: the column {column} is not read")
    if split or "split" in found.columns:
        found = one_split(found, split)
    values = table.read_values(found, path.parent, spec.files["columns"], Options(**spec.files["options"]),
                               config.train.batch_size)
    return value_blocks(str(path), spec, config.data, list(table.modalities_of(found)), values)


def one_split(found: table.Table, split: str) -> table.Table:
    """The rows of a table that are of one split: `split` or, if that is "", the only one there is."""
    if "split" not in found.columns:
        raise UserError(f"--split={split}: {found.where} has no column split")
    words = table.cells_of(found)["split"]
    splits = [split_name(word) or word for word in words]
    if split not in splits and (split or len(set(splits)) > 1):
        raise UserError(f"{found.where} has the splits {', '.join(sorted(set(splits)))}; name one by --split")
    return found._replace(rows=[row for row, s in zip(found.rows, splits) if s == (split or s)])


def predict(run: Run, data: str, split: str, output: pathlib.Path, embeddings: pathlib.Path | None,
            probabilities: bool) -> str:
    """Writes predictions, and features if `embeddings` names a file; returns one line about them.

    Raises:
      UserError: invalid rows, see `blocks_of`, or none has a modality of the model.
    """
    setup, rows, empty = run.setup, 0, 0
    not_for_maps(setup.task, "a table of predictions", f"use `{as_typed('evaluate')}`")
    weights = make_weights(setup, run.state)
    used = [m for m in setup.spec.modalities if m in run.state.params]
    with contextlib.ExitStack() as stack:
        add = stack.enter_context(predictions.open_table(output, setup.task.names))
        add_features = embeddings and stack.enter_context(predictions.open_table(embeddings))
        for ids, batch in blocks_of(setup, data, split):
            outputs, features = predict_block(setup, run.state, batch, bool(embeddings))
            present = batch["present"]
            add(ids, predictions.describe(setup.task, outputs, present, weights(outputs, present),
                                          probabilities))
            if embeddings:
                add_features(ids, {m: np.where(present[m][:, None], h, np.nan)
                                   for m, h in features.items()})
            rows += len(ids)
            empty += int((~np.any([present[m] for m in used], axis=0)).sum())
        if empty == rows:
            raise UserError(f"{data}: no row has {' or '.join(used)}, which the model was trained on")
    lacking = f"; {empty} rows without {' or '.join(used)} have no prediction" if empty else ""
    return f"{rows} rows of {data} -> {output}{lacking}"
