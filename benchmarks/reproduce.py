"""Trains rows of a stream's published table with their options, and says by how much they miss the figure.

    python -m benchmarks.reproduce --data=FILE.npz
    python -m benchmarks.reproduce --data=FILE.npz --rows=er/200,derpp/500 --seeds=3

A row is METHOD/BUFFER; its options are those of `configs/tuned.csv`, and its figure, in percent, that of
`figures.csv` here: the published one, and what a NumPy reconstruction of the same equations reaches with all
60,000 digits and with 6,000 (`visual` of AV-MNIST). It is held against that of as many digits if there is one,
otherwise against the published one. With all digits a task is one epoch, with 6,000 ten. Prints a line of JSON for
each row, and ends with 1 if one of them misses.
"""
import argparse
import csv
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmm import data
from jaxmm.batch import batch_size
from jaxmm.config import Config
from jaxmm.experiments import configs
from jaxmm.experiments.series import over_seeds
from jaxmm.report import continual
from jaxmm.train.schedule import train_many

ALL_DIGITS = 30_000     # training rows from which on they are all of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="an .npz with {split}/visual and {split}/label")
    parser.add_argument("--rows", default=",".join(figures()), help="METHOD/BUFFER, or METHOD without a memory")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    parser.add_argument("--workdir", default="runs/reproduce", help="folder; what is there is resumed")
    arguments = parser.parse_args()
    missed = False
    for row in arguments.rows.split(","):
        found = reproduce(row, arguments.data, arguments.seeds, pathlib.Path(arguments.workdir))
        print(json.dumps(found), flush=True)
        missed |= not found["holds"]
    sys.exit(missed)


def figures(stream: str = "seq_mnist") -> dict[str, dict[str, str]]:
    """The rows of the table of a stream by METHOD/BUFFER."""
    with open(pathlib.Path(__file__).with_name("figures.csv"), encoding="utf-8", newline="") as file:
        return {f"{row['method']}/{row['buffer']}".rstrip("/"): row for row in csv.DictReader(file)
                if row["stream"] == stream}


def reproduce(row: str, path: str, seeds: int, workdir: pathlib.Path) -> dict:
    """Trains a row, see `compared`."""
    config = configs.load(f"seq_mnist:{row.replace('/', ',')}")
    config.data.path, config.train.seeds = path, seeds
    dataset = data.load(config.data)
    many = batch_size(dataset.splits["train"]) >= ALL_DIGITS
    if many:
        in_one_epoch(config)
    runs = over_seeds(config)
    folders = [workdir / row.replace("/", "_") / f"seed_{run.train.seed}" for run in runs]
    results = train_many(runs, folders, dataset=dataset)
    values = [100 * continual.headlines(run.history, "test", "class", "mean_accuracy")["fused"] for run in results
              if not isinstance(run, FloatingPointError)]
    return {"row": row} | compared(figures()[row], values, many)


def in_one_epoch(config: Config) -> None:
    """Makes ten epochs one: of ten times as many digits."""
    config.train.epochs //= 10
    if hasattr(config.method, "head_epochs"):
        config.method.head_epochs //= 10


def compared(figure: Mapping[str, str], values: Sequence[float], many: bool) -> dict:
    """The mean of the values, in percent, beside the figure to reach; `many` if of all digits.

    "misses" is by how much it lies outside the margin.
    """
    own = figure["all_digits" if many else "few_digits"]
    expected = float(own or figure["published"] or figure["all_digits"])
    found = {"figure": expected, "within": float(figure["within"]), "values": [round(x, 2) for x in values]}
    if not values:
        return found | {"holds": False}
    mean = float(np.mean(values))
    misses = max(round(abs(mean - expected) - found["within"], 2), 0.0)
    return found | {"mean": round(mean, 2), "difference": round(mean - expected, 2), "misses": misses,
                    "holds": not misses}


if __name__ == "__main__":
    main()
