"""Kills what takes long again and again, and checks that nothing of it shows in the result.

    python -m benchmarks.kill                               # 50 kills of each of JOBS
    python -m benchmarks.kill --jobs=samm,prepare --kills=4

A job trains a small model with one method (on the stream `seq_av_digits` where the method is for
streams, on `av_digits` otherwise, its teachers included), makes a comparison of several methods
and seeds, or prepares a data set. Each is done undisturbed, then again and again in other folders,
killed by SIGKILL at random moments and started again in the same way, until all kills are spent.
Every start must resume, and every array of the last checkpoints, every evaluation, table and record
must be those of the undisturbed one, bit for bit. Moments are drawn uniformly from three times the
time that a process takes to its first save. Prints a line of JSON for each job.
"""
import argparse
import collections
import functools
import glob
import json
import math
import os
import pathlib
import platform
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from PIL import Image

from configs import av_digits, seq_av_digits
from jaxmm import data
from jaxmm.config import Config, EncoderConfig
from jaxmm.commands import app
from jaxmm.experiments import compare
from jaxmm.experiments.planning import plan_runs
from jaxmm.prepare.run import prepare
from jaxmm.report import comparison
from jaxmm.train import checkpoints
from jaxmm.train.schedule import train

KEEP = 2                    # checkpoints
STREAMED = ("mla", "samm")  # methods that learn a stream here
COMPARED = ("unimodal:audio", "concat", "umt")
SHARD, SHAPES = 16, 60      # examples of a prepared shard, and in a class and split
SAVED = ("**/checkpoints/*", "**/reports/*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--kills", type=int, default=50, help="of each job")
    parser.add_argument("--epochs", type=int, default=16, help="of a task, or run")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Processes are forked from this one, which therefore starts no backend before the end.
        results = {job: kill_again_and_again(job, pathlib.Path(folder, job), arguments)
                   for job in arguments.jobs.split(",")}
        for job, (folders, facts) in results.items():
            check_equal(folders)
            print(json.dumps({"job": job, **facts, "same": len(folders) - 1,
                              "machine": f"{platform.machine()}, {os.cpu_count()} cores"}))


def kill_again_and_again(job: str, folder: pathlib.Path, arguments):
    """The folders of an undisturbed run and of those that were killed, and what happened to them."""
    rng, begin = random.Random(f"{arguments.seed} {job}"), time.perf_counter()
    folders = [folder / "undisturbed"]
    folder.mkdir()
    work = functools.partial(JOBS[job], job, epochs=arguments.epochs)
    first_save = run(work, folders[0])[1]
    moments = collections.Counter()
    while moments.total() < arguments.kills:
        folders.append(folder / f"killed_{len(folders)}")
        finished = False
        while not finished:
            before = listing(folders[-1])
            finished, seconds = run(work, folders[-1], math.inf if moments.total() == arguments.kills
                                    else rng.uniform(0, 3 * first_save))
            first_save = seconds or first_save      # the very first process compiles
            if not finished:
                moments[moment(before, listing(folders[-1]))] += 1
    logs = "".join(path.read_text() for path in folder.glob("*.log"))
    return folders, {
        "kills": moments.total(), "moments": dict(moments),
        "unfinished saves removed": logs.count("left by a save that was cut short"),
        "damaged checkpoints": logs.count("is damaged"),
        "seconds": round(time.perf_counter() - begin)}


def run(work: Callable[[pathlib.Path], Any], folder: pathlib.Path, kill_after: float = math.inf):
    """Works until all is done or killed: (whether it is done, seconds to its first save)."""
    log, before, first_save = folder.with_suffix(".log"), saved(folder), None
    begin, child = time.perf_counter(), os.fork()
    if child == 0:
        work_here(work, folder, log)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        seconds = time.perf_counter() - begin
        if first_save is None and saved(folder) - before:
            first_save = seconds
        if seconds >= kill_after:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(ended[1])
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"{folder}: ended with code {code}:\n{log.read_text()}")
    return code == 0, first_save


