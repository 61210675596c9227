"""What all launchers share: flags, one-line errors, exit codes."""
import contextlib
import copy
import dataclasses
import errno
import functools
import importlib
import os
import pathlib
import re
import runpy
import sys
from collections.abc import Sequence

import jax
from absl import app, flags, logging
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from jaxmm import escape
from jaxmm.caches import cache_folder, is_writable
from jaxmm.config import Config
from jaxmm.errors import UserError, WriteError, of
from jaxmm.methods import method_config
from jaxmm.train.options import from_dict, load_json, to_dict
from jaxmm.signals import EXIT_CODE as EXIT_PREEMPTED, Preempted, stop_at_once
from launch import process

EXIT_USER_ERROR = 2     # something to correct
EXIT_NOT_FINITE = 3     # the loss is NaN or infinite
EXIT_NOT_WRITTEN = 74   # a file could not be written; mend that, and run the same command again
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(main) -> None:
    """Parses the flags, calls `main()`, and turns what a user can mend into one line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    with process.streams():
        app.run(functools.partial(_guarded, main), flags_parser=_parse_flags)


def define_config(help_text: str) -> None:
    """Defines --config, by default the file for av_digits, whose fields are flags too."""
    config_flags.DEFINE_config_file("config", None, f"{help_text} Default: {_default_config()}.")
    flags.FLAGS["config"].parser = _Parser("config")


def config_for(method: str) -> Config:
    """The config of --config for another method, with the same overrides.

    Overrides of options that only some methods have go to those that have them.
    """
    flag = flags.FLAGS["config"]
    filename, argument = _split(config_flags.get_config_filename(flag))
    _, comma, size = argument.partition(",")        # as in FILE.py:METHOD,smoke
    config = _Parser("config").parse(f"{filename}:{method}{comma}{size}")
    for path, value in config_flags.get_override_values(flag).items():
        if path.startswith("method."):
            if not hasattr(config.method, path.removeprefix("method.")):
                continue
        config_path.set_value(path, config, copy.deepcopy(value))
    return config


def default_methods() -> list[str] | None:
    """The methods that the file of --config names as `METHODS`, if it does."""
    filename, _ = _split(config_flags.get_config_filename(flags.FLAGS["config"]))
    return None if filename.endswith(".json") else runpy.run_path(filename).get("METHODS")


def load_config(option: str, path: str) -> Config:
    """The config of a file, as --config names it, that is named by another option.

    Raises:
      UserError: it cannot be loaded.
    """
    try:
        return _checked(path, _Parser("config").parse(path))
    except (OSError, UserError) as error:
        raise UserError(f"{option}={path} cannot be loaded: {_one_line(error)}") from error


def workdir_flag(value: str, default: str) -> pathlib.Path:
    """The run folder of --workdir, or `default` under runs/.

    Raises:
      UserError: it is the address of something that is no folder of this machine, or it has
        {teacher} or {seed} in its name, for which those of teachers would stand.
    """
    check_local("--workdir", value)
    for name in ("{teacher}", "{seed}"):
        if name in value:
            raise UserError(f"--workdir={value}: {name} stands for those of teachers; choose another "
                            "name")
    # Shells leave the ~ in --workdir=~/runs as it is.
    return pathlib.Path(value).expanduser() if value else pathlib.Path("runs") / default


def check_local(option: str, value: str) -> None:
    """Raises UserError if a folder to write to is the address of something elsewhere."""
    if re.match(r"[\w+.-]+://", value):
        raise UserError(f"{option}={value}; expected a folder of this machine: mount what is "
                        "elsewhere, or copy the result there when it is done")


def data_name(config: Config) -> str:
    """What a run learns from, as part of the names of folders."""
    return "_".join(filter(None, [config.data.name, config.data.kind, config.stream.kind]))


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, if it is writable, for the next start."""
    folder = cache_folder() / "xla"
    if not is_writable(folder):
        logging.warning("%s is not writable, so every start compiles anew; name another folder by "
                        "JAXMM_CACHE", folder)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _default_config() -> pathlib.Path:
    """configs/av_digits.py here, or beside this package when started elsewhere."""
    here = pathlib.Path("configs/av_digits.py")
    return here if here.exists() else pathlib.Path(__file__).parent.parent / here


