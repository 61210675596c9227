"""Times training steps on a GPU or TPU: the fixed workloads by precision, batch and seeds, beside PyTorch.

Every measurement runs in a process of its own and is kept as soon as it is there, so that one that
fails is a row with its reason and a stopped command goes on where it was. They come in the order of
`ROUNDS`, what says most first, as a machine may be at hand for minutes only.
"""
import collections
import contextlib
import dataclasses
import gzip
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from jaxmm import files
from jaxmm.batch import batch_size, take
from jaxmm.config import Config, replace
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError
from jaxmm.experiments import bench
from jaxmm.methods.samm import SAMMConfig
from jaxmm.report.tables import markdown
from jaxmm.train.programs import jit_whole

JAXMM, TRACE = "jaxmm", "jaxmm traced"
EAGER, COMPILED, GIVEN = "PyTorch", "PyTorch compiled", "PyTorch given"
# The precision of products: all 23 bits of float32; what the card takes by default (on GPUs TF32, on
# TPUs one pass in bfloat16); encoders that compute in bfloat16.
PRECISIONS = {"float32": "highest", "tf32": None, "bfloat16": None}
FACTORS = (1, 4, 16, 64)        # of a workload's own batch
GROWTH = 1.1                    # a batch is worth trying while the one before it gave this much more
LARGER = FACTORS[1:]
WORKLOADS = ("mla_cremad", "samm_vggsound", "mla_small", "concat_small", "samm_small", "mla_features",
             "concat_features")
ROUNDS = (
    # (precision, seeds, factors, programs)
    ("tf32", 1, (1,), (JAXMM, EAGER, GIVEN)),
    ("tf32", 1, (1,), (TRACE,)),
    ("bfloat16", 1, (1,), (JAXMM, EAGER)),
    ("tf32", 1, LARGER, (JAXMM, EAGER)),
    ("float32", 1, (1,), (JAXMM, EAGER, GIVEN)),
    ("tf32", 4, (1,), (JAXMM,)),
    ("bfloat16", 1, LARGER, (JAXMM, EAGER)),
    ("tf32", 1, FACTORS, (COMPILED,)),
    ("bfloat16", 1, FACTORS, (COMPILED,)),
    ("float32", 1, LARGER, (JAXMM, EAGER)),
    ("float32", 1, FACTORS, (COMPILED,)),
    ("tf32", 4, LARGER, (JAXMM,)),
    ("bfloat16", 4, FACTORS, (JAXMM,)),
    ("float32", 4, FACTORS, (JAXMM,)),
)
MOST_SECONDS = 180              # for one measurement, compilation included
FLOPS_PER_CALL = 4e12           # of the steps scanned in one call, if more than one
GROUPS = 5                      # of calls, each timed as a whole; the median counts
PEAKS = (
    # (pattern of the device's name, dense TFLOP/s of products in each precision), from the data sheets. A
    # TPU takes six passes in bfloat16 for a product in float32.
    (r"H100.*PCIe", {"float32": 51, "tf32": 378, "bfloat16": 756}),
    (r"H[12]00", {"float32": 67, "tf32": 495, "bfloat16": 989}),
    (r"A100", {"float32": 19.5, "tf32": 156, "bfloat16": 312}),
    (r"\bL4\b", {"float32": 30.3, "tf32": 60, "bfloat16": 121}),
    (r"\bT4\b", {"float32": 8.1, "tf32": 8.1}),
    (r"V100", {"float32": 15.7, "tf32": 15.7}),
    (r"TPU v4", {"float32": 275 / 6, "tf32": 275, "bfloat16": 275}),
    (r"TPU v5 ?(lite|e)", {"float32": 197 / 6, "tf32": 197, "bfloat16": 197}),
    (r"TPU v5", {"float32": 459 / 6, "tf32": 459, "bfloat16": 459}),
    (r"TPU v6", {"float32": 918 / 6, "tf32": 918, "bfloat16": 918}),
)
TORCH_SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "torch_accelerator.py"
SEES_GPU = "import torch; torch.zeros(1).cuda()"
OPTIONS = ("--precision", "--batch", "--compile")       # of a PyTorch script that takes any point


