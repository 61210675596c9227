"""What all commands share: flags, one-line errors, exit codes.

A command is a module with a docstring, its `FLAGS` and `main`. If it has a text `CONFIG`, --config and
every field of the config are flags too, and `main(chosen, command)` gets the chosen config and the
command line as it was typed. With `ARGUMENTS`, `main` gets the positional arguments; otherwise it is
`main()`. Slow imports are inside `main`, so that --help is quick.
"""
import dataclasses
import errno
import functools
import importlib
import os
import re
import sys
import types
from collections.abc import Sequence

from absl import app, flags, logging

from jaxmm import escape
from jaxmm.caches import use_compilation_cache
from jaxmm.commands import process
from jaxmm.config import Config
from jaxmm.errors import UserError, WriteError, all_as_typed, as_typed, suggest
from jaxmm.experiments import configs, listing
from jaxmm.signals import EXIT_CODE as EXIT_PREEMPTED, Preempted, stop_at_once

EXIT_USER_ERROR = 2     # an error that the user can correct
EXIT_NOT_FINITE = 3     # the loss is NaN or infinite
EXIT_NOT_WRITTEN = 74   # a file could not be written; fix that, and run the same command again
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull")


def run(command: types.ModuleType) -> None:
    """Parses the flags, calls the command's `main`, and prints errors that a user can fix in one line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    with process.streams():
        app.run(functools.partial(_guarded, command), flags_parser=functools.partial(_parse, command))


def name_of(command: types.ModuleType) -> str:
    """The name of a command on the command line."""
    return command.__name__.rpartition(".")[2]


def _parse(command, argv):
    """Sets the command's flags; returns the remaining arguments and the chosen config."""
    flags.FLAGS.mark_as_parsed()
    if any(arg in HELP for arg in argv[1:]):
        print(help_text(command))
        sys.exit()
    try:
        if hasattr(command, "CONFIG"):
            argv = _define_config(command, argv)
        rest = command.FLAGS(argv)
        known = getattr(command, "ARGUMENTS", ())
        if len(rest) > 1 + len(known):
            raise UserError(f"unexpected argument {rest[1 + len(known)]!r}; options are written --name=value")
        return rest if known else _chosen(command, argv)
    # The config library raises many types, KeyError and AttributeError among them.
    except Exception as error:  # pylint: disable=broad-exception-caught
        _fail(_unknown_field(argv, error) or _one_line(error))


def _define_config(command, argv: Sequence[str]) -> Sequence[str]:
    """Defines --config, whose fields are flags too; returns the command line with the default."""
    from ml_collections import config_flags
    if not any(re.match("--?config(=|$)", arg) for arg in argv[1:]):
        argv = [argv[0], f"--config={configs.DEFAULT}", *argv[1:]]
    config_flags.DEFINE_config_dataclass("config", Config(), command.CONFIG, command.FLAGS,
                                         sys_argv=argv, parse_fn=configs.load)
    return argv


def _chosen(command, argv):
    """[argv[0], Chosen, the command as it was typed], or [argv[0]] without a config."""
    if not hasattr(command, "CONFIG"):
        return argv[:1]
    from ml_collections import config_flags
    flag = command.FLAGS["config"]
    path = config_flags.get_config_filename(flag)
    chosen = configs.Chosen(path, configs.check(path, flag.value), config_flags.get_override_values(flag))
    typed = escape.command(sys.argv[1:])
    return [argv[0], chosen, f"{as_typed(name_of(command))} {typed}".rstrip()]


def help_text(command: types.ModuleType) -> str:
    """What --help shows: what it does, its options and, with a config, those of the config and the methods."""
    options = [(f"--{name}={_shown(command.FLAGS[name].default)}", command.FLAGS[name].help)
               for name in command.FLAGS]
    shown = [all_as_typed(command.__doc__)]
    if hasattr(command, "CONFIG"):
        options.append((f"--config={configs.DEFAULT}", command.CONFIG))
        shown += [f"Options of the command:\n{listing.table(options)}\n",
                  f"Options of the config:\n\n{listing.of_every_run()}\n",
                  f"Methods, each with options of its own that `{as_typed('list')} options METHOD` shows:\n"
                  f"{listing.table(listing.methods())}"]
    elif options:
        shown.append(f"Options:\n{listing.table(options)}")
    return "\n".join(shown)


def _shown(default) -> str:
    """The default of an option as it would be typed."""
    if isinstance(default, list):
        return ",".join(default)
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _unknown_field(argv: Sequence[str], error: Exception) -> str | None:
    """The message about an unknown field of the config, if that was the error; otherwise None."""
    section = r"<class '(?P<module>jaxmm\.[\w.]+)\.(?P<section>\w+)'>"
    for pattern in (rf"Field (?P<field>\w+) not found on dataclass {section}",
                    rf"Attribute {section}\.(?P<field>\w+) does not exist"):
        if found := re.search(pattern, str(error)):
            cls = getattr(importlib.import_module(found["module"]), found["section"])
            options = [f.name for f in dataclasses.fields(cls)]
            return f"{found['section']} has no option {found['field']!r}{suggest(found['field'], options)}"
    if isinstance(error, KeyError):         # an entry that is not there, all that the library says
        entry = str(error.args[0])
        option = next((arg for arg in argv if f".{entry}" in arg.partition("=")[0]), "--config")
        return f"{option}: the config has no {entry!r} there"
    return None


def _guarded(command, parsed):
    process.imported()
    use_compilation_cache()
    try:
        with stop_at_once():
            command.main(*parsed[1:])
    except BrokenPipeError:
        raise               # see `process.streams`
    except (WriteError, OSError) as error:
        full = any(os.strerror(number) in str(error) for number in NO_ROOM)
        if isinstance(error, WriteError) or full:
            _fail(f"{_one_line(error)}; {'free some space' if full else 'mend that'}, and the same "
                  "command resumes", EXIT_NOT_WRITTEN)
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
