"""Predictions for rows without labels, by the model in a run folder."""
import contextlib
import os
import pathlib

import numpy as np

from jaxmm.data.new_rows import read_blocks
from jaxmm.errors import UserError
from jaxmm.report import predictions
from jaxmm.train.predictions import make_weights, predict_block
from jaxmm.train.setup import Run


def check_outputs(data: pathlib.Path, output: pathlib.Path, embeddings: pathlib.Path | None) -> None:
    """Raises UserError for files that cannot be made, or that are one and the same."""
    predictions.check_path("--output", output, predictions.SUFFIXES)
    if embeddings:
        predictions.check_path("--embeddings", embeddings, (".npz",))
    paths = [os.path.realpath(p) for p in (data, output, embeddings) if p]
    if len(set(paths)) < len(paths):
        raise UserError("--data, --output and --embeddings name the same file; name different ones")


def predict(run: Run, data: str, split: str, output: pathlib.Path, embeddings: pathlib.Path | None,
            probabilities: bool) -> str:
    """Writes predictions, and features if `embeddings` names a file; returns one line about them.

    Raises:
      UserError: invalid rows, see `read_blocks`, or none has a modality of the model.
    """
    setup, rows, empty = run.setup, 0, 0
    weights = make_weights(setup, run.state)
    used = [m for m in setup.spec.modalities if m in run.state.params]
    with contextlib.ExitStack() as stack:
        add = stack.enter_context(predictions.open_table(output, setup.task.names))
        add_features = embeddings and stack.enter_context(predictions.open_table(embeddings))
        for ids, batch in read_blocks(data, setup.spec, setup.config.data,
                                      setup.config.train.batch_size, split):
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
