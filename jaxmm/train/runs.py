"""Run folders: which config a folder belongs to, and which process is at work in it."""
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from jaxmm import config as config_lib
from jaxmm import files
from jaxmm.config import Config
from jaxmm.data.streams import Stream, to_json
from jaxmm.errors import UserError

FILE = "config.json"
STREAM_FILE = "stream.json"
LOCK_FILE = "lock"
# Options that may change within a run: its result stays the same, or, with other steps_per_call,
# the same up to rounding. Prepared data that are streamed, or not any more, have other checksums: of
# them normalisation looks at a sample.
RESULT_STAYS = ("data.placement", "data.workers", "train.checkpoint_epochs",
                "train.keep_checkpoints", "train.on_save_error", "train.steps_per_call",
                "train.tensorboard")


@contextmanager
def claim_folder(workdir: pathlib.Path, config: Config) -> Iterator[None]:
    """Makes the folder, or checks that it belongs to a run of this config; locks it within.

    Raises:
      UserError: the folder holds another config, or files but no config, or another process is at
        work in it. Nothing is written then.
    """
    check_folder(workdir, config)
    with lock(workdir):
        if not check_folder(workdir, config):   # again: another process may have been faster
            files.write(workdir / FILE, json.dumps(to_dict(config), indent=2) + "\n")
        yield


def check_folder(workdir: pathlib.Path, config: Config) -> bool:
    """Whether the folder holds this very config.

    Raises:
      UserError: the folder is neither new, nor empty, nor of a run of this config.
    """
    if (workdir / FILE).exists():
        found = list(differences(to_dict(read_config(workdir)), to_dict(config)))
        listed = "; ".join(f"{option} was {old!r}, is {new!r}" for option, old, new in found
                           if option not in RESULT_STAYS)
        if listed:
            raise UserError(f"{workdir} belongs to a run with another config: {listed}. "
                            "Name another --workdir, or repeat that config to go on")
        return not found
    if workdir.exists() and (not workdir.is_dir() or
                               {p.name for p in workdir.iterdir()} - {LOCK_FILE, f"{FILE}.part"}):
        raise UserError(f"{workdir} exists and is no run folder (it has no {FILE}); "
                        "name a new or empty folder")
    return False


def lock(workdir: pathlib.Path) -> AbstractContextManager[None]:
    """Keeps other processes from training in a folder, see `files.lock`."""
    return files.lock(workdir / LOCK_FILE, "name another --workdir")


def save_stream(workdir: pathlib.Path, stream: Stream) -> None:
    """Writes `stream.json`: the classes of each task and the numbers of their examples."""
    files.write(workdir / STREAM_FILE, json.dumps(to_json(stream), indent=1) + "\n")


def read_config(workdir: pathlib.Path) -> Config:
    """The config of a run folder.

    Raises:
      UserError: it is no run folder, or its config cannot be read.
    """
    path = workdir / FILE
    if not path.is_file():
        raise UserError(f"{workdir} is no run folder: {FILE} is missing; name the --workdir of a "
                        "training run")
    try:
        return from_dict(json.loads(path.read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); it may be "
                        "damaged, or of another version") from error


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain dictionaries, with only the modalities that were set."""
    return dataclasses.asdict(dataclasses.replace(
        config, encoders=dict(config.encoders), augment=dict(config.augment)))


def from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`."""
    config = Config()
    config.data = config_lib.DataConfig(**values["data"])
    config.data.preprocess = {m: config_lib.PREPROCESS[v["kind"]](**v)
                              for m, v in config.data.preprocess.items()}
    config.stream = config_lib.StreamConfig(**values["stream"])
    config.encoders.update({m: config_lib.EncoderConfig(**v) for m, v in values["encoders"].items()})
    config.augment.update({m: config_lib.AugmentConfig(**v) for m, v in values["augment"].items()})
    config.method = type(config_lib.method_config(values["method"]["name"]))(**values["method"])
    config.optimizer = config_lib.OptimizerConfig(**values["optimizer"])
    config.train = config_lib.TrainConfig(**values["train"])
    return config


def differences(old: Mapping[str, Any], new: Mapping[str, Any],
                prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, old value, new value) wherever two nested dictionaries differ."""
    for key in old | new:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from differences(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}", a, b
