"""The options of a run as JSON, and what is wrong with them."""
import dataclasses
import json
import keyword
import math
import pathlib
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmm import config as config_lib
from jaxmm import files
from jaxmm.config import AugmentConfig, Config
from jaxmm.errors import UserError, as_typed, check_at_least, check_choice, suggest
from jaxmm.methods import method_config

MADE_BY = "made_by"         # in `config.json`, beside the options: what made the run
LARGEST = 2**31 - 1     # whole number: steps, rows and seeds are int32 on the devices
FLOAT32 = np.finfo(np.float32)
MOST = {"seeds": 1000, "workers": 1024, "depth": 100}      # more is taken for a mistake
MOST_PREPROCESS = {"rate": 10**6, "seconds": 86400, "n_fft": 2**20, "mels": 2**14, "columns": 10**6,
                   "frames": 10**5, "height": 2**14, "width": 2**14, "size": 2**14, "length": 10**6}


def load_json(path: pathlib.Path, needed: Sequence[str] = ()) -> Config:
    """The config of a JSON file with the options as `to_dict` has them; nothing of it is executed.

    Raises:
      UserError: it cannot be read, lacks a required section, or has unknown options.
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
            raise UserError(f"{path}.kind is {_shown(kind)}"
                            f"{suggest(str(kind), filter(None, config_lib.PREPROCESS))}")
        cls = config_lib.PREPROCESS[kind]
    types = {f.name: f.type for f in dataclasses.fields(cls)}
    for name in values:
        if name not in types:
            raise UserError(f"{where} has no option {_shown(name)}{suggest(name, types)}")
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
    """A wrong value as messages show it, cut short."""
    if isinstance(value, (Mapping, list)):
        return "an object" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of more than 64 bits"
    return textwrap.shorten(json.dumps(value, default=repr), 60, placeholder="...")


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


def check_augmentation(modality: str, options: AugmentConfig, rank: int) -> None:
    """Raises UserError for augmentation out of range, or that examples of this rank cannot take.

    Vectors (rank 1) take only noise, and texts (rank 0) nothing.
    """
    for name, value in dataclasses.asdict(options).items():
        check_at_least(f"augment.{modality}.{name}", value, 0)
        if value and (rank == 0 or (rank == 1 and name != "noise")):
            takes = "vectors, which take only noise" if rank else "texts, which take none of it"
            raise UserError(f"augment.{modality}.{name}={value}: {modality} has {takes}")


def check_counts(config: Config) -> None:
    """Raises UserError for seeds, counts and choices out of range, and for numbers that are not finite."""
    _check_numbers("", to_dict(config))
    for section, name, least in (("data", "seed", 0), ("data", "workers", 0),
                                 ("data", "clips", 1), ("data", "crops", 1), ("stream", "seed", 0),
                                 ("train", "seed", 0), ("train", "epochs", 1), ("train", "batch_size", 1),
                                 ("train", "steps_per_call", 0), ("train", "seeds", 1),
                                 ("train", "eval_epochs", 1), ("train", "patience", 0),
                                 ("train", "checkpoint_epochs", 1), ("train", "keep_checkpoints", 1)):
        check_at_least(f"{section}.{name}", getattr(getattr(config, section), name), least)
    last = config.train.seed + config.train.seeds - 1
    if last > LARGEST:
        raise UserError(f"train.seeds={config.train.seeds} reaches the seed {last}; expected at most "
                        f"{LARGEST}")
    check_choice("train.on_save_error", config.train.on_save_error, ("stop", "continue"))


def _check_numbers(path: str, value: Any) -> None:
    """Raises UserError for a number in nested options that is not finite, or absurd."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_numbers(f"{path}.{name}" if path else name, part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            _check_numbers(path, part)
    elif isinstance(value, (int, float)):
        name = path.rpartition(".")[2]
        most = MOST.get(name, LARGEST if isinstance(value, int) else float(FLOAT32.max))
        if path.startswith("data.preprocess."):
            most = MOST_PREPROCESS.get(name, most)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}={value}; expected a finite number")
        if value > most:
            raise UserError(f"{path}={value}; expected at most {most}")
        if 0 < abs(value) < FLOAT32.tiny:
            raise UserError(f"{path}={value} is 0 in float32; expected 0, or at least "
                            f"{FLOAT32.tiny:.2g}")


def check_single(config: Config) -> None:
    """Raises UserError for what `check_counts` finds, and for a config of several runs."""
    check_counts(config)
    if config.train.seeds > 1:
        raise UserError(f"train.seeds={config.train.seeds} is for `{as_typed('train')}`; give "
                        f"`{as_typed('compare')}` --seeds, and functions a config for each seed")
