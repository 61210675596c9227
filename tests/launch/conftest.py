import json
import os
import resource
import subprocess
import sys

import pytest

# Imports what commands import once, and forks for every call of `launch`, before any backend has started. There
# the command is imported, and what it imports when it runs, and forked for every command line. What the
# interpreter frees one by one at its end takes a second, which a child leaves out.
RUNNER = """
import importlib, json, os, sys, traceback
from jaxmm.commands import app
for module in "experiments.series", "report.comparison", "report.sweep":
    importlib.import_module(f"jaxmm.{module}")

def fork(call):
    child = os.fork()
    if child == 0:
        try:
            call()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def run_one(command, argv, i):
    for stream, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{i}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = argv
    app.run(command)

def run_all(folder, module, cases):
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    name = module.removeprefix("launch.")
    command = importlib.import_module(f"jaxmm.commands.{name}" if name != module else module)
    importlib.import_module(f"jaxmm.experiments.{'series' if name in ('train', module) else name}")
    codes = [fork(lambda: run_one(command, [module.replace(".", "/") + ".py", *arguments], i))
             for i, arguments in enumerate(cases)]
    with open("codes", "w") as file:
        json.dump(codes, file)

for line in sys.stdin:
    print(fork(lambda: run_all(*json.loads(line))), flush=True)
"""


@pytest.fixture(scope="session")
def runner():
    """runner(): a process of RUNNER with the environment and the limits of now, kept until they are others."""
    kept = {}

    def end():
        if kept:
            kept["process"].communicate()

    def get():
        ours = {k: x for k, x in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        ours |= {"PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
        key = ours, resource.getrlimit(resource.RLIMIT_FSIZE)
        if not kept or kept["key"] != key or kept["process"].poll() is not None:
            end()
            kept.update(key=key, process=subprocess.Popen(
                [sys.executable, "-c", RUNNER], text=True, env=ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return kept["process"]

    yield get
    end()


@pytest.fixture
def launch(tmp_path, runner):
    """launch(module, command lines): [(exit code, stdout, stderr)], all run in `tmp_path`."""

    def run(module, cases):
        scratch = tmp_path / "streams"
        scratch.mkdir(exist_ok=True)
        process = runner()
        process.stdin.write(json.dumps([str(scratch), module, cases]) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "0\n"
        codes = json.loads((scratch / "codes").read_text())
        return [(code, (scratch / f"{i}.out").read_text(), (scratch / f"{i}.err").read_text())
                for i, code in enumerate(codes)]

    return run
