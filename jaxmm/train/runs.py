"""Run folders: which config a folder belongs to, and which process is at work in it."""
import dataclasses
import json
import keyword
import pathlib
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from jaxmm import config as config_lib
from jaxmm import files, provenance
from jaxmm.config import Config
from jaxmm.data import spec as spec_lib
from jaxmm.data.spec import DataSpec
from jaxmm.data.streams import Stream, to_json
from jaxmm.errors import UserError
from jaxmm.methods import method_config

FILE = "config.json"
MODEL_FILE = "model.json"
MOST_BYTES = 2**30          # of `model.json`: it has two numbers for every feature of a vector
MADE_BY = "made_by"         # in `config.json`, beside the options: what made the run
STREAM_FILE = "stream.json"
LOCK_FILE = "lock"
# What training adds to, or removes from, in a run folder: never through a link.
OWN = (FILE, MODEL_FILE, STREAM_FILE, LOCK_FILE, "metrics.jsonl", "checkpoints", "teachers", "tensorboard")
# Options that may change within a run: its result stays the same, or, with other steps_per_call,
# the same up to rounding. Data may move, as they are told by their checksums. Prepared data that are
# streamed, or not any more, have other ones.
RESULT_STAYS = ("data.path", "data.placement", "data.workers", "train.checkpoint_epochs",
                "train.keep_checkpoints", "train.on_save_error", "train.steps_per_call",
                "train.tensorboard")


@contextmanager
def claim_folder(workdir: pathlib.Path, config: Config) -> Iterator[None]:
    """Makes the folder, or checks that it belongs to a run of this config; locks it within.

    Raises:
      UserError: the folder holds another config, or files but no config, or another process is at
        work in it, or a part of it lies elsewhere. Nothing is written then.
    """
    check_folder(workdir, config)
    for name in OWN:
        files.check_own(workdir / name)
    with lock(workdir):
        if not check_folder(workdir, config):   # again: another process may have been faster
            made_by = _made_by(workdir) or provenance.describe()
            files.write(workdir / FILE, json.dumps(to_dict(config) | {MADE_BY: made_by}, indent=2) + "\n")
        yield


def _made_by(workdir: pathlib.Path) -> Any:
    """What made a run that is there already; None of a new one, or where an older version made it."""
    path = workdir / FILE
    return files.parse_json(files.read(path)).get(MADE_BY, {}) if path.exists() else None


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


def write_spec(workdir: pathlib.Path, spec: DataSpec) -> None:
    """Writes `model.json`: what a run keeps of its data."""
    files.write(workdir / MODEL_FILE, json.dumps(spec_lib.to_json(spec), indent=1) + "\n")


def read_spec(workdir: pathlib.Path) -> DataSpec | None:
    """What a run has kept of its data; None where an older version made it, which kept nothing.

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
      UserError: it is no run folder, or its config cannot be read.
    """
    path = workdir / FILE
    if not path.is_file():
        raise UserError(f"{workdir} is no run folder: {FILE} is missing; name the --workdir of a "
                        "training run")
    try:
        # Folders from before there was a task have none.
        return load_json(path, [f.name for f in dataclasses.fields(Config) if f.name != "task"])
    except UserError as error:
        raise UserError(f"{error}; it may be damaged, or of another version") from error


def load_json(path: pathlib.Path, needed: Sequence[str] = ()) -> Config:
    """The config of a JSON file with the options as `to_dict` has them; nothing of it is executed.

    Raises:
      UserError: it cannot be read, lacks a section that is needed, or has what is no option.
    """
    text = files.read(path)
    try:
        values = files.parse_json(text)
        if isinstance(values, dict):
            values.pop(MADE_BY, None)
        config = from_dict(values)
        for name in needed:
            if name not in values:
                raise ValueError(f"{name} is missing")
        return config
    except (ValueError, UserError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain dictionaries, with only the modalities that were set."""
    return dataclasses.asdict(dataclasses.replace(
        config, encoders=dict(config.encoders), augment=dict(config.augment)))


def from_dict(values: Any) -> Config:
    """The inverse of `to_dict`; options that are left out have their defaults.

    Raises:
      UserError: no such option, or a value of another type; one line names it.
    """
    config, found = Config(), vars(_section(Config, values, ""))
    for name in values:
        if name in ("encoders", "augment"):     # which know a default for every modality
            getattr(config, name).update(found[name])
        else:
            setattr(config, name, found[name])
    return config


def _section(cls: type, values: Any, path: str):
    """A dataclass of options from a dictionary of some of them."""
    where = path or "the config"
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {_shown(values)}; expected an object with options")
    if cls is config_lib.MethodConfig:
        if not isinstance(values.get("name"), str):
            raise UserError(f"{path}.name is {_shown(values.get('name'))}; expected a method")
        cls = type(method_config(values["name"]))
    if cls is config_lib.PreprocessConfig:
        kind = values.get("kind", "")
        if not isinstance(kind, str) or kind not in config_lib.PREPROCESS:
            raise UserError(f"{path}.kind is {_shown(kind)}; expected one of "
                            f"{', '.join(filter(None, config_lib.PREPROCESS))}")
        cls = config_lib.PREPROCESS[kind]
    types = {f.name: f.type for f in dataclasses.fields(cls)}
    for name in values:
        if name not in types:
            raise UserError(f"{where} has no option {_shown(name)}; expected one of "
                            f"{', '.join(types)}")
    return cls(**{name: _value(types[name], value, _join(path, name))
                  for name, value in values.items()})


def _value(kind: Any, value: Any, path: str) -> Any:
    """The value of an option of the type `kind`."""
    container, inner = typing.get_origin(kind), typing.get_args(kind)
    if container is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{path} is {_shown(value)}; expected an object by modality")
        return {m: _value(inner[1], v, _join(path, m)) for m, v in value.items()}
    if container is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{path} is {_shown(value)}; expected a list")
        return tuple(_value(inner[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _section(kind, value, path)
    if kind is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if type(value) is not kind or kind is int and not -2**63 <= value < 2**63:
        raise UserError(f"{path} is {_shown(value)}; expected {_EXPECTED[kind]}")
    return value


_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number",
             str: "text"}


def _shown(value: Any) -> str:
    """A value that has no place where it stands, cut short."""
    if isinstance(value, (Mapping, list)):
        return "an object" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of more than 64 bits"
    return textwrap.shorten(json.dumps(value), 60, placeholder="...")


def _join(path: str, name: str) -> str:
    """The path of an option on the command line: encoders.image.width, encoders['a.b'].width.

    Names of flags have no blanks and end at "=", so these are written as escapes.
    """
    if name.isidentifier() and not keyword.iskeyword(name):
        return f"{path}.{name}" if path else name
    quoted = repr(name).replace(" ", "\\x20").replace("=", "\\x3d")
    return f"{path}[{quoted}]"


def differences(old: Mapping[str, Any], new: Mapping[str, Any],
                prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, old value, new value) wherever two nested dictionaries differ."""
    for key in old | new:
        a, b = old.get(key), new.get(key)
        path = _join(prefix, key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from differences(a, b, path)
        elif a != b:
            yield path, a, b
