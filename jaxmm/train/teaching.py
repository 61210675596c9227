"""Trained models that a run starts from, its teachers."""
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence

import jax
from absl import logging

from jaxmm.config import Config, EncoderConfig
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError, of
from jaxmm.methods import TrainState
from jaxmm.train import checkpoints
from jaxmm.train.restore import restore
from jaxmm.train.runs import differences, read_config, to_dict
from jaxmm.train.setup import Setup


def folder_of(teacher: str, location: str) -> pathlib.Path:
    """The run folder of a teacher: `location` with its name for {teacher}."""
    return pathlib.Path(location.replace("{teacher}", teacher))


def restore_teachers(setup: Setup, *, dataset: Dataset | None = None,
                     devices: Sequence[jax.Device] | None = None) -> dict[str, TrainState]:
    """One copy of the last state of each teacher whose folder the config names.

    Raises:
      UserError: a folder holds no finished run, or one with other encoders.
    """
    check_teachers(setup)
    models = {}
    for name in setup.programs.teachers:
        folder = folder_of(name, setup.config.method.teachers)
        run = restore(folder, dataset=dataset, devices=devices)
        models[name] = run.setup.programs.fetch(run.state)
        if run.setup.total_steps > models[name].step:
            raise UserError(f"{folder}: this run is not finished, so it cannot teach; finish it by "
                            "launch.train with its options")
        if run.setup.checksums["train"] != setup.checksums["train"]:
            logging.warning("%s: this teacher learned from other data than the run that it teaches",
                            folder)
    return models


def teacher_checksums(setup: Setup) -> dict[str, str]:
    """By name, checksums of the last states of the teachers that the config names and are there."""
    location, checksums = getattr(setup.config.method, "teachers", ""), {}
    for name in setup.programs.teachers if location else ():
        meta = checkpoints.last_meta(folder_of(name, location))
        if meta:
            arrays = json.dumps(meta["checksums"], sort_keys=True)
            checksums[name] = f"{zlib.crc32(arrays.encode()):08x}"
    return checksums


def check_same_teachers(where: pathlib.Path, setup: Setup, known: Mapping[str, str]) -> None:
    """Raises UserError if a teacher is no longer the model that it was, whose checksum is known."""
    for name, checksum in teacher_checksums(setup).items():
        if known.get(name, checksum) != checksum:
            folder = folder_of(name, setup.config.method.teachers)
            raise UserError(f"{where}: its teacher {folder} is another model now; restore that one, "
                            "or name another --workdir")


def check_teachers(setup: Setup) -> None:
    """Raises UserError unless the teachers that the config names are runs with its encoders."""
    location = getattr(setup.config.method, "teachers", "")
    for name in setup.programs.teachers if location else ():
        folder = folder_of(name, location)
        with of(f"method.teachers={location}"):
            check_encoders(folder, read_config(folder), setup.config, setup.dataset.modalities)


def check_encoders(folder: pathlib.Path, teacher: Config, config: Config,
                   modalities: Sequence[str]) -> None:
    """Raises UserError unless both configs have the same encoders of these modalities."""
    mine, other = (to_dict(Config(encoders={m: c.encoders.get(m, EncoderConfig())
                                            for m in modalities})) for c in (config, teacher))
    found = list(differences(other, mine))
    if found:
        listed = "; ".join(f"{k} is {old!r}, here {new!r}" for k, old, new in found)
        raise UserError(f"{folder}: the encoders of this teacher differ: {listed}. "
                        "Give both the same --config.encoders")


def taught(setup: Setup, state: TrainState, models: Mapping[str, TrainState]) -> TrainState:
    """One copy of the first state, with what the teachers know.

    Raises:
      UserError: they are models of other shapes.
    """
    leaves = checkpoints.flatten(setup.programs.teach(state, models))
    try:
        return checkpoints.unflatten(state, leaves)
    except ValueError as error:
        raise UserError(f"{setup.config.method.name}: its teachers are models of other modalities "
                        f"or classes: {error}") from error
