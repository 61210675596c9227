import json
import os
import subprocess
import sys

import pytest

# Imports the command, and what it imports when it runs, once and forks for every command line, before any backend has started. What the
# interpreter frees one by one at its end takes a second, which a child leaves out.
RUNNER = """
import importlib, json, os, sys, traceback
from jaxmm.commands import app
module, cases = sys.argv[1], json.load(sys.stdin)
name = module.removeprefix("launch.")
command = importlib.import_module(f"jaxmm.commands.{name}" if name != module else module)
importlib.import_module(f"jaxmm.experiments.{'series' if name in ('train', module) else name}")
for i, arguments in enumerate(cases):
    child = os.fork()
    if child == 0:
        for stream, descriptor in (("out", 1), ("err", 2)):
            os.dup2(os.open(f"{i}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.argv = [module.replace(".", "/") + ".py", *arguments]
        try:
            app.run(command)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture
def launch(tmp_path):
    """launch(module, command lines): [(exit code, stdout, stderr)], all run in `tmp_path`."""

    def run(module, cases):
        environment = os.environ | {"PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
        scratch = tmp_path / "streams"
        scratch.mkdir(exist_ok=True)
        done = subprocess.run([sys.executable, "-c", RUNNER, module], cwd=scratch, text=True,
                              input=json.dumps(cases), env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
        return [(int(code), (scratch / f"{i}.out").read_text(), (scratch / f"{i}.err").read_text())
                for i, code in enumerate(done.stdout.split())]

    return run
