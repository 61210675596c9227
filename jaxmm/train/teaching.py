"""Trained models that a run starts from, its teachers."""
import dataclasses
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxmm import files
from jaxmm.config import Config, EncoderConfig, MethodConfig, replace
from jaxmm.data.dataset import Dataset, say
from jaxmm.errors import UserError, as_typed, of
from jaxmm.methods import METHODS
from jaxmm.methods.common import TrainState
from jaxmm.train import checkpoints, validity
from jaxmm.train.restore import restore
from jaxmm.train.folder import read_config
from jaxmm.train.optimizers import PLATEAU
from jaxmm.train.options import differences, to_dict
from jaxmm.train.setup import Setup


TRAINED = {"weights": "", "sha256": "", "frozen": False, "rate": 1.0}     # not what an encoder is
OTHER = 1000    # difference between the seeds of a student that imitates and of its teachers


def other_seed(seed: int) -> int:
    """The seed of the teachers of a student that imitates: it must not share their initial weights."""
    return (seed + OTHER) % 2**31


def teacher_config(setup: Setup, method: MethodConfig) -> Config:
    """The config of a teacher of a run.

    Scores say nothing of one that learns without labels, so it is trained to its end whatever they are.
    """
    seed = setup.config.train.seed
    options = {"method": method, "train.seed": other_seed(seed) if setup.programs.distils else seed}
    if not getattr(method, "labels", True):
        options |= {"train.keep": "last", "train.patience": 0}
        if setup.config.optimizer.schedule == PLATEAU:
            options["optimizer.schedule"] = "constant"
    return replace(setup.config, options)


def folder_of(teacher: str, location: str, setup: Setup) -> pathlib.Path:
    """The run folder of a teacher: `location` with its name for {teacher}, its seed for {seed}."""
    seed = teacher_config(setup, setup.programs.teachers[teacher]).train.seed
    return files.expand(location.replace("{teacher}", teacher).replace("{seed}", str(seed)))


def restore_teachers(setup: Setup, *, dataset: Dataset | None = None,
                     devices: Sequence[jax.Device] | None = None) -> dict[str, TrainState]:
    """One copy of the last state of each teacher whose folder the config names.

    Raises:
      UserError: a folder does not hold a finished run, or one with other encoders.
    """
    check_teachers(setup)
    models = {}
    for name in setup.programs.teachers:
        folder = folder_of(name, setup.config.method.teachers, setup)
        run = restore(folder, dataset=dataset, devices=devices)
        models[name] = run.setup.programs.fetch(run.state)
        if not run.finished:
            raise UserError(f"{folder}: this run is not finished, so it cannot teach; finish it by "
                            f"{as_typed('train')} with its options")
    return models


def teacher_checksums(setup: Setup) -> dict[str, str]:
    """By name, checksums of the last states of the teachers that the config names and are there."""
    location, checksums = getattr(setup.config.method, "teachers", ""), {}
    for name in setup.programs.teachers if location else ():
        meta = checkpoints.last_meta(folder_of(name, location, setup))
        if meta:
            arrays = json.dumps(meta["checksums"], sort_keys=True)
            checksums[name] = f"{zlib.crc32(arrays.encode()):08x}"
    return checksums


def check_same_teachers(where: pathlib.Path, setup: Setup, known: Mapping[str, str]) -> None:
    """Raises UserError if a teacher has changed since its checksum was taken."""
    for name, checksum in teacher_checksums(setup).items():
        if known.get(name, checksum) != checksum:
            folder = folder_of(name, setup.config.method.teachers, setup)
            raise UserError(f"{where}: its teacher {folder} is another model now; restore that one, "
                            "or name another --workdir")


def check_teachers(setup: Setup) -> None:
    """Raises UserError unless a run can start from its teachers.

    Teachers that the config names must have the same encoders and the same training rows, or they
    would pass on what they learned from others, such as test data. Those of a method that says so may have
    seen in these rows what is missing in the run, which is said. If the run imitates them, they must have
    another seed. A run on a stream cannot have teachers, which would know all its tasks, unless it
    learns all tasks at once.
    """
    if setup.programs.teachers and setup.stream and not setup.config.stream.joint:
        raise UserError(f"{setup.config.method.name}: its teachers would know all tasks of the stream "
                        "before it learns the first; choose a method without teachers, a config "
                        "without a stream, or --config.stream.joint=true")
    location = getattr(setup.config.method, "teachers", "")
    for name in setup.programs.teachers if location else ():
        folder = folder_of(name, location, setup)
        with of(f"method.teachers={location}"):
            teacher = read_config(folder)
            check_encoders(folder, teacher, setup.config, setup.dataset.modalities)
        if setup.programs.distils and teacher.train.seed == setup.config.train.seed:
            raise UserError(f"{folder}: this teacher has train.seed={teacher.train.seed}, as its student, "
                            f"and so started from the same weights, which makes the imitation by "
                            f"{setup.config.method.name} meaningless; choose another --config.train.seed")
        meta = checkpoints.last_meta(folder)
        if meta and "train" in validity.changed_splits(setup, meta):
            if may_see_more(setup, teacher, meta):
                say(f"{folder}: this teacher has learned from modalities that are missing here, and hands on to "
                    f"{setup.config.method.name} what it knows of them")
                continue
            raise UserError(f"{folder}: this teacher was trained on other data than {setup.dataset.name}"
                            " has in training here: other rows, labels or masks; train it with the "
                            "same --config.data, with its seed, val_fraction and placement")


def may_see_more(setup: Setup, teacher: Config, meta: Mapping[str, Any]) -> bool:
    """Whether a teacher with this `meta` learned from the rows of the run before modalities were dropped, and
    the run's method allows it."""
    return (METHODS[setup.config.method.name].complete and not teacher.data.missing_rate
            and meta.get("rows") == validity.row_checksum(setup))


def check_encoders(folder: pathlib.Path, teacher: Config, config: Config,
                   modalities: Sequence[str]) -> None:
    """Raises UserError unless both configs have the same encoders of these modalities.

    What they started from, and how they were trained, may differ.
    """
    mine, other = (to_dict(Config(encoders={m: dataclasses.replace(c.encoders.get(m, EncoderConfig()), **TRAINED)
                                            for m in modalities})) for c in (config, teacher))
    found = list(differences(other, mine))
    if found:
        listed = "; ".join(f"{k} is {old!r}, here {new!r}" for k, old, new in found)
        raise UserError(f"{folder}: the encoders of this teacher differ: {listed}. "
                        "Give both the same --config.encoders")


def taught(setup: Setup, state: TrainState, models: Mapping[str, TrainState]) -> TrainState:
    """One copy of the first state, with the weights of the teachers.

    Raises:
      UserError: they are models of other shapes.
    """
    leaves = checkpoints.flatten(setup.programs.teach(state, models))
    try:
        return checkpoints.unflatten(state, leaves)
    except ValueError as error:
        raise UserError(f"{setup.config.method.name}: its teachers are models of other modalities "
                        f"or classes: {error}") from error
