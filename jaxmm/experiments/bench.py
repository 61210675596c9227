"""Times training steps: of fixed workloads, and as one quantity grows."""
import contextlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import jax
import numpy as np
from jaxmm import files, processes
from jaxmm.batch import batch_size, make_batch
from jaxmm.config import Config, EncoderConfig, OptimizerConfig, TrainConfig, replace
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError, suggest
from jaxmm.methods import method_config
from jaxmm.methods.common import TrainState
from jaxmm.methods.samm import SAMMConfig
from jaxmm.report import scaling as report
from jaxmm.train import options, setup as setup_lib, together
from jaxmm.train.programs import stack

RESNET = EncoderConfig(name="resnet18", stem="standard")
SMALL_RESNET = EncoderConfig(name="resnet18", stem="small")
MLP = EncoderConfig(name="mlp", width=128, depth=3)
MLA = method_config("mla")
CONCAT = method_config("concat")
SAMM = SAMMConfig(capacity=200)
DIGITS = {"audio": (SMALL_RESNET, (32, 32)), "visual": (SMALL_RESNET, (16, 16))}
FEATURES = {"audio": (MLP, (512,)), "visual": (MLP, (1024,)), "text": (MLP, (1024,))}
WORKLOADS = {
    # name: (method, batch, classes, {modality: (encoder, shape of an example)})
    "mla_small": (MLA, 64, 10, DIGITS),
    "concat_small": (CONCAT, 64, 10, DIGITS),
    "samm_small": (SAMM, 32, 10, DIGITS),
    "mla_cremad": (MLA, 16, 6, {"audio": (RESNET, (257, 188)),
                                "visual": (RESNET, (3, 224, 224, 3))}),
    "samm_vggsound": (SAMM, 8, 100, {"audio": (RESNET, (129, 626)),
                                     "visual": (RESNET, (4, 224, 224, 3))}),
    "mla_features": (MLA, 64, 4, FEATURES),
    "concat_features": (CONCAT, 64, 4, FEATURES),
}


def synthetic(name: str) -> tuple[Config, Dataset]:
    """Config and random rows of a fixed workload."""
    method, batch, classes, modalities = WORKLOADS[name]
    rng = np.random.default_rng(0)
    rows = 64 * batch if modalities is FEATURES else 2 * batch
    split = make_batch({m: rng.standard_normal((rows, *shape), np.float32)
                        for m, (_, shape) in modalities.items()}, rng.integers(classes, size=rows))
    config = Config(method=method,
                    encoders={m: encoder for m, (encoder, _) in modalities.items()},
                    optimizer=OptimizerConfig(weight_decay=0.0, schedule="constant"),
                    train=TrainConfig(batch_size=batch))
    splits = {s: split for s in ("train", "val", "test")}
    return config, Dataset(name, splits, tuple(map(str, range(classes))))


class Case(NamedTuple):
    """A point of --scaling: over feature vectors, as `mla_features`."""
    batch: int = 64
    modalities: int = 3
    classes: int = 4
    examples: int = 4096
    features: int = 512     # in every modality
    seeds: int = 1          # trained by one program
    memory: int = 0         # examples it holds: with SAMM; 0: MLA
    devices: int = 1


SCALES = {
    "batch": (16, 64, 256, 1024),
    "modalities": (2, 3, 5, 10),
    "classes": (10, 100, 1000, 10_000),
    "examples": (1000, 10_000, 100_000, 1_000_000),
    "seeds": (1, 2, 4, 8, 16),
    "memory": (100, 1000, 10_000, 100_000),
    "devices": (1, 2, 4),
}
BESIDE = {"examples": {"features": 16}}     # a million of 512 in every modality would take 6 GB


def case_of(axis: str, value: int) -> Case:
    """A point of --scaling."""
    return Case(**{axis: value}, **BESIDE.get(axis, {}))


