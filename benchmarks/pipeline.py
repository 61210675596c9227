"""Examples per second of the pipelines of CREMA-D and VGGSound, beside a plain loader of the files.

    python benchmarks/pipeline.py --plain=FILE.py [--root=DIR] [--rounds=5] [--memory]

FILE.py is the loader to compare with: a module with `make(root, examples)`, which writes wav and
JPEG files in the layouts of both data sets, and `cremad(root, i)` and `vggsound(root, i)`, which
load example i as a spectrogram and frames that are cropped, flipped and normalised, in one
process. The same files are prepared once by `jaxmm.prepare`; then batches of 64 are read,
copied to the device, cropped, flipped, transformed and normalised there, and waited for. Rounds
of both take turns. Every round reads with threads or processes that start with it, so that
nothing is read before the clock runs.

--memory reads 10,000 examples and prints the memory of this process and its children on the way.
"""
import argparse
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
from jaxmm.config import Config
from jaxmm.data.feeding import make_reader
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
    parser.add_argument("--batches", type=int, default=8, help="in a round")
    parser.add_argument("--workers", type=int, default=0, help="processes that read; 0: threads")
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    plain = load_module(args.plain)
    plain.make(args.root, EXAMPLES)
    write_lists(args.root)
    for name in CONFIGS:
        prepare(name, args.root / name, args.root / "prepared", OPTIONS[name], progress=False)
        dataset, config = load(name, args.root / "prepared" / name)
        run = make_run(dataset, config, args.workers)
        if args.memory:
            memory(name, run)
            continue
        run(2)                                              # compiles
        getattr(plain, name)(args.root, 0)                  # imports what it needs
        rates, busy = {"prepared": [], "plain": []}, {"prepared": [], "plain": []}
        for _ in range(args.rounds):
            begin, cpu = time.perf_counter(), time.process_time()
            run(args.batches)
            spent, examples = time.perf_counter() - begin, args.batches * BATCH
            rates["prepared"].append(examples / spent)
            busy["prepared"].append(1000 * (time.process_time() - cpu) / examples)
            begin, cpu = time.perf_counter(), time.process_time()
            examples = load_for(getattr(plain, name), args.root, spent)
            rates["plain"].append(examples / (time.perf_counter() - begin))
            busy["plain"].append(1000 * (time.process_time() - cpu) / examples)
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
        read = make_reader(split, coming, workers)
        before = None
        for step, index in enumerate(coming):
            batch = transform(jax.random.fold_in(jax.random.key(seed), step), read(index))
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
