"""Configs by the name of a file, and those that come with the package."""
import copy
import importlib.machinery
import importlib.util
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jaxmm
from jaxmm import files
from jaxmm.config import Config
from jaxmm.errors import UserError, of, suggest
from jaxmm.experiments import recipes
from jaxmm.report.variants import RECIPE

DEFAULT = "av_digits"


class Chosen(NamedTuple):
    """A config as it was chosen."""
    path: str                       # FILE.py:ARGUMENT, FILE.json:METHOD or, for shipped ones, NAME:ARGUMENT
    config: Config                  # with the overrides
    overrides: Mapping[str, Any]    # by path, as "encoders.audio.width"


def folder() -> pathlib.Path:
    """The folder of the configs that come with the package: in it or, in a checkout, beside it."""
    package = pathlib.Path(jaxmm.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The configs that come with the package."""
    return sorted(path.stem for path in folder().glob("*.py") if path.stem != "__init__")


def shipped(name: str) -> pathlib.Path:
    """The file of a config that comes with the package."""
    return folder() / f"{name}.py"


def split(path: str) -> tuple[pathlib.Path, str]:
    """(file, argument or "") of what --config names.

    Raises:
      UserError: there is no such file, nor such a config in the package.
    """
    found = re.fullmatch(r"(.*?\.(?:json|py)(?=:|$)|[^:]*):?(.*)", path, re.DOTALL)
    assert found            # by anything
    name, argument = found.groups()
    file = files.expand(name)
    if file.suffix in (".json", ".py") or file.exists():
        return file, argument
    if name not in names():
        expected = f"a file such as configs/{DEFAULT}.py:mla, or one of"
        raise UserError(f"{name}: no such config{suggest(name, names(), expected)}")
    return shipped(name), argument


def load(path: str) -> Config:
    """The config that FILE.py makes of the argument after a colon, or that FILE.json holds.

    FILE.py is executed. FILE.json holds options and is never executed; a method after a colon replaces
    its method. "recipe=NAME" in place of a method is one of `recipes`.

    Raises:
      UserError: it cannot be loaded, is not a config, or has values of other types than its options.
    """
    file, argument = split(path)
    name, comma, size = argument.partition(",")     # as in FILE.py:METHOD,smoke
    if name.startswith(RECIPE):
        return recipes.config_of(name, lambda method: load(f"{file}:{method}{comma}{size}"))
    return check(path, _read_json(file, argument) if file.suffix == ".json" else _run(file, argument))


def check(path: str, config: Any) -> Config:
    """The config itself, made by the file at `path`, if it is valid.

    Raises:
      UserError: it is not a Config, or has values of other types than its options.
    """
    from jaxmm.train.options import from_dict, to_dict
    if not isinstance(config, Config):
        raise UserError(f"{path}: get_config returned {type(config).__name__}; expected a Config of "
                        "jaxmm.config")
    with of(path):
        from_dict(to_dict(config))
    return config


def config_for(chosen: Chosen, method: str) -> Config:
    """The chosen config for another method, with the same overrides.

    Overrides of options that only some methods have go to those that have them.
    """
    from ml_collections.config_flags import config_path
    file, argument = split(chosen.path)
    _, comma, size = argument.partition(",")        # as in FILE.py:METHOD,smoke
    config = load(f"{file}:{method}{comma}{size}")
    for path, value in chosen.overrides.items():
        if path.startswith("method.") and not hasattr(config.method, path.removeprefix("method.")):
            continue
        config_path.set_value(path, config, copy.deepcopy(value))
    return config


def default_methods(path: str) -> list[str] | None:
    """The methods that the config file names as `METHODS`, if it does."""
    file, _ = split(path)
    return None if file.suffix == ".json" else getattr(_module(file), "METHODS", None)


def _read_json(file: pathlib.Path, method: str) -> Config:
    from jaxmm.methods import method_config
    from jaxmm.train.options import load_json
    config = load_json(file)
    if method and method != config.method.name:
        config.method = method_config(method)
    return config


def _run(file: pathlib.Path, argument: str) -> Any:
    """What `get_config` of the file returns."""
    try:
        return _module(file).get_config(*filter(None, [argument]))
    except UserError:
        raise
    # A config file may raise anything, or end the process.
    except (Exception, SystemExit) as error:  # pylint: disable=broad-exception-caught
        if isinstance(error, FileNotFoundError) and error.filename == str(file):
            raise UserError(f"{file}: no such config file; expected one like "
                            f"configs/{DEFAULT}.py:mla") from error
        raise UserError(f"{file} cannot be loaded: {_last_line(error)}") from error


def _module(file: pathlib.Path):
    """The file, executed as a module; the next one replaces it in `sys.modules`."""
    loader = importlib.machinery.SourceFileLoader("jaxmm_config", str(file))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec             # of a loader that is given
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module       # dataclasses of the file look for it
    loader.exec_module(module)
    return module


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
