"""Run folders: which config a folder belongs to, and which process is at work in it."""
import dataclasses
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from absl import logging

from jaxmm import config as config_lib
from jaxmm import files
from jaxmm.config import Config
from jaxmm.data.streams import Stream, to_json
from jaxmm.errors import UserError

FILE = "config.json"
STREAM_FILE = "stream.json"
LOCK_FILE = "lock"
RESULT_STAYS = ("train.keep_checkpoints", "train.on_save_error")    # may change within a run


@contextmanager
def claim_folder(workdir: pathlib.Path, config: Config) -> Iterator[None]:
    """Makes the folder, or checks that it belongs to a run of this config; locks it within.

    Raises:
      UserError: the folder holds another config, or files but no config, or another process is at
        work in it. Nothing is written then.
    """
    check_folder(workdir, config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(workdir, error) from error
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


@contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from training in a folder.

    The lock is the operating system's, on the file `lock`, and ends with the process, however it
    ends; the file stays, and says who holds it. It holds between the hosts of an NFS mount, where
    the server gives up the lock of a host that is gone after its lease (NFS 4) or when the host is
    back (NFS 3). File systems that keep locks on each host (FUSE mounts of object stores, Lustre
    with `localflock`) do not show it to other hosts; on those without any, a warning says so.

    Raises:
      UserError: another process, or another run of this one, has it.
    """
    try:
        file = (workdir / LOCK_FILE).open("a+b", buffering=0)
    except OSError as error:
        raise _cannot_write(workdir, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{workdir} is in use by {_owner(file)}; wait for it, stop it, or name "
                            "another --workdir") from error
        except OSError as error:
            logging.warning("%s cannot be locked (%s): let no other process train in it", workdir,
                            error.strerror)
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        with suppress(OSError):     # on a full disk the lock holds all the same
            file.truncate(0)
            file.write(json.dumps(owner).encode())
        yield


def _owner(file) -> str:
    """Who holds a lock, and for how long."""
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return (f"process {owner['pid']} on {owner['host']}, for "
                f"{_duration(time.time() - owner['since'])}")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return "another process"    # which is about to say who it is


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def _cannot_write(workdir, error):
    return UserError(f"{workdir} cannot be written ({error.strerror}); name another --workdir")


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
