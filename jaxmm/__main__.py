"""The command `jaxmm`, also `python -m jaxmm`: the entry point of all of `jaxmm.commands`."""
import importlib
import sys

from jaxmm.commands import COMMANDS
from jaxmm.errors import as_typed, suggest


def main() -> None:
    """Runs the command named first on the command line."""
    try:
        from jaxmm.commands import process
    except OSError as error:    # no folder is writable
        sys.exit(_refuse(str(error)))
    process.begin()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        with process.streams():
            print(f"{as_typed('COMMAND')} [--OPTION=VALUE ...]; `{as_typed('COMMAND --help')}` lists the "
                  "options\n")
            print("\n".join(f"  {known:9} {said}" for known, said in COMMANDS.items()))
        return
    if name not in COMMANDS:
        sys.exit(_refuse(f"{name!r} is not a command{suggest(name, COMMANDS)}"))
    from jaxmm.commands import app
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    app.run(importlib.import_module(f"jaxmm.commands.{name}"))


def _refuse(message: str) -> int:
    from jaxmm import escape
    print(f"error: {escape.printable(message)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