def work_here(work: Callable[[pathlib.Path], Any], folder: pathlib.Path, log: pathlib.Path) -> None:
    """What a new process does; ends it."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    app.use_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)     # starts are what costs
    try:
        work(folder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def train_one(method: str, folder: pathlib.Path, epochs: int) -> None:
    """Trains one model, after its teachers."""
    train(make_config(method, epochs), folder, progress=False)


def compare_methods(job: str, folder: pathlib.Path, epochs: int) -> None:
    """Compares COMPARED over two seeds, as launch.compare does."""
    del job
    dataset = data.load(make_config(COMPARED[-1], epochs).data)
    runs = plan_runs(lambda method: make_config(method, epochs), COMPARED, 2, dataset, folder)
    results = list(compare.make_runs(runs, dataset, progress=False))
    comparison.write(results, dataset, folder, "", "", {})


def prepare_images(job: str, folder: pathlib.Path, epochs: int) -> None:
    """Prepares a data set of random images with two processes."""
    del job, epochs
    source = folder.parent / "source"
    if not source.exists():
        write_images(source.with_name("unfinished"))
        source.with_name("unfinished").rename(source)
    prepare("modelnet40", source, folder, workers=2, shard_size=SHARD, progress=False)


def write_images(root: pathlib.Path) -> None:
    """Files in the layout of ModelNet40."""
    rng = np.random.default_rng(0)
    for shape in range(SHAPES):
        for label in ("bed", "lamp"):
            for split in ("train", "test"):
                for view in (1, 7):
                    path = root / label / split / f"{label}_{split}_{shape:04d}_{view:03d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(256, size=(96, 96, 3), dtype=np.uint8)).save(path)


JOBS = {method: train_one for method in ("mla", "samm", "umt", "g_blending")} | {
    "compare": compare_methods, "prepare": prepare_images}


def make_config(method: str, epochs: int) -> Config:
    """A small model that saves often."""
    config = (seq_av_digits if method in STREAMED else av_digits).get_config(method)
    for modality in config.encoders:
        config.encoders[modality] = EncoderConfig(name="cnn", width=2, depth=1, features=8)
    config.train.epochs, config.train.keep_checkpoints = epochs, KEEP
    return config


def found(folder: pathlib.Path, *patterns: str) -> list[pathlib.Path]:
    """What there is below the folder, also while another process moves some of it away."""
    return [pathlib.Path(path) for pattern in patterns
            for path in sorted(glob.glob(f"{folder}/{pattern}", recursive=True))]


def saved(folder: pathlib.Path) -> set[pathlib.Path]:
    """The finished checkpoints of all runs, and the shards that are done."""
    return {path for path in found(folder, *SAVED)
            if path.name.isdecimal() or path.suffix == ".json"}


def listing(folder: pathlib.Path) -> set[tuple[pathlib.Path, int]]:
    """What lies among the checkpoints or shards, and when each was last changed."""
    return {(path, path.stat().st_ctime_ns) for path in found(folder, *SAVED, "**/*.array_record*")}


def moment(before: set[tuple[pathlib.Path, int]], after: set[tuple[pathlib.Path, int]]) -> str:
    """What a killed process was at, by what it has left."""
    new = {path for path, _ in after - before}
    if any(path.match(checkpoints.UNFINISHED) for path in new):
        return "writing a checkpoint"
    if any(path.suffix == ".part" for path in new):
        return "writing a shard"
    if not new:
        return "before its first save"
    kept = collections.Counter(path.parent for path, _ in after if path.name.isdecimal())
    return "reading it back or removing old ones" if max(kept.values(), default=0) > KEEP else (
        "between saves")


def content(folder: pathlib.Path) -> dict[str, Any]:
    """All that a job results in: last checkpoints, tables, records and their summary."""
    result = {}
    for place in found(folder, "**/checkpoints/"):
        manager = checkpoints.open_manager(place.parent)
        step = max(manager.all_steps())
        leaves, meta = checkpoints.read(manager, step)
        result[str(place.relative_to(folder))] = step, meta["history"], {
            name: (x.dtype, x.shape, x.tobytes()) for name, x in leaves.items()}
    for path in found(folder, "*.csv", "**/*.array_record-*", "**/skipped.txt", "**/summary.json"):
        value = path.read_bytes()
        if path.suffix == ".json":
            value = json.loads(value) | {"seconds": 0}
        result[str(path.relative_to(folder))] = value
    return result


def check_equal(folders) -> None:
    """Ends the process unless all folders hold the same results, bit for bit, and any at all."""
    first = content(folders[0])
    for folder in folders:
        if not first or content(folder) != first:
            sys.exit(f"{folder} is not as {folders[0]}")


if __name__ == "__main__":
    main()
