"""Milliseconds and memory of a training step of large networks on CPU, beside PyTorch.

    python -m benchmarks.dense --rounds=3 --seconds=20 --torch="TORCH_PYTHON benchmarks/torch_dense.py"

`resnet3d18` is ResNet3D-18 on clips of 32 frames of 112 x 112, `esanet34` is ESANet with two encoders ResNet-34 of
one-dimensional blocks on images and depth of 256 x 320 (of 240 rows, the authors' network makes maps that cannot be
added to each other: sides are multiples of 32); batches of 2, SGD with momentum, float32. Programs take turns, each
in a process of its own, whose largest resident memory from the first timed step on is read. Leaves dense.json and
dense.md in the folder --output.
"""
import argparse
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
import time

import jax
import numpy as np

from jaxmm import files
from jaxmm.batch import Batch
from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.encoders import make_encoder
from jaxmm.methods.common import Method, TrainState
from jaxmm.methods.fusion import UnimodalConfig, make_unimodal
from jaxmm.methods.segment import SegmentConfig, make_segment
from jaxmm.model import Model
from jaxmm.report.tables import markdown
from jaxmm.task import classification, segmentation
from jaxmm.train.optimizers import make_optimizer
from jaxmm.train.plan import make_epoch
from jaxmm.train.programs import jit_whole

BATCH, CLASSES = 2, 40
SHAPES = {"resnet3d18": {"video": (32, 112, 112, 3)}, "esanet34": {"rgb": (256, 320, 3), "depth": (256, 320, 1)}}


def make_method(workload: str) -> tuple[Method, Batch]:
    """The method, and a batch of random inputs."""
    rng, shapes = np.random.default_rng(0), SHAPES[workload]
    encoders = {m: make_encoder(EncoderConfig(workload), len(shape)) for m, shape in shapes.items()}
    dense = workload == "esanet34"
    task = (segmentation if dense else classification)(tuple(map(str, range(CLASSES))))
    epoch = make_epoch([range(BATCH)], TrainConfig(batch_size=BATCH))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.01, weight_decay=0.0, schedule="constant"), 1, epoch)
    model = Model(encoders, task, lambda key, batch: batch, optimizer, epoch, BATCH, BATCH)
    label = rng.integers(CLASSES, size=(BATCH, *shapes["rgb"][:2]) if dense else BATCH).astype(np.int32)
    batch = {"inputs": {m: rng.normal(size=(BATCH, *shape)).astype(np.float32) for m, shape in shapes.items()},
             "label": label, "id": np.arange(BATCH, dtype=np.int32),
             "present": {m: np.ones(BATCH, bool) for m in shapes}}
    if dense:
        return make_segment(SegmentConfig(main="rgb"), model), batch
    return make_unimodal(UnimodalConfig(modality="video"), model), batch


def measure(workload: str, seconds: float) -> dict[str, float]:
    """Milliseconds of a step, MiB of memory, and seconds until the first step was done."""
    method, batch = make_method(workload)
    state, batch = first_state(method, batch), jax.device_put(batch)
    step = jit_whole(method.step, jax.default_backend(), donate_argnums=0)
    begin = time.perf_counter()
    state, metrics = jax.block_until_ready(step(state, batch))
    first = time.perf_counter() - begin
    forget_peak()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 2:
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state, batch))
        times.append(1e3 * (time.perf_counter() - begin))
    assert np.isfinite(metrics["loss"])
    return {"milliseconds": statistics.median(times), "mib": peak(), "first_seconds": first}


def first_state(method: Method, batch: Batch) -> TrainState:
    """A state with numbers of the host as parameters: to compile how they are drawn takes longer than a step."""
    rng, key = np.random.default_rng(1), jax.random.key(0)
    state = jax.eval_shape(method.init, key, batch)
    params = jax.tree.map(lambda x: np.float32(rng.normal(0, 0.05, x.shape) if x.ndim > 1 else np.ones(x.shape)),
                          state.params)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state._replace(params=(), key=()))
    return jax.device_put(zeros._replace(params=params, key=key))


def forget_peak() -> None:
    """Starts anew the largest resident memory of this process, as Linux counts it."""
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> float:
    """That memory, in MiB."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def run(command: list[str]) -> dict[str, float]:
    """The last line that a command prints, as JSON."""
    done = subprocess.run(command, text=True, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=",".join(SHAPES))
    parser.add_argument("--torch", default="", help="command of the PyTorch script")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each, after the first step")
    parser.add_argument("--output", type=pathlib.Path, default="benchmarks/dense")
    parser.add_argument("--measure", action="store_true", help="of this process alone, as a line of JSON")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.workloads, args.seconds)))
        return
    programs = {"jaxmm": lambda workload: run([sys.executable, "-m", "benchmarks.dense", "--measure",
                                               f"--workloads={workload}", f"--seconds={args.seconds}"])}
    if args.torch:
        programs["PyTorch"] = lambda workload: run([*shlex.split(args.torch), workload, f"--seconds={args.seconds}"])
    results, rows = {}, []
    for workload in args.workloads.split(","):
        found = results[workload] = {name: [] for name in programs}
        for _ in range(args.rounds):
            for name, program in programs.items():
                found[name].append(program(workload))
                print(workload, name, found[name][-1], flush=True)
        rows.append({"a step": workload} | summary(found))
    machine = (f"{os.cpu_count()} CPU cores ({platform.machine()}), jax {importlib.metadata.version('jax')}")
    table = markdown(rows, list(rows[0]))
    args.output.mkdir(parents=True, exist_ok=True)
    files.write(args.output / "dense.json", json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    files.write(args.output / "dense.md", f"{machine}; medians of {args.rounds} rounds in turn.\n\n{table}")
    print(table)


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, str]:
    """Medians over the rounds, and of the ratios of each round, by what they are of."""
    row = {}
    for name, rounds in found.items():
        row |= {f"{name}, ms": f"{statistics.median(r['milliseconds'] for r in rounds):.0f}",
                f"{name}, MiB": f"{statistics.median(r['mib'] for r in rounds):.0f}"}
    if len(found) > 1:
        for key, title in ("milliseconds", "ratio of times"), ("mib", "of memory"):
            ours, theirs = ([r[key] for r in rounds] for rounds in found.values())
            row[title] = f"{statistics.median(map(operator.truediv, ours, theirs)):.2f}"
    return row


if __name__ == "__main__":
    main()
