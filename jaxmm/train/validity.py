"""Whether the data are still those that a run was trained and scored on, and its scores if not.

A checkpoint keeps a checksum of every split. With other training data it is another run. With other
validation or test data the model stays as it is, and is scored again.
"""
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from jaxmm.data.dataset import fingerprint, old_fingerprint
from jaxmm.errors import UserError
from jaxmm.methods.common import TrainState
from jaxmm.train.folder import MODEL_FILE
from jaxmm.train.predictions import predict_split, score_split
from jaxmm.train.setup import Setup

History = Sequence[Mapping[str, Any]]


def changed_splits(setup: Setup, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Splits that are not those of the checkpoint with this `meta`.

    Older versions kept one checksum, of the training split: then the others count as unchanged.
    """
    known = meta["data"]
    if not isinstance(known, Mapping):
        return () if known == old_fingerprint(setup.dataset) else ("train",)
    return tuple(split for split, checksum in setup.checksums.items()
                 if known.get(split) != checksum)


def row_checksum(setup: Setup) -> str:
    """The checksum of the training split, whatever is missing in it."""
    train = {"train": setup.dataset.splits["train"]}
    return fingerprint(setup.dataset._replace(splits=train), setup.stream.tasks if setup.stream else (),
                       masks=False)["train"]


def check(where: pathlib.Path, setup: Setup, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The changed splits among those that a run to be resumed was scored on.

    Raises:
      UserError: the training data have changed, or data on which models that are gone, those of
        earlier tasks, were scored.
    """
    changed, name = changed_splits(setup, meta), setup.dataset.name
    if "train" in changed:
        raise UserError(f"{where}: {name} is not the data this run was trained on, or prepared data "
                        "are read with another data.placement; restore that, or name another "
                        "--workdir")
    scored = tuple(s for s in changed if any(r["split"] == s for r in meta["history"]))
    if setup.stream and scored:
        raise UserError(f"{where}: the {scored[0]} split of {name} is not the one that the tasks of "
                        "this run were scored on, and not every model of then is left; restore that "
                        "data, or name another --workdir")
    return scored


def check_spec(where: pathlib.Path, setup: Setup, meta: Mapping[str, Any]) -> None:
    """Raises UserError if a checkpoint is of a run with other statistics, classes or vocabularies.

    Without its `model.json` a run has those of the data there are now.
    """
    if meta.get("model", setup.spec.checksum) != setup.spec.checksum:
        raise UserError(f"{where}: {MODEL_FILE} is not the one that its checkpoints were made with, or is "
                        "missing and the training data are others; restore that file")


def warn(where: pathlib.Path, setup: Setup, meta: Mapping[str, Any],
         changed: Sequence[str]) -> None:
    """Warns that splits have changed, or that an older version kept nothing to check this by."""
    if not isinstance(meta["data"], Mapping):
        logging.warning("%s is of an older version, which kept no checksums of validation and test "
                        "data; its scores are taken to be of the data there are now", where)
    elif "model" not in meta:
        logging.warning("%s is of an older version, which kept nothing of its data: normalisation, "
                        "vocabulary and classes are taken from the data there are now", where)
    if changed:
        logging.warning("%s: %s", where, describe(setup.dataset.name, changed))


def describe(name: str, changed: Sequence[str]) -> str:
    """A note on the scores if splits of the data set `name` have changed, otherwise ""."""
    if not changed:
        return ""
    splits = f"the splits {', '.join(changed)}" if len(changed) > 1 else f"the split {changed[0]}"
    return (f"{splits} of {name} changed after this run was trained; scores are of the data there are "
            "now")


def rescore(setup: Setup, state: TrainState, history: History, step: int,
            changed: Sequence[str]) -> list[dict[str, Any]]:
    """The history of a run whose state after `step` is `state`, without scores on earlier data.

    Records of changed splits are scored again if they are of this state, and left out otherwise.

    Args:
      setup: of the run.
      state: on the devices.
      history: with the scores of the data before.
      step: of the state.
      changed: splits.
    """
    result = []
    for record in history:
        split = record["split"]
        if split not in changed:
            result.append(dict(record))
        elif record["step"] == step:
            logits = predict_split(setup, state, setup.dataset.splits[split])
            result.append(record | score_split(setup, logits, split))
    return result