def scaling_workload(case: Case) -> tuple[Config, Dataset]:
    """Config and random rows."""
    rng = np.random.default_rng(0)
    names = [f"m{i}" for i in range(case.modalities)]
    split = make_batch({m: rng.standard_normal((case.examples, case.features), np.float32) for m in names},
                       rng.integers(case.classes, size=case.examples))
    config = Config(method=SAMMConfig(capacity=case.memory) if case.memory else MLA,
                    encoders={m: MLP for m in names},
                    optimizer=OptimizerConfig(weight_decay=0.0, schedule="constant"),
                    train=TrainConfig(batch_size=case.batch))
    return config, Dataset("features", {s: split for s in ("train", "val", "test")},
                           tuple(map(str, range(case.classes))))


def build(config: Config, dataset: Dataset | None, num_runs: int,
          devices) -> tuple[setup_lib.Setup, TrainState]:
    """One setup of this many runs with seeds from 0 on, and their state on the devices."""
    configs = [replace(config, {"train.seed": seed}) for seed in range(num_runs)]
    setups = list(together.build_many(configs, dataset=dataset, devices=devices))
    setup = together.join(setups, devices) if num_runs > 1 else setups[0]
    return setup, setup.programs.place(stack([each.programs.fetch(setup_lib.init_state(each))
                                              for each in setups]))


def prepare(config: Config, dataset: Dataset | None, num_runs: int = 1, devices=None):
    """A state, call(state) -> state that trains it on random rows, its steps and its devices."""
    setup, state = build(config, dataset, num_runs, devices)
    train = setup.dataset.splits["train"]
    feed = setup.programs.feed(train, config.data.placement)
    batch = config.train.batch_size
    steps = min(setup.steps_per_call, batch_size(train) // batch)
    rng = np.random.default_rng(0)

    def call(state):
        index = np.stack([rng.permutation(batch_size(train))[:steps * batch].reshape(steps, batch)
                          for _ in range(num_runs)], axis=1)
        index = index[:, 0] if num_runs == 1 else index
        state, metrics = setup.programs.steps(state, feed.at(index.astype(np.int32)))
        return jax.block_until_ready((state, metrics))[0]

    return state, call, steps, setup.programs.num_devices


def measure(config: Config, dataset: Dataset | None, seconds: float, num_runs: int = 1,
            devices=None) -> dict[str, float]:
    """Median milliseconds of a training step of all runs, with memory and settings."""
    state, call, steps, num_devices = prepare(config, dataset, num_runs, devices)
    times = []
    # Of the calls, the first compiles, and the second may be slow.
    while len(times) < 7 or (sum(times[2:]) < seconds and len(times) < 202):
        begin = time.perf_counter()
        state = call(state)
        times.append(time.perf_counter() - begin)
    first, times = times[0], times[2:]
    milliseconds = 1e3 * statistics.median(times) / steps
    batch = config.train.batch_size
    return {"milliseconds_per_step": round(milliseconds, 3),
            "examples_per_second": round(1e3 * num_runs * batch / milliseconds, 1),
            "compile_seconds": round(first - steps * milliseconds / 1e3, 2),
            "peak_memory_mib": round(peak_memory() / 2**20),
            "steps_per_call": steps, "calls": len(times),
            "device": jax.devices()[0].device_kind, "num_devices": num_devices}


def peak_memory() -> int:
    """Bytes: of the device if it counts them, otherwise of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use",
                     resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def run_workload(name: str, config: dict | None, seconds: float) -> dict[str, float]:
    """Measures a fixed workload, or a config given as plain dictionaries. For a new process."""
    config, dataset = synthetic(name) if config is None else (options.from_dict(config), None)
    return measure(config, dataset, seconds)


def run_case(case: Case, seconds: float) -> dict[str, float]:
    """Measures a point of --scaling. For a new process."""
    jax.config.update("jax_num_cpu_devices", case.devices)      # of CPU alone
    devices = jax.local_devices()[:case.devices]
    return measure(*scaling_workload(case), seconds, case.seeds, devices)


def in_new_process(fn, *args, timeout: float | None = None):
    """The result of fn(*args), called in a new process; raises TimeoutError after `timeout` seconds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=processes.end_with_parent) as pool:
        try:
            with processes.shielded():
                future = pool.submit(fn, *args)
            return future.result(timeout)
        except BrokenProcessPool as error:
            raise UserError("the process that measures was killed, perhaps for lack of memory; "
                            "free some, or choose another of --workloads") from error
        except BaseException:       # a signal, or no time left: the measurement is not waited for
            for process in multiprocessing.active_children():
                process.kill()      # it is shielded from other signals
            raise


