"""Milliseconds and memory of a training step: of this checkout, of another one and of PyTorch, side by side.

    python -m benchmarks.steps --other=CHECKOUT --torch="TORCH_PYTHON SCRIPT" --output=FOLDER

Programs take turns, workload by workload and round by round, so that a machine whose speed drifts
is the same to all of them; ratios are medians over rounds. SCRIPT takes a workload's name and
--json, and prints {name: milliseconds}. Memory is the largest that a process had resident (less than
what this one has is not seen), compiling included: for that of training alone set
JAX_COMPILATION_CACHE_DIR and run it once before. Leaves steps.json and steps.md.
"""
import argparse
import functools
import importlib.metadata
import json
import operator
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys

from jaxmm import files
from jaxmm.report.tables import markdown
from jaxmm.experiments.bench import WORKLOADS


def run(command: list[str], folder: str) -> tuple[dict, float]:
    """The last line that a command prints, as JSON, and the MiB that it took."""
    environment = os.environ | {"PYTHONPATH": folder}
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return json.loads(printed.splitlines()[-1]), usage.ru_maxrss / 1024


def checkout(workload: str, folder: str, seconds: float) -> dict[str, float]:
    found, mib = run([sys.executable, "-m", "launch.bench", f"--workloads={workload}", f"--seconds={seconds}"], folder)
    return {"milliseconds": found["milliseconds_per_step"], "mib": mib}


def torch(workload: str, command: str) -> dict[str, float]:
    found, mib = run([*shlex.split(command), workload, "--json"], ".")
    return {"milliseconds": found[workload], "mib": mib}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--other", default="", help="folder of another checkout")
    parser.add_argument("--torch", default="", help="command of the PyTorch script")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each, after compiling")
    parser.add_argument("--output", type=pathlib.Path, default="benchmarks/steps")
    args = parser.parse_args()
    programs = {"jaxmm": functools.partial(checkout, folder=".", seconds=args.seconds)}
    if args.other:
        programs[pathlib.Path(args.other).name] = functools.partial(
            checkout, folder=args.other, seconds=args.seconds)
    if args.torch:
        programs["PyTorch"] = functools.partial(torch, command=args.torch)
    args.output.mkdir(parents=True, exist_ok=True)
    results, rows = {}, []
    for workload in args.workloads.split(","):
        found = results[workload] = {name: [] for name in programs}
        for _ in range(args.rounds):
            for name, measure in programs.items():
                found[name].append(measure(workload))
                print(workload, name, found[name][-1], flush=True)
        rows.append({"a step": workload} | summary(found))
    machine = (f"{os.cpu_count()} CPU cores ({platform.machine()}), "
               f"jax {importlib.metadata.version('jax')}")
    table = markdown(rows, list(rows[0]))
    files.write(args.output / "steps.json", json.dumps({"machine": machine, "results": results},
                                                       indent=1) + "\n")
    files.write(args.output / "steps.md",
                f"{machine}; medians of {args.rounds} rounds in turn.\n\n{table}")
    print(table)


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, str]:
    """Medians over the rounds, and of the ratios of each round to the first program."""
    ours, *others = found
    of = lambda name, key: [r[key] for r in found[name]]
    row = {f"{name}, ms": f"{statistics.median(of(name, 'milliseconds')):.4g}" for name in found}
    ratio = lambda name: statistics.median(map(operator.truediv, of(ours, "milliseconds"), of(name, "milliseconds")))
    row |= {f"{ours} / {name}": f"{ratio(name):.2f}" for name in others}
    return row | {f"{name}, MiB": f"{statistics.median(of(name, 'mib')):.0f}" for name in found}


if __name__ == "__main__":
    main()
