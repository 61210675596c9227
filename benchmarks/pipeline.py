"""Examples per second of the pipelines of CREMA-D and VGGSound, beside a plain loader of the files.

    python -m benchmarks.pipeline --plain=FILE.py [--root=DIR] [--rounds=5] [--steps | --memory]

FILE.py is the loader to compare with: a module with `make(root, examples)`, which writes wav and
JPEG files in the layouts of both data sets, and `cremad(root, i)` and `vggsound(root, i)`, which
load example i as a spectrogram and frames that are cropped, flipped and normalised, in one
process. The same files are prepared once by `jaxmm.prepare`; then batches of 64 are read,
copied to the device, cropped, flipped, transformed and normalised there, and waited for. Rounds
of both take turns. Every round reads with threads or processes that start with it, so that
nothing is read before the clock runs. Examples a second need cores that nothing else uses;
milliseconds of CPU time an example, of all threads and processes, hold better.

--steps prints the CPU time of each step on the way of an example, and of reading with no and with
one process, from which follows how many examples a second n processes read at most.

--memory reads 10,000 examples and prints the memory of this process and its children on the way.
"""
import argparse
import functools
import importlib.util
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np
import psutil

from configs import cremad, seq_vggsound
from jaxmm import data
from jaxmm.batch import take
from jaxmm.config import Config
from jaxmm.data.feeding import read_ahead
from jaxmm.data.transform import make_transform, normalisation
from jaxmm.prepare.decode import Options
from jaxmm.prepare.run import prepare

BATCH = 64
EXAMPLES = 64               # files of each data set
CONFIGS = {"cremad": cremad.get_config, "vggsound": seq_vggsound.get_config}
OPTIONS = {"cremad": Options(audio_rate=22050, short_side=240),
           "vggsound": Options(audio_rate=16000, short_side=256)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", type=pathlib.Path, required=True)
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(tempfile.gettempdir()) / "jaxmm_pipeline")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=32, help="in a round")
    parser.add_argument("--workers", type=int, default=0, help="processes that read; 0: threads")
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    plain = load_module(args.plain)
    plain.make(args.root, EXAMPLES)
    write_lists(args.root)
    for name in CONFIGS:
        prepare(name, args.root / name, args.root / "prepared", OPTIONS[name], progress=False)
        dataset, config = load(name, args.root / "prepared" / name)
        run = make_run(dataset, config, args.workers)
        if args.steps:
            steps(name, dataset.splits["train"], config)
            continue
        if args.memory:
            memory(name, run)
            continue
        run(2)                                              # compiles
        getattr(plain, name)(args.root, 0)                  # imports what it needs
        rates, busy = {"prepared": [], "plain": []}, {"prepared": [], "plain": []}
        for _ in range(args.rounds):
            begin, cpu = time.perf_counter(), cpu_seconds()
            run(args.batches)
            spent, examples = time.perf_counter() - begin, args.batches * BATCH
            rates["prepared"].append(examples / spent)
            busy["prepared"].append(1000 * (cpu_seconds() - cpu) / examples)
            begin, cpu = time.perf_counter(), cpu_seconds()
            examples = load_for(getattr(plain, name), args.root, spent)
            rates["plain"].append(examples / (time.perf_counter() - begin))
            busy["plain"].append(1000 * (cpu_seconds() - cpu) / examples)
        ratios = [a / b for a, b in zip(rates["prepared"], rates["plain"])]
        print(f"{name}: {statistics.median(rates['prepared']):.0f} examples/s prepared, "
              f"{statistics.median(rates['plain']):.1f} plain; "
              f"ratio {statistics.median(ratios):.1f} (rounds {', '.join(f'{r:.1f}' for r in sorted(ratios))}); "
              f"{statistics.median(busy['prepared']):.1f} ms of CPU time an example prepared, "
              f"{statistics.median(busy['plain']):.1f} plain", flush=True)