@contextlib.contextmanager
def threads(devices: int) -> Iterator[None]:
    """Processes started within have the threads that collectives of several virtual devices need.

    On a small machine those are more than it has cores, which would slow down a single device.
    """
    before = os.environ.get("NPROC")
    if devices > 1:
        os.environ["NPROC"] = str(max(os.cpu_count() or 1, 2 * devices))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("NPROC", None)
        else:
            os.environ["NPROC"] = before


def scaling(output: str, seconds: float, command: str) -> str:
    """Measures all of SCALES, each point in a process of its own; returns the table."""
    folder = files.expand(output)
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for axis, values in SCALES.items():
        for value in values:
            case = case_of(axis, value)
            with threads(case.devices):
                found = in_new_process(run_case, case, seconds)
            if found["num_devices"] == case.devices:
                results.setdefault(axis, {})[value] = found
                print(json.dumps({axis: value} | found), flush=True)
    kind = next(iter(results["batch"].values()))["device"]
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    facts = [f"{kind}, {os.cpu_count()} CPU cores ({platform.machine()}), load average "
             f"{os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
             + ", ".join(f"{name} {version}" for name, version in versions.items()),
             "Feature vectors, MLPs of 128 x 3; MLA, and SAMM where there is a memory. What is not varied: "
             + ", ".join(f"{name} {value}" for name, value in Case()._asdict().items())
             + "".join(f"; beside {axis}, {name} {value}" for axis, others in BESIDE.items()
                       for name, value in others.items()) + "."]
    files.write(folder / "scaling.json", json.dumps(
        {"machine": facts[0], "base": Case()._asdict(), "results": results}, indent=1) + "\n")
    return report.write(results, facts, folder, command)


def select(names: Sequence[str]) -> list[str]:
    """The workloads of these names, where "all" alone is all of them.

    Raises:
      UserError: there is no such workload.
    """
    names = list(WORKLOADS) if list(names) == ["all"] else list(names)
    if unknown := set(names) - set(WORKLOADS):
        raise UserError(f"workload {min(unknown)!r} is unknown"
                        f"{suggest(min(unknown), WORKLOADS, 'all, or some of')}")
    return names


def check(seconds: float, output: str, is_folder: bool) -> None:
    """Raises UserError for a time that is not finite, and for an output that cannot be written."""
    if not math.isfinite(seconds):
        raise UserError(f"--seconds={seconds}; expected a finite number of seconds")
    path = files.expand(output).resolve()
    if output and (not path.parent.is_dir() or (
            path.exists() and not (path.is_dir() if is_folder else path.is_file()))):
        raise UserError(f"--output={output}; expected a {'folder' if is_folder else 'file'} in a folder "
                        "that is there")


def bench(config: Config, names: Sequence[str], seconds: float, output: str) -> None:
    """Prints a line of JSON for each of the fixed workloads, or for the config if none is named.

    Args:
      config: what is timed if `names` is empty.
      names: of `WORKLOADS`, or "all".
      seconds: to measure each for.
      output: file for all of it, "": none.
    """
    jobs = {name: None for name in select(names)} or {
        f"{config.data.name}_{config.method.name}": options.to_dict(config)}
    results = {}
    for name, job in jobs.items():
        results[name] = in_new_process(run_workload, name, job, seconds)
        print(json.dumps({"workload": name} | results[name]), flush=True)
    if output:
        files.write(files.expand(output).resolve(), json.dumps(results, indent=2) + "\n")
