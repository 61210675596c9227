"""The commands, each run as `python -m launch.NAME`."""
import sys

if sys.argv[:1] == ["-m"]:      # so while Python looks for the module that it is about to run
    try:
        from jaxmm.commands import process
    except OSError as error:    # no folder is writable
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    process.begin()
