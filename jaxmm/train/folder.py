"""The files of a run folder: its config, what it keeps of its data, and the lock of the process using it."""
import copy
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from jaxmm import files, provenance
from jaxmm.config import Config, EncoderConfig
from jaxmm.data import spec as spec_lib
from jaxmm.data.spec import DataSpec
from jaxmm.data.streams import Stream, to_json
from jaxmm.errors import UserError
from jaxmm.methods import METHODS
from jaxmm.pretrained.names import TABLES
from jaxmm.train.options import MADE_BY, differences, load_json, to_dict

FILE = "config.json"
MODEL_FILE = "model.json"
# Options of an encoder that its file of weights may say, with their defaults.
OF_FILES = {f.name: f.default for f in dataclasses.fields(EncoderConfig)
            if f.name in ("width", "depth", "features", "patch", "heads", "stem", "sha256")}
OF_LENGTH = ("cosine", "one_cycle")     # schedules that depend on the number of epochs
MOST_BYTES = 2**30          # of `model.json`: it has two numbers for every feature of a vector
STREAM_FILE = "stream.json"
LOCK_FILE = "lock"
# What training adds to, or removes from, in a run folder: never through a link.
OWN = (FILE, MODEL_FILE, STREAM_FILE, LOCK_FILE, "metrics.jsonl", "checkpoints", "teachers", "tensorboard",
       "wandb")
# Options that may change within a run: its result stays the same (up to rounding for steps_per_call).
# Data may move, as they are identified by their checksums. For prepared data these depend on whether
# they are streamed.
RESULT_STAYS = ("data.path", "data.placement", "data.workers", "train.checkpoint_epochs",
                "train.keep_checkpoints", "train.on_save_error", "train.steps_per_call",
                "train.tensorboard", "train.wandb")


@contextmanager
def claim_folder(workdir: pathlib.Path, config: Config, extend: bool = False) -> Iterator[None]:
    """Makes the folder, or checks that it belongs to a run of this config; locks it within.

    Raises:
      UserError: the folder holds another config, or files but no config, or another process is using
        it, or a part of it is a link. Nothing is written then.
    """
    check_folder(workdir, config, extend)
    for name in OWN:
        files.check_own(workdir / name)
    with lock(workdir):
        if not check_folder(workdir, config, extend):   # again: another process may have been faster
            made_by = _made_by(workdir) or provenance.describe()
            files.write(workdir / FILE, json.dumps(to_dict(config) | {MADE_BY: made_by}, indent=2) + "\n")
        yield


def _made_by(workdir: pathlib.Path) -> Any:
    """The versions that made an existing run ({} if it has none); None for a new run."""
    path = workdir / FILE
    return files.parse_json(files.read(path)).get(MADE_BY, {}) if path.exists() else None


def check_folder(workdir: pathlib.Path, config: Config, extend: bool = False) -> bool:
    """Whether the folder holds a run of this config.

    The config may have more epochs: then the run is continued. If the learning rate or what the method does
    in an epoch depends on their number this needs `extend`.

    Raises:
      UserError: the folder is neither new, nor empty, nor of a run of this config.
    """
    if (workdir / FILE).exists():
        known = read_config(workdir)
        found = list(differences(to_dict(known), to_dict(config)))
        changed = {option for option, *_ in found}.difference(RESULT_STAYS)
        if changed == {"train.epochs"} and known.train.epochs < config.train.epochs:
            check_extension(workdir, known, config, extend)
            return False
        listed = "; ".join(f"{option} was {old!r}, is {new!r}" for option, old, new in found
                           if option in changed)
        if listed:
            raise UserError(f"{workdir} belongs to a run with another config: {listed}. "
                            "Name another --workdir, or repeat that config to resume it")
        return not found
    if workdir.exists() and (not workdir.is_dir() or
                               {p.name for p in workdir.iterdir()} - {LOCK_FILE, f"{FILE}.part"}):
        raise UserError(f"{workdir} exists and is not a run folder (it has no {FILE}); "
                        "name a new or empty folder")
    return False


def as_noted(config: Config, workdir: pathlib.Path) -> Config:
    """The config, with what the run of a folder has read off its files of weights where `config` leaves it open.

    So the run can be resumed when these files are gone. Without a run in the folder it is unchanged.
    """
    if not (workdir / FILE).exists():
        return config
    known, found = read_config(workdir).encoders, {}
    for m, c in config.encoders.items():
        if m in known and c.weights and c.weights == known[m].weights:
            found[m] = dataclasses.replace(c, **{
                name: getattr(known[m], name) for name, default in OF_FILES.items() if getattr(c, name) == default})
            if c.name in TABLES and TABLES[c.name] == TABLES.get(known[m].name):    # such as "mae" for "vit"
                found[m].name = known[m].name
    config = copy.deepcopy(config)
    config.encoders.update(found)
    return config


def check_extension(workdir: pathlib.Path, known: Config, config: Config, extend: bool) -> None:
    """Raises UserError if the run of a folder cannot be continued to the larger epochs of `config`."""
    said = f"{workdir}: train.epochs was {known.train.epochs}, is {config.train.epochs}"
    if config.stream.kind:
        raise UserError(f"{said}; the first tasks of a stream are over: name another --workdir")
    of_length = ([f"the learning rate of the schedule {config.optimizer.schedule}"] *
                 (config.optimizer.schedule in OF_LENGTH) +
                 [f"the course of {config.method.name}"] * METHODS[config.method.name].of_length)
    if of_length and not extend:
        raise UserError(f"{said}, and {of_length[0]} depends on it: the epochs already trained had another one "
                        "than in a run of that length, and the next step jumps to its schedule; give --extend "
                        "to continue anyway, or name another --workdir")


def lock(workdir: pathlib.Path) -> AbstractContextManager[None]:
    """Keeps other processes from training in a folder, see `files.lock`."""
    return files.lock(workdir / LOCK_FILE, "name another --workdir")


def save_stream(workdir: pathlib.Path, stream: Stream) -> None:
    """Writes `stream.json`: the classes of each task and the number of its examples by split."""
    files.write(workdir / STREAM_FILE, json.dumps(to_json(stream), indent=1) + "\n")


def write_spec(workdir: pathlib.Path, spec: DataSpec) -> None:
    """Writes `model.json`: what a run keeps of its data."""
    files.write(workdir / MODEL_FILE, json.dumps(spec_lib.to_json(spec), indent=1) + "\n")


def read_spec(workdir: pathlib.Path) -> DataSpec | None:
    """What a run has kept of its data; None for runs of older versions, which kept nothing.

    Raises:
      UserError: the file is damaged.
    """
    path = workdir / MODEL_FILE
    if not path.exists():
        return None
    try:
        return spec_lib.from_json(files.parse_json(files.read_bytes(path, MOST_BYTES)))
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}); restore that file, or remove it where the "
                        "data that the run was trained on are at hand") from error


def read_config(workdir: pathlib.Path) -> Config:
    """The config of a run folder.

    Raises:
      UserError: it is not a run folder, or its config cannot be read.
    """
    path = workdir / FILE
    if not path.is_file():
        raise UserError(f"{workdir} is not a run folder: {FILE} is missing; name the --workdir of a "
                        "training run")
    try:
        # Folders from before there was a task have none.
        return load_json(path, [f.name for f in dataclasses.fields(Config) if f.name != "task"])
    except UserError as error:
        raise UserError(f"{error}; it may be damaged, or of another version") from error