def load_module(path: pathlib.Path):
    """The module in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_lists(root: pathlib.Path) -> None:
    """The lists that name the files: three quarters train, two classes in turn."""
    def split(i):
        return "train" if i < 3 * EXAMPLES // 4 else "test"
    for part in ("train", "test"):
        (root / f"cremad/{part}.csv").write_text("".join(
            f"{1001 + i}_DFA_ANG_XX,{('ANG', 'HAP')[i % 2]}\n"
            for i in range(EXAMPLES) if split(i) == part), encoding="utf-8")
    (root / "vggsound/vggsound.csv").write_text("".join(
        f"yt{i:06d},30,{('dog barking', 'bird chirping')[i % 2]},{split(i)}\n"
        for i in range(EXAMPLES)), encoding="utf-8")


def load(name: str, path: pathlib.Path):
    """The prepared data set with the preprocessing of its config, streamed."""
    config = CONFIGS[name]()
    config.data.path, config.data.placement = str(path), "host"
    return data.load(config.data), config


def make_run(dataset, config: Config, workers: int):
    """run(n) reads n batches and makes them ready on the device, as in training."""
    split = dataset.splits["train"]
    transform = jax.jit(make_transform(normalisation(split, config.data.preprocess), {},
                                       config.data.preprocess))
    rows = len(split["label"])

    def run(batches: int, seed: int = 0, each=lambda step: None):
        coming = np.random.default_rng(seed).integers(0, rows, (batches, BATCH))
        before = None
        for step, (_, read) in enumerate(read_ahead(split, list(zip(coming)), workers=workers)):
            batch = transform(jax.random.fold_in(jax.random.key(seed), step), read)
            jax.block_until_ready(before)       # the next batch is read while this one is made
            before = batch
            each(step)
        jax.block_until_ready(before)

    return run


def load_for(load_example, root: pathlib.Path, seconds: float) -> int:
    """Loads examples one by one for so long, and returns their number."""
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        load_example(root, done % EXAMPLES)
        done += 1
    return done


def cpu_seconds() -> float:
    """CPU time of this process and its children, those that have ended included."""
    children = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    ended = psutil.Process().cpu_times()
    return (time.process_time() + ended.children_user + ended.children_system
            + sum(child.user + child.system for child in children))


def steps(name: str, split, config: Config) -> None:
    """Prints the CPU time an example of every step, from the record on disk to the batch on the device."""
    index = np.random.default_rng(0).integers(0, len(split["label"]), BATCH)
    inputs, sections = split["inputs"], config.data.preprocess
    records = next(iter(inputs.values())).records.records       # not those kept in memory
    norms = normalisation(split, sections)
    parts = {"record": lambda: [records[int(i)]["id"] for i in index]}
    parts |= {f"decode {m}": functools.partial(x.__getitem__, index) for m, x in inputs.items()}
    batch = take(split, index)
    parts["put on the device"] = lambda: jax.device_put(batch)
    for m in inputs:
        part = batch | {kind: {m: batch[kind][m]} for kind in ("inputs", "present")}
        transform = jax.jit(make_transform(norms, {}, sections))
        parts[f"transform {m}"] = functools.partial(transform, jax.random.key(0), part)
    for what, fn in parts.items():
        print(f"{name}: {what} {least_cpu(fn):.2f} ms", flush=True)
    for workers in (0, 1):
        cost = reading(split, workers)
        print(f"{name}: reading by {'a process' if workers else 'threads'} {cost:.2f} ms; at most "
              f"{', '.join(f'{1000 * n / cost:.0f} examples/s on {n}' for n in (1, 2, 16))} cores", flush=True)


def least_cpu(fn, repeats: int = 5) -> float:
    """Milliseconds of CPU time an example of fn() of a batch, the least of some repeats after a first one."""
    spent = []
    for _ in range(repeats + 1):
        begin = cpu_seconds()
        jax.block_until_ready(fn())
        spent.append(1000 * (cpu_seconds() - begin) / BATCH)
    return min(spent[1:])


def reading(split, workers: int, first: int = 8, count: int = 20) -> float:
    """Milliseconds of CPU time an example of reading, between the batches `first` and `first + count`.

    What is read ahead is as much at both ends, and processes have started.
    """
    coming = np.random.default_rng(0).integers(0, len(split["label"]), (first + 2 * count, BATCH))
    read = read_ahead(split, list(zip(coming)), workers=workers)
    for _ in range(first):
        next(read)
    begin = cpu_seconds()
    for _ in range(count):
        next(read)
    spent = cpu_seconds() - begin
    read.close()
    return 1000 * spent / (count * BATCH)


def memory(name: str, run) -> None:
    """Prints the memory in use while 10,000 examples are read."""
    process, steps = psutil.Process(), 10_000 // BATCH + 1

    def each(step):
        if step % (steps // 10) == steps // 10 - 1:
            used = sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
            print(f"{name}: {(step + 1) * BATCH} examples, {used / 2**20:.0f} MiB", flush=True)

    run(steps, each=each)


if __name__ == "__main__":
    main()
