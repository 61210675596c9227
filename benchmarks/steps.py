"""Milliseconds of a training step: of this checkout, of another one and of PyTorch, side by side.

    python -m benchmarks.steps --other=CHECKOUT --torch="TORCH_PYTHON SCRIPT" --output=FOLDER

Programs take turns, workload by workload and round by round, so that a machine whose speed drifts
is the same to all of them; ratios are medians over rounds. SCRIPT takes a workload's name and
--json, and prints {name: milliseconds}. Leaves steps.json and steps.md.
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


def run(command: list[str], folder: str) -> dict:
    """The last line that a command prints, as JSON."""
    environment = os.environ | {"PYTHONPATH": folder}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def checkout(workload: str, folder: str, seconds: float) -> float:
    return run([sys.executable, "-m", "launch.bench", f"--workloads={workload}",
                f"--seconds={seconds}"], folder)["milliseconds_per_step"]


def torch(workload: str, command: str) -> float:
    return run([*shlex.split(command), workload, "--json"], ".")[workload]


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
        times = results[workload] = {name: [] for name in programs}
        for _ in range(args.rounds):
            for name, measure in programs.items():
                times[name].append(measure(workload))
                print(workload, name, times[name][-1], flush=True)
        ratios = {name: statistics.median(map(operator.truediv, times["jaxmm"], t))
                  for name, t in times.items() if name != "jaxmm"}
        rows.append({"ms / step": workload}
                    | {name: f"{statistics.median(t):.4g}" for name, t in times.items()}
                    | {f"jaxmm / {name}": f"{ratio:.2f}" for name, ratio in ratios.items()})
    machine = (f"{os.cpu_count()} CPU cores ({platform.machine()}), "
               f"jax {importlib.metadata.version('jax')}")
    table = markdown(rows, list(rows[0]))
    files.write(args.output / "steps.json", json.dumps({"machine": machine, "results": results},
                                                       indent=1) + "\n")
    files.write(args.output / "steps.md",
                f"{machine}; medians of {args.rounds} rounds in turn.\n\n{table}")
    print(table)


if __name__ == "__main__":
    main()