class Point(NamedTuple):
    """One measurement."""
    workload: str
    precision: str
    factor: int             # the batch, in batches of the workload
    seeds: int
    program: str

    @property
    def batch(self) -> int:
        """Examples in a step of one run."""
        return self.factor * bench.WORKLOADS[self.workload][1]


Results = Mapping[Point, Mapping[str, Any]]     # figures of a point, or the reason why it "failed"


def peak(kind: str, precision: str) -> float | None:
    """TFLOP/s that the device of this name can do; None if that is not known."""
    known = next((peaks for pattern, peaks in PEAKS if re.search(pattern, kind)), {})
    return known.get(precision)


def next_point(results: Results, programs: Mapping[str, Collection[str]]) -> Point | None:
    """The next measurement by `ROUNDS`, of these programs and their workloads; None if all are there."""
    for precision, seeds, factors, wanted in ROUNDS:
        for workload in WORKLOADS:
            for factor in factors:
                for program in wanted:
                    point = Point(workload, precision, factor, seeds, program)
                    if workload in programs.get(program, ()) and point not in results and is_due(
                            point, results):
                        return point
    return None


def is_due(point: Point, results: Results) -> bool:
    """Whether a point is worth measuring after these results.

    A larger batch is if the one before it was faster by `GROWTH` than the one before that; PyTorch is where
    jaxmm has a figure, and if it has to compile only at the workload's own batch and the best one; a trace
    is of the workload with the most operations.
    """
    ladder = [point._replace(program=JAXMM, factor=factor) for factor in FACTORS]
    rates = {p.factor: results[p]["examples_per_second"] for p in ladder
             if "failed" not in results.get(p, {"failed": ""})}
    if point.program == TRACE:
        return point == largest_point(results)
    if point.program == COMPILED:
        return point.factor in rates and point.factor in (1, max(rates, key=rates.get))
    if point.program != JAXMM:
        return point.factor in rates
    before = FACTORS[:FACTORS.index(point.factor)][-2:]
    if not set(before) <= set(rates):
        return False
    return len(before) < 2 or rates[before[1]] >= GROWTH * rates[before[0]]


def workload_at(point: Point) -> tuple[Config, Dataset]:
    """Config and rows of a point: those of the workload, repeated up to the batch."""
    config, dataset = bench.synthetic(point.workload)
    config = replace(config, {"train.batch_size": point.batch, "data.placement": "device"})
    if isinstance(config.method, SAMMConfig):       # which replays as many as a batch has
        config.method.capacity = max(config.method.capacity, point.batch)
    if point.precision == "bfloat16":
        config.encoders = {m: dataclasses.replace(encoder, dtype="bfloat16")
                           for m, encoder in config.encoders.items()}
    split = dataset.splits["train"]
    rows = np.arange(max(point.batch, batch_size(split))) % batch_size(split)
    return config, dataset._replace(splits=dict(dataset.splits) | {"train": take(split, rows)})


class Program(NamedTuple):
    """A compiled training program and what it runs on."""
    call: Callable          # state -> state, after `steps` steps; it returns before they are done
    state: Any
    steps: int
    flops: float | None     # of one step of all runs, if known
    compile_seconds: float


