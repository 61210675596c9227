"""Kills training again and again, and checks that nothing of it shows in the result.

    python -m benchmarks.kill                               # 50 kills of mla and of samm
    python -m benchmarks.kill --methods=samm --kills=4

For each method it trains a small model on the stream `seq_av_digits` undisturbed, then again and
again in other folders, killed by SIGKILL at random moments and started anew in the same way,
until all kills are spent. Every start must go on, and every array of the last checkpoint, and every
evaluation, must be those of the undisturbed run, bit for bit. Moments are drawn uniformly from three
times the time that a process takes to its first save. Prints a line of JSON for each method.
"""
import argparse
import collections
import fnmatch
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

import jax

from configs import seq_av_digits
from jaxmm.config import Config, EncoderConfig
from jaxmm.train import checkpoints
from jaxmm.train.loop import train
from launch import app

KEEP = 2                    # checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", default="mla,samm")
    parser.add_argument("--kills", type=int, default=50, help="of each method")
    parser.add_argument("--epochs", type=int, default=16, help="of each of the five tasks")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Processes are forked from this one, which therefore starts no backend before the end.
        results = {method: kill_again_and_again(method, pathlib.Path(folder, method), arguments)
                   for method in arguments.methods.split(",")}
        for method, (workdirs, facts) in results.items():
            check_equal(workdirs)
            print(json.dumps({"method": method, **facts, "same": len(workdirs) - 1,
                              "machine": f"{platform.machine()}, {os.cpu_count()} cores"}))


def kill_again_and_again(method: str, folder: pathlib.Path, arguments):
    """The folders of an undisturbed run and of those that were killed, and what happened to them."""
    config, rng = make_config(method, arguments.epochs), random.Random(f"{arguments.seed} {method}")
    begin, workdirs = time.perf_counter(), [folder / "undisturbed"]
    folder.mkdir()
    first_save = run(config, workdirs[0])[1]
    moments = collections.Counter()
    while moments.total() < arguments.kills:
        workdirs.append(folder / f"killed_{len(workdirs)}")
        finished = False
        while not finished:
            before = listing(workdirs[-1])
            finished, seconds = run(config, workdirs[-1], math.inf if moments.total() == arguments.kills
                                    else rng.uniform(0, 3 * first_save))
            first_save = seconds or first_save      # the very first process compiles
            if not finished:
                moments[moment(before, listing(workdirs[-1]))] += 1
    logs = "".join(path.read_text() for path in folder.glob("*.log"))
    return workdirs, {
        "kills": moments.total(), "moments": dict(moments),
        "unfinished saves removed": logs.count("left by a save that was cut short"),
        "damaged checkpoints": logs.count("is damaged"),
        "seconds": round(time.perf_counter() - begin)}


def run(config: Config, workdir: pathlib.Path, kill_after: float = math.inf):
    """Trains until it is finished or killed: (whether it finished, seconds to its first save)."""
    log, before, first_save = workdir.with_suffix(".log"), saved(workdir), None
    begin, child = time.perf_counter(), os.fork()
    if child == 0:
        train_here(config, workdir, log)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        seconds = time.perf_counter() - begin
        if first_save is None and saved(workdir) - before:
            first_save = seconds
        if seconds >= kill_after:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(ended[1])
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"{workdir}: ended with code {code}:\n{log.read_text()}")
    return code == 0, first_save


def train_here(config: Config, workdir: pathlib.Path, log: pathlib.Path) -> None:
    """What a new process does; ends it."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    app.use_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)     # starts are what costs
    try:
        train(config, workdir, progress=False)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def make_config(method: str, epochs: int) -> Config:
    """A small model that saves often."""
    config = seq_av_digits.get_config(method)
    for modality in config.encoders:
        config.encoders[modality] = EncoderConfig(name="cnn", width=2, depth=1, features=8)
    config.train.epochs, config.train.keep_checkpoints = epochs, KEEP
    return config


def saved(workdir: pathlib.Path) -> set[str]:
    """Names of the finished checkpoints of a run."""
    return {p.name for p in (workdir / checkpoints.FOLDER).glob("*") if p.name.isdecimal()}


def listing(workdir: pathlib.Path) -> set[tuple[str, int]]:
    """What lies among the checkpoints of a run: names, and when each was last changed."""
    return {(p.name, p.stat().st_ctime_ns) for p in (workdir / checkpoints.FOLDER).glob("*")}


def moment(before: set[tuple[str, int]], after: set[tuple[str, int]]) -> str:
    """What a killed process was at, by what it has left."""
    new = {name for name, _ in after - before}
    if any(fnmatch.fnmatch(name, checkpoints.UNFINISHED) for name in new):
        return "writing a checkpoint"
    if not new:
        return "before its first save"
    kept = sum(name.isdecimal() for name, _ in after)
    return "reading it back or removing old ones" if kept > KEEP else "between saves"


def check_equal(workdirs) -> None:
    """Ends the process unless the last checkpoints of all folders are the same, bit for bit."""
    last = []
    for workdir in workdirs:
        manager = checkpoints.open_manager(workdir)
        leaves, meta = checkpoints.read(manager, max(manager.all_steps()))
        last.append((max(manager.all_steps()), meta["history"],
                     {name: (x.dtype, x.shape, x.tobytes()) for name, x in leaves.items()}))
    for workdir, end in zip(workdirs, last):
        if end != last[0]:
            sys.exit(f"{workdir} is not as {workdirs[0]}")


if __name__ == "__main__":
    main()