class _Parser(config_flags.config_flags.ConfigFileFlagParser):
    """Reads FILE.json, which holds options and is never executed, or runs FILE.py."""

    def parse(self, path: str) -> Config:
        filename, method = _split(path)
        if not filename.endswith(".json"):
            try:
                return super().parse(path)
            # A config file may raise anything, or end the process.
            except (Exception, SystemExit) as error:  # pylint: disable=broad-exception-caught
                raise UserError(f"{filename} cannot be loaded: {_one_line(error)}") from error
        config = load_json(pathlib.Path(filename))
        if method and method != config.method.name:
            config.method = method_config(method)
        return config


def _split(path: str) -> tuple[str, str]:
    """(file, method or "") of what --config names."""
    return re.fullmatch(r"(.*?\.(?:json|py)(?=:|$)|[^:]*):?(.*)", path, re.DOTALL).groups()


def _parse_flags(argv):
    if "config" in flags.FLAGS:     # for --help, which shows the flags of the main module
        flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS["config"])
        # Not the flag's own default, which would be parsed, and fail, where it is defined.
        if not any(re.match("--?config(=|$)", arg) for arg in argv[1:]):
            argv = [argv[0], f"--config={_default_config()}", *argv[1:]]
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise UserError(f"unexpected argument {rest[1]!r}; options are written --name=value")
        if "config" in flags.FLAGS:
            _checked(config_flags.get_config_filename(flags.FLAGS["config"]), flags.FLAGS.config)
        return rest
    # The config library raises many types, KeyError and AttributeError among them.
    except Exception as error:  # pylint: disable=broad-exception-caught
        if isinstance(error, FileNotFoundError):
            _fail(f"{error.filename}: no such config file; expected one like "
                  f"{_default_config()}:mla")
        _fail(_unknown_field(argv, error) or _one_line(error))


def _checked(path: str, config) -> Config:
    """The config that was made by the file at `path`, if it is one.

    Raises:
      UserError: it is none, or has values of other types than its options.
      OSError: the file could not be read, which is known only now.
    """
    with contextlib.suppress(AttributeError):
        config.train        # a config that failed to load says so only when used
    if not isinstance(config, Config):
        raise UserError(f"{path}: get_config returned {type(config).__name__}; expected a Config of "
                        "jaxmm.config")
    with of(path):
        from_dict(to_dict(config))
    return config


def _unknown_field(argv: Sequence[str], error: Exception) -> str | None:
    """What to say of a field that the config does not have, if that is what went wrong."""
    section = r"<class '(?P<module>jaxmm\.[\w.]+)\.(?P<section>\w+)'>"
    for pattern in (rf"Field (?P<field>\w+) not found on dataclass {section}",
                    rf"Attribute {section}\.(?P<field>\w+) does not exist"):
        if found := re.search(pattern, str(error)):
            cls = getattr(importlib.import_module(found["module"]), found["section"])
            options = [f.name for f in dataclasses.fields(cls)]
            return (f"{found['section']} has no option {found['field']!r}; expected one of "
                    f"{', '.join(options)}")
    if isinstance(error, KeyError):         # an entry that is not there, all that the library says
        entry = str(error.args[0])
        option = next((arg for arg in argv if f".{entry}" in arg.partition("=")[0]), "--config")
        return f"{option}: the config has no {entry!r} there"
    return None


def _guarded(main, argv):
    del argv
    use_compilation_cache()
    try:
        with stop_at_once():
            main()
    except BrokenPipeError:
        raise               # see `process.streams`
    except (WriteError, OSError) as error:
        full = any(os.strerror(number) in str(error) for number in NO_ROOM)
        if isinstance(error, WriteError) or full:
            _fail(f"{_one_line(error)}; {'free some space' if full else 'mend that'}, and the same "
                  "command goes on", EXIT_NOT_WRITTEN)
        if not error.filename:
            raise
        _fail(f"{error.filename}: {error.strerror}")
    except UserError as error:
        _fail(_one_line(error))
    except FloatingPointError as error:
        _fail(_one_line(error), EXIT_NOT_FINITE)
    except Preempted as stop:
        print(stop, file=sys.stderr)
        sys.exit(EXIT_PREEMPTED)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, UserError):    # lines are those of a name
        return " ".join(lines)
    return lines[-1] if lines else type(error).__name__


def _fail(message: str, code: int = EXIT_USER_ERROR):
    print(f"error: {escape.printable(message)}", file=sys.stderr)
    sys.exit(code)