def compile_steps(config: Config, dataset: Dataset, precision: str, seeds: int,
                  devices: Sequence[jax.Device]) -> Program:
    """The training program of a workload for one device, with as many steps as `FLOPS_PER_CALL` allows."""
    setup, state = bench.build(config, dataset, seeds, devices)
    feed = setup.programs.feed(setup.dataset.splits["train"], config.data.placement)
    program = jit_whole(setup.programs.steps, devices[0].platform, donate_argnums=0)
    rng = np.random.default_rng(0)

    def rows(steps):
        shape = (steps, seeds, config.train.batch_size) if seeds > 1 else (steps, config.train.batch_size)
        return jax.device_put(feed.at(rng.integers(batch_size(setup.dataset.splits["train"]), size=shape,
                                                   dtype=np.int32)), devices[0])

    with jax.default_matmul_precision(PRECISIONS[precision]):
        # XLA counts what is in a loop once, so this is not taken of the program that scans.
        flops = count_operations(program.lower(state, rows(1)))
        steps = int(np.clip(FLOPS_PER_CALL // (flops or 1e12), 1, setup.steps_per_call))
        fed = rows(steps)
        begin = time.perf_counter()
        compiled = program.lower(state, fed).compile()
        seconds = time.perf_counter() - begin
    return Program(lambda state: compiled(state, fed)[0], state, steps, flops, seconds)


def count_operations(lowered) -> float | None:
    """Floating-point operations of a program before it is compiled; None where XLA does not say."""
    try:
        return lowered.cost_analysis()["flops"]
    except Exception as error:      # pylint: disable=broad-exception-caught
        logging.warning("operations are not counted here: %s", error)
        return None


def time_calls(call: Callable, state: Any, seconds: float) -> tuple[float, Any]:
    """Median seconds of a call, over groups of calls that are waited for together; and the last state."""
    for _ in range(2):      # the first may be slow
        begin = time.perf_counter()
        state = jax.block_until_ready(call(state))
        once = time.perf_counter() - begin
    count, times = max(1, int(seconds / GROUPS / once)), []
    for _ in range(GROUPS):
        begin = time.perf_counter()
        for _ in range(count):
            state = call(state)
        jax.block_until_ready(state)
        times.append((time.perf_counter() - begin) / count)
    return statistics.median(times), state


def measure(config: Config, dataset: Dataset, precision: str, seeds: int, seconds: float,
            devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Figures of a training step of all runs on one device."""
    program = compile_steps(config, dataset, precision, seeds, devices)
    duration = time_calls(program.call, program.state, seconds)[0] / program.steps
    teraflops = program.flops and program.flops / duration / 1e12
    limit = peak(devices[0].device_kind, precision)
    return {"milliseconds_per_step": round(1e3 * duration, 4),
            "examples_per_second": round(seeds * config.train.batch_size / duration, 1),
            "gigaflop_per_step": program.flops and float(f"{program.flops / 1e9:.5g}"),
            "teraflops": teraflops and float(f"{teraflops:.4g}"),
            "share_of_peak": limit and teraflops and round(teraflops / limit, 4),
            "peak_memory_mib": round(bench.peak_memory() / 2**20),
            "compile_seconds": round(program.compile_seconds, 2),
            "steps_per_call": program.steps}


def run_point(point: Point, seconds: float) -> dict[str, Any]:
    """Figures of a point of this package, or the reason why there are none. For a new process."""
    try:
        return measure(*workload_at(point), point.precision, point.seeds, seconds, jax.local_devices()[:1])
    except Exception as error:      # pylint: disable=broad-exception-caught
        return {"failed": reason(f"{type(error).__name__}: {error}")}


def reason(message: str) -> str:
    """Why a measurement failed, in one line."""
    if re.search("resource_?exhausted|out ?of ?memory", message, re.IGNORECASE):
        return "out of memory"
    return next((line.strip() for line in message.splitlines() if line.strip()), "unknown")[:300]


def run_torch(point: Point, seconds: float, command: str, timeout: float) -> dict[str, Any]:
    """Figures of a point of PyTorch, by a command that prints {workload: milliseconds} as JSON.

    A script without the `OPTIONS` runs the workload's own batch; whether products are rounded to TF32 is then
    told by the variables that PyTorch and NVIDIA's libraries read.
    """
    options = [point.workload, "--device", "cuda", "--json"]
    if point.program != GIVEN:
        options += ["--precision", point.precision, "--batch", str(point.batch), "--seconds", str(seconds)]
        options += ["--compile"] * (point.program == COMPILED)
    variables = {"NVIDIA_TF32_OVERRIDE": "0"} if point.precision == "float32" else {
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    try:
        done = subprocess.run(shlex.split(command) + options, env=os.environ | variables, text=True,
                              capture_output=True, timeout=timeout, check=False)
    except OSError as error:
        return {"failed": reason(f"{command}: {error.strerror}")}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit {done.returncode}"]
        return {"failed": reason(done.stderr) if "memory" in reason(done.stderr) else reason(lines[-1])}
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        milliseconds = float(found[point.workload])
    except (IndexError, KeyError, TypeError, ValueError):
        return {"failed": f"{command} printed no JSON with {point.workload}"}
    return {"milliseconds_per_step": milliseconds,
            "examples_per_second": round(1e3 * point.batch / milliseconds, 1)} | {
                name: found[name] for name in ("peak_memory_mib", "compile_seconds") if name in found}


def find_torch(given: str) -> dict[str, tuple[str, list[str]]]:
    """Command and workloads by program of PyTorch.

    They are this project's script, if PyTorch sees a GPU here, and the given one. Workloads are those that
    its --help names; all, if it names none.
    """
    scripts = [given] if given else []
    if TORCH_SCRIPT.exists() and _answers(shlex.join([sys.executable, "-c", SEES_GPU])) is not None:
        scripts.insert(0, shlex.join([sys.executable, str(TORCH_SCRIPT)]))
    found = {}
    for script in scripts:
        words = _answers(f"{script} --help")
        if words is None:
            raise UserError(f"--torch={script}: it fails with --help; expected a command that runs a "
                            "PyTorch script")
        workloads = [name for name in WORKLOADS if name in words] or list(WORKLOADS)
        programs = (EAGER, COMPILED) if all(option in words for option in OPTIONS) else (GIVEN,)
        found |= dict.fromkeys(programs, (script, workloads))
    return found


def _answers(command: str) -> str | None:
    """What a command prints; None if it cannot be run or fails."""
    with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):   # ValueError: an open quote
        done = subprocess.run(shlex.split(command), text=True, capture_output=True, timeout=120, check=False)
        return None if done.returncode else done.stdout
    return None


def look() -> dict[str, Any]:
    """What JAX finds here. For a new process, as it takes most of the device's memory."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    return {"platform": device.platform, "device": device.device_kind, "devices": jax.local_device_count(),
            "memory_gib": round(stats.get("bytes_limit", 0) / 2**30, 1), "cpu_cores": os.cpu_count(),
            "python": platform.python_version()} | {
                name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}


def accelerator(names: Sequence[str], output: str, seconds: float, minutes: float, torch: str, profile: bool,
                command: str) -> str:
    """Measures what is not there yet on the GPU or TPU of this machine; returns the table.

    Args:
      names: of workloads; all if empty.
      output: folder for accelerator.json and accelerator.md; measurements of a stopped command are kept.
      seconds: to measure each point for.
      minutes: after which nothing new is begun; 0: none.
      torch: command of a PyTorch script; "": this project's, if PyTorch is installed.
      profile: whether to write a trace of the largest workload.
      command: that was typed.

    Raises:
      UserError: there is no accelerator, an option is wrong, or the folder has measurements of another
        machine.
    """
    chosen = bench.select(names) or WORKLOADS
    if not math.isfinite(minutes):
        raise UserError(f"--minutes={minutes}; expected a finite number of minutes")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")     # for batches that fill the device
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    machine = bench.in_new_process(look)
    if machine["platform"] == "cpu":
        raise UserError(f"--accelerator: found {machine['device']} alone ({machine['devices']} devices, "
                        f"jax {machine['jax']}); expected a GPU or TPU that JAX sees; install jax[cuda] or "
                        "jax[tpu] there, or leave --accelerator out")
    scripts = find_torch(torch)
    programs = {JAXMM: chosen, TRACE: chosen if profile else ()} | {
        program: [name for name in chosen if name in does] for program, (_, does) in scripts.items()}
    folder = files.expand(output)
    folder.mkdir(parents=True, exist_ok=True)
    results = load(folder, machine)

    def run(point: Point, timeout: float) -> dict[str, Any]:
        if point.program == JAXMM:
            return bench.in_new_process(run_point, point, seconds, timeout=timeout)
        if point.program == TRACE:
            return bench.in_new_process(run_trace, point, str(folder / "profile"), timeout=timeout)
        return run_torch(point, seconds, scripts[point.program][0], timeout)

    complete = measure_all(results, programs, run, end, lambda: save(folder, machine, results, command))
    save(folder, machine, results, command)
    return table(results) + ("" if complete else f"\nThe time of --minutes={minutes} is over; the same "
                             "command measures what is left.\n")


def measure_all(results: dict[Point, Mapping[str, Any]], programs: Mapping[str, Collection[str]],
                run: Callable, end: float, kept: Callable[[], None]) -> bool:
    """Adds to the results what is due, until `time.monotonic()` is `end`; returns whether that is all.

    Args:
      results: of points that were measured before.
      programs: see `next_point`.
      run: (point, timeout) -> figures.
      end: what is not done by then is not recorded, as it would be in more time.
      kept: called after each.
    """
    while point := next_point(results, programs):
        left = end - time.monotonic()
        if left <= 0:
            return False
        try:
            found = run(point, min(left, MOST_SECONDS))
        except (TimeoutError, subprocess.TimeoutExpired):
            if left < MOST_SECONDS:
                return False
            found = {"failed": f"not done in {MOST_SECONDS} s"}
        except UserError as error:      # its process was killed
            found = {"failed": str(error)}
        results[point] = found
        kept()
        print(json.dumps(point._asdict() | dict(found)), flush=True)
    return True


def largest_point(results: Results) -> Point | None:
    """The point that is traced: of the workload with the most operations in a step."""
    steps = {point: found["gigaflop_per_step"] or 0 for point, found in results.items()
             if point[1:] == ("tf32", 1, 1, JAXMM) and "failed" not in found}
    return max(steps, key=steps.get)._replace(program=TRACE) if steps else None


def run_trace(point: Point, folder: str) -> dict[str, Any]:
    """Writes a trace of jax.profiler of a few calls. For a new process."""
    try:
        config, dataset = workload_at(point)
        program = compile_steps(config, dataset, point.precision, point.seeds, jax.local_devices()[:1])
        state = program.state
        for _ in range(2):
            state = jax.block_until_ready(program.call(state))
        with jax.profiler.trace(folder):
            for _ in range(3):
                state = program.call(state)
            jax.block_until_ready(state)
    except Exception as error:      # pylint: disable=broad-exception-caught
        return {"failed": reason(f"{type(error).__name__}: {error}")}
    return {"trace": folder, "operations": operations(pathlib.Path(folder), 3 * program.steps)}


def operations(folder: pathlib.Path, steps: int) -> dict[str, tuple[float, float]]:
    """(milliseconds, calls) in a step of every kind of operation in a trace of so many, longest first."""
    traces = sorted(folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    events = json.loads(gzip.decompress(traces[-1].read_bytes()))["traceEvents"] if traces else []
    lines = {(event["pid"], event["tid"]): event["args"]["name"] for event in events
             if event.get("name") == "thread_name"}
    # On GPUs and TPUs the same time is told on several lines; on CPU there are only threads.
    own = next((own for start in ("Stream", "XLA Ops")
                if (own := {line for line, name in lines.items() if name.startswith(start)})), lines)
    found = collections.defaultdict(lambda: (0.0, 0.0))
    for event in events:
        if event.get("ph") == "X" and (event["pid"], event["tid"]) in own and (
                own is not lines or "hlo_op" in event.get("args", {})):
            kind = re.sub(r"[._\d]+$", "", event["name"])[:80]
            if kind not in ("while", "call", "conditional"):        # what is in them is told as well
                milliseconds, calls = found[kind]
                found[kind] = milliseconds + event["dur"] / 1e3 / steps, calls + 1 / steps
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def load(folder: pathlib.Path, machine: Mapping[str, Any]) -> dict[Point, Mapping[str, Any]]:
    """The measurements in a folder; {} if there are none.

    Raises:
      UserError: they cannot be read, or are of another machine.
    """
    path = folder / "accelerator.json"
    if not path.exists():
        return {}
    try:
        content = files.parse_json(files.read(path))
        results = {Point(*(row.pop(name) for name in Point._fields)): row for row in content["results"]}
        before = content["machine"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not hold measurements; remove it, or choose another "
                        "--output") from error
    if changed := [name for name in machine if before.get(name) != machine[name]]:
        name = changed[0]
        raise UserError(f"{path} has measurements with {name} {before.get(name)}, and this machine has "
                        f"{machine[name]}; choose another --output")
    return results


def save(folder: pathlib.Path, machine: Mapping[str, Any], results: Results, command: str) -> None:
    """Writes accelerator.json and accelerator.md."""
    rows = [point._asdict() | dict(found) for point, found in results.items()]
    text = ",\n".join(json.dumps(row) for row in rows)
    files.write(folder / "accelerator.json",
                f'{{"machine": {json.dumps(dict(machine))},\n"results": [\n{text}\n]}}\n')
    limits = {precision: peak(machine["device"], precision) for precision in PRECISIONS}
    known = ", ".join(f"{precision} {limit:.4g}" for precision, limit in limits.items() if limit)
    files.write(folder / "accelerator.md", f"""# Training steps on {machine["device"]}

- One of {machine["devices"]}, {machine["memory_gib"]} GiB for JAX, {machine["cpu_cores"]} CPU cores; \
Python {machine["python"]}, jax {machine["jax"]}, flax {machine["flax"]}.
- Peak in TFLOP/s: {known or "unknown card"}.
- Operations of a step as XLA counts them. Ratios are milliseconds of jaxmm by those of PyTorch \
(channels-last) for the same examples, so below 1 jaxmm is faster; several runs at once are compared with \
PyTorch's one after the other.

{table(results)}
{shares(results)}Made by

    {command}
""")


def table(results: Results) -> str:
    """Markdown: a row for each measurement of this package, with its ratios to PyTorch."""
    rows = []
    order = list(PRECISIONS)
    for point in sorted((p for p in results if p.program == JAXMM), key=lambda p: (
            WORKLOADS.index(p.workload), order.index(p.precision), p.seeds, p.factor)):
        found = results[point]
        row = {"workload": point.workload, "precision": point.precision, "batch": point.batch,
               "seeds": point.seeds, "note": found.get("failed")}
        if "failed" not in found:
            row |= {"ms / step": f"{found['milliseconds_per_step']:.4g}",
                    "examples / s": f"{found['examples_per_second']:.0f}",
                    "of peak": found["share_of_peak"] and f"{found['share_of_peak']:.1%}",
                    "peak MiB": found["peak_memory_mib"], "compile s": f"{found['compile_seconds']:.1f}"}
            row |= ratios(point, results)
        rows.append(row)
    return markdown(rows, ["workload", "precision", "batch", "seeds", "ms / step", "examples / s", "of peak",
                           "peak MiB", "compile s", *(f"/ {name}" for name in programs_in(results)), "note"])


def shares(results: Results) -> str:
    """Markdown: what the time of a traced step goes to."""
    text = ""
    for point, found in results.items():
        if kinds := found.get("operations"):
            total = sum(milliseconds for milliseconds, _ in kinds.values())
            rows = [{"operation": kind, "ms / step": f"{milliseconds:.3f}",
                     "share": f"{milliseconds / total:.1%}", "calls": f"{calls:.0f}"}
                    for kind, (milliseconds, calls) in list(kinds.items())[:20]]
            text += (f"A step of {point.workload}, {point.precision}, batch {point.batch}:\n\n"
                     + markdown(rows, ["operation", "ms / step", "share", "calls"]) + "\n")
    return text


def programs_in(results: Results) -> list[str]:
    """The PyTorch programs that were measured."""
    return [name for name in (EAGER, COMPILED, GIVEN) if any(p.program == name for p in results)]


def ratios(point: Point, results: Results) -> dict[str, str]:
    """Cells of a row: this package's milliseconds by PyTorch's for the same examples, or why not."""
    cells = {}
    for name in programs_in(results):
        other = results.get(point._replace(program=name, seeds=1), {})
        if "failed" in other:
            cells[f"/ {name}"] = other["failed"][:40]
        elif other:
            ratio = results[point]["milliseconds_per_step"] / (point.seeds * other["milliseconds_per_step"])
            cells[f"/ {name}"] = f"{ratio:.2f}"
    return cells
