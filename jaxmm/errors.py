"""The exception for what the user can fix, and the checks that raise it."""
import contextlib
import difflib
import pathlib
import re
import sys
from collections.abc import Collection, Iterable, Iterator


class UserError(Exception):
    """Something a user got wrong, in one line.

    The message names the thing, what was found, what was expected and what to do. Launchers
    print it without a traceback and exit with code 2.
    """


class WriteError(UserError):
    """A file of a run could not be written, as on a full disk; what was there before is kept.

    Launchers exit with code 74, and the same command resumes once there is room.
    """


@contextlib.contextmanager
def of(section: str) -> Iterator[None]:
    """Within it, messages of UserErrors start with the section of the config that they are about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{section}: {error}") from error


def suggest(name: str, known: Iterable[str], expected: str = "one of") -> str:
    """The end of a message about an unknown name: the nearest of the known names, then all of them.

    `expected` comes before the list of names.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return (f"; did you mean {near[0]}? Expected " if near else "; expected ") + f"{expected} {', '.join(known)}"


def as_typed(name: str) -> str:
    """What a user types for a command of this package: in the way that what runs now was typed.

    That is `python -m launch.NAME` in a checkout, `python -m jaxmm NAME`, or else `jaxmm NAME`.
    """
    program = pathlib.PurePath(sys.argv[0])
    if program.parent.name == "launch":
        return f"python -m launch.{name}"
    as_module = (program.parent.name, program.stem) == ("jaxmm", "__main__")
    return f"python -m jaxmm {name}" if as_module else f"jaxmm {name}"


def all_as_typed(text: str) -> str:
    """A text of the source that names commands as `jaxmm NAME`, or begins indented lines with them."""
    return re.sub(r"(?m)(^ +|`)jaxmm ([a-z]+)", lambda found: found[1] + as_typed(found[2]), text)


def check_choice(option: str, value: str, choices: Collection[str]) -> None:
    """Raises UserError, with the nearest match, unless `value` is one of the choices."""
    if value not in choices:
        raise UserError(f"{option}={value!r}{suggest(value, choices)}")


def check_at_least(option: str, value: float, least: float) -> None:
    """Raises UserError unless `value` is a finite number of at least `least`.

    A traced value passes, as its numbers were checked before tracing.
    """
    if not _is_traced(value) and not least <= value < float("inf"):
        raise UserError(f"{option}={value}; expected a number of at least {least}")


def check_above(option: str, value: float, bound: float) -> None:
    """Raises UserError unless `value` is a finite number above `bound`, or traced."""
    if not _is_traced(value) and not bound < value < float("inf"):
        raise UserError(f"{option}={value}; expected a number above {bound}")


def check_probability(option: str, value: float) -> None:
    """Raises UserError unless `value` is a probability in [0, 1), or traced."""
    if not _is_traced(value) and not 0 <= value < 1:
        raise UserError(f"{option}={value}; expected a probability in [0, 1)")


def check_share(option: str, value: float) -> None:
    """Raises UserError unless `value` is in [0, 1], or traced."""
    if not _is_traced(value) and not 0 <= value <= 1:
        raise UserError(f"{option}={value}; expected a share in [0, 1]")


def _is_traced(value) -> bool:
    jax = sys.modules.get("jax")        # where it is not imported nothing is traced
    return jax is not None and isinstance(value, jax.core.Tracer)
