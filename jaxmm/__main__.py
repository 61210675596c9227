"""The command `jaxmm`, also `python -m jaxmm`: one front door to all of `jaxmm.commands`."""
import importlib
import sys

COMMANDS = {
    "train": "train one model and leave a run folder", "evaluate": "evaluate and analyse a trained model",
    "predict": "predict rows without labels", "export": "write a model for programs without jaxmm",
    "compare": "compare methods over several seeds",
    "advise": "say whether to distil or to average, on your data",
    "prepare": "turn a data set on disk into records", "bench": "time training steps",
    "list": "list methods, configs, data sets, encoders, options"}


def main() -> None:
    """Runs the command named first on the command line."""
    try:
        from jaxmm.commands import process
    except OSError as error:    # no folder is writable
        sys.exit(_refuse(str(error)))
    process.begin()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        print("jaxmm COMMAND [--OPTION=VALUE ...]; `jaxmm COMMAND --help` lists the options\n")
        print("\n".join(f"  {command:9} {said}" for command, said in COMMANDS.items()))
        return
    if name not in COMMANDS:
        from jaxmm.errors import suggest
        sys.exit(_refuse(f"{name!r} is not a command{suggest(name, COMMANDS)}"))
    from jaxmm.commands import app
    sys.argv = [f"jaxmm {name}", *sys.argv[2:]]
    app.run(importlib.import_module(f"jaxmm.commands.{name}"))


def _refuse(message: str) -> int:
    from jaxmm import escape
    print(f"error: {escape.printable(message)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
