"""Whether two checkouts compute the same: parameters of every method after 20 steps, in double precision.

    python -m benchmarks.equality --other=CHECKOUT --output=FOLDER [--methods=concat,mla]

Rounding turns units of a network on and off, so that runs in float32 part within a few steps whatever was
changed. Here copies of both checkouts have float64 wherever the code says float32, and small networks take
the paths of large ones: what is left is a change of what is computed, not of the order of its sums. Prints
the largest difference of a parameter of each method. What is trained already in FOLDER is kept.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxmm import files
from jaxmm.batch import make_batch
from jaxmm.config import Config, EncoderConfig, OptimizerConfig, StreamConfig, TrainConfig
from jaxmm.data.dataset import Dataset
from jaxmm.encoders import conv
from jaxmm.methods import METHODS, method_config
from jaxmm.methods.continual import SGDConfig
from jaxmm.report.tables import markdown
from jaxmm.train import schedule

SIDES = {"image": (16, 16, 3), "sound": (14, 12, 1)}
BATCH, STEPS, EPOCHS, CLASSES = 8, 20, 2, 4


def copy_in_double(checkout: pathlib.Path, to: pathlib.Path) -> None:
    """The package and its configs, with float64 in place of float32."""
    for package in ("jaxmm", "configs"):
        shutil.copytree(checkout / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in to.rglob("*.py"):
        file.write_text(file.read_text().replace("float32", "float64"))


def rows(count: int, sides: dict[str, tuple[int, ...]], seed: int) -> dict:
    """Examples that lie about a mean of their class."""
    label = np.arange(count) % CLASSES
    rng = np.random.default_rng(seed)
    means = {m: np.random.default_rng(i).normal(size=(CLASSES, *side)) for i, (m, side) in enumerate(sides.items())}
    inputs = {m: (mean[label] + rng.normal(size=(count, *sides[m]))).astype(jnp.float32) for m, mean in means.items()}
    return make_batch(inputs, label)


def config_of(name: str) -> Config:
    """Small networks; what a method does only after some epochs it does after one."""
    entry = METHODS[name]
    config = Config(
        method=method_config(name), optimizer=OptimizerConfig(learning_rate=0.01, schedule="constant"),
        train=TrainConfig(epochs=EPOCHS, batch_size=BATCH),
        encoders={"image": EncoderConfig("cnn", width=16), "sound": EncoderConfig("resnet18", width=8)})
    if entry.dense:
        config.encoders = {m: EncoderConfig("esanet18") for m in SIDES}
        config.optimizer.learning_rate = 1e-6       # at 1e-4 what differs grows tenfold in every step
    if entry.starts:
        setattr(config.method, entry.starts, 1)
    if name == "unimodal":
        config.method.modality = "image"
    if hasattr(config.method, "stages"):
        config.encoders["image"].depth = 5      # as many as the other
    if hasattr(config.method, "k"):
        config.method.k = CLASSES
    if isinstance(config.method, SGDConfig):
        config.stream = StreamConfig(kind="class", num_tasks=2)
        if hasattr(config.method, "capacity"):
            config.method.capacity = 16
    return config


def dataset_of(name: str) -> Dataset:
    """What the method learns from; for those of every pixel all of an example is of one class, in "map"."""
    dense = METHODS[name].dense
    sides = {m: (64, 64, side[-1]) for m, side in SIDES.items()} if dense else SIDES
    splits = {s: rows(count, sides, seed) for seed, (s, count) in enumerate(
        (("train", STEPS * BATCH // EPOCHS), ("val", 16), ("test", 16)))}
    for split in splits.values() if dense else ():
        split["inputs"]["map"] = np.broadcast_to(split["label"][:, None, None], (len(split["label"]), 64, 64))
        split["label"] = np.zeros_like(split["label"])
    return Dataset("equality", splits, tuple(map(str, range(CLASSES))), target="map" if dense else "")


def train(name: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Parameters of the method after STEPS steps, by their path."""
    run = schedule.train(config_of(name), folder, dataset=dataset_of(name), progress=False)
    params = run.setup.programs.fetch(run.state).params
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(params)}


def train_all(methods: list[str], folder: pathlib.Path) -> None:
    """Leaves the parameters of each method that has none there yet."""
    jax.config.update("jax_enable_x64", True)
    conv.WIDE, conv.MIN_PRODUCTS = 1, 0     # small networks go the way of large ones
    for name in methods:
        if not (folder / f"{name}.npz").exists():
            params = train(name, folder / "runs" / name)
            with files.open_whole(folder / f"{name}.npz") as file:
                np.savez(file, **params)
            print(folder.name, name, len(params), flush=True)


def difference(name: str, folders: list[pathlib.Path]) -> float:
    """The largest difference of a parameter: inf where they are not the same ones, NaN where one is."""
    ours, others = (np.load(folder / f"{name}.npz", allow_pickle=False) for folder in folders)
    if set(ours) != set(others):
        return np.inf
    return np.max([np.abs(ours[path] - others[path]).max() for path in ours])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--other", type=pathlib.Path, help="folder of another checkout")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--train", action="store_true", help="train this checkout alone, in --output")
    args = parser.parse_args()
    if args.train:
        return train_all(args.methods.split(","), args.output)
    if not args.other:
        parser.error("--other=CHECKOUT: expected the folder to compare with")
    folders, trained = [args.output / "this", args.output / "other"], []
    for folder, checkout in zip(folders, (pathlib.Path(__file__).parents[1], args.other)):
        if not folder.exists():
            copy_in_double(checkout, folder)
        trained.append(subprocess.Popen(
            [sys.executable, __file__, "--train", f"--methods={args.methods}", f"--output={folder}"],
            env=os.environ | {"PYTHONPATH": str(folder.resolve())}))
    codes = [each.wait() for each in trained]
    if any(codes):
        raise SystemExit(1)
    print(markdown([{"method": name, "largest difference": f"{difference(name, folders):.1e}"}
                    for name in args.methods.split(",")], ["method", "largest difference"]))


if __name__ == "__main__":
    main()
