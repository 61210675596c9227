"""Which method still works when modalities are missing: all of them on HAPT, at several rates.

    python -m benchmarks.missing --arrays=hapt.npz [--methods=late,mla] [--seeds=3] [--epochs=40]

The arrays are those of configs/hapt.py. For every method a grid of learning rates, the same for all, is tried
at the rate 0.3 of independent masks with one seed; the best on validation is that of all its other runs, its
teachers included. Then methods are compared over the rates and seeds under both schemes of masks. Beside them
stands logistic regression (standardised, C = 0.1) on the features of all modalities, in which missing ones
are filled by the mean of training. Test data are used once.

Finished runs in --workdir are reused, so that the same command goes on where it was stopped, and methods can
be added. --output gets results.json, table.md and a plot for each scheme.
"""
import argparse
import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression

from configs import hapt
from jaxmm import data, files, provenance
from jaxmm.batch import Batch
from jaxmm.caches import use_compilation_cache
from jaxmm.config import Config, replace
from jaxmm.data import missing
from jaxmm.data.dataset import Dataset
from jaxmm.experiments.compare import make_runs
from jaxmm.experiments.planning import claim, plan
from jaxmm.report import missing as report
from jaxmm.report import sweep
from jaxmm.report.comparison import Result
from jaxmm.report.tables import markdown, percent
from jaxmm.task import CLASS_SCORES
from jaxmm.train.schedule import train_many

METHODS = "cca,dcca,dccae,ae,cra,mmin,if_mmin,cpm_net,tate,late,concat,qmf,mla"
REFERENCE = "logistic regression, means filled in"
TUNED_AT = 0.3
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrays", type=pathlib.Path, required=True)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--rates", default="0,0.3,0.5,0.7")
    parser.add_argument("--learning_rates", default=",".join(map(str, LEARNING_RATES)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/missing"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("benchmarks/missing"))
    args = parser.parse_args()
    methods, rates, grid = (x.split(",") for x in (args.methods, args.rates, args.learning_rates))
    rates, grid = sorted(map(float, rates)), sorted(map(float, grid))
    dataset = data.load(make_config("late", args.arrays, args.epochs).data)
    masked = mask(dataset, TUNED_AT)
    tuned = {}
    for method in methods:
        config = make_config(method, args.arrays, args.epochs)
        tuned[method] = tune(config, masked, grid, args.workdir / "tuning" / method)
        print(f"{method}: {shown(tuned[method])}", flush=True)
    learning_rates = {method: best(values) for method, values in tuned.items()}
    args.output.mkdir(parents=True, exist_ok=True)
    found, tables = {}, []
    for scheme in missing.SCHEMES:
        results, datasets = compare(args, learning_rates, rates, dataset, scheme)
        folder = args.workdir / scheme
        table = report.write(results, datasets, report.Mask(scheme, "", 0), folder,
                             "python -m benchmarks.missing", {})
        shutil.copy(folder / "missing.png", args.output / f"{scheme}.png")
        found[scheme] = numbers(report.records(results))
        tables.append(f"## {scheme}\n\n{table}\n{report.share_table(datasets)}")
        print(table, flush=True)
    chosen = markdown([{"method": method, **{f"{rate:g}": percent(x) for rate, x in values.items()},
                        "chosen": f"{best(values):g}"} for method, values in tuned.items()],
                      ["method", *(f"{rate:g}" for rate in grid), "chosen"])
    files.write(args.output / "table.md", "\n".join([
        "# HAPT with modalities missing", f"\nTest accuracy in percent, {args.epochs} epochs, {args.seeds} seeds.\n",
        *tables, "## Learning rates",
        f"\nValidation accuracy at the rate {TUNED_AT}, independent masks, one seed.\n", chosen]))
    files.write(args.output / "results.json", json.dumps({
        "made_by": provenance.describe(), "epochs": args.epochs, "seeds": args.seeds,
        "learning_rates": tuned, "results": found}, indent=1) + "\n")


def make_config(method: str, arrays: pathlib.Path, epochs: int) -> Config:
    """That of configs/hapt.py, evaluated at the end alone."""
    config = hapt.get_config(method)
    return replace(config, {
        "data.path": str(arrays), "train.epochs": epochs, "train.eval_epochs": epochs,
        "train.checkpoint_epochs": epochs, "optimizer.decay_epochs": max(1, round(0.7 * epochs))})


def mask(dataset: Dataset, rate: float, scheme: str = "independent") -> Dataset:
    """The data set with modalities missing."""
    return missing.mask(dataset, dataclasses.replace(hapt.get_config().data, missing_rate=rate,
                                                     missing_scheme=scheme))


def tune(config: Config, dataset: Dataset, grid: Sequence[float], folder: pathlib.Path) -> dict[float, float]:
    """Validation accuracy by learning rate; those that diverged are left out."""
    config = replace(config, {"data.missing_rate": TUNED_AT})
    runs = train_many([replace(config, {"optimizer.learning_rate": rate}) for rate in grid],
                      [folder / f"{rate:g}" for rate in grid], dataset=dataset, progress=False)
    points = [sweep.Point(rate, 0, None if isinstance(run, FloatingPointError) else run.history)
              for rate, run in zip(grid, runs)]
    summary = sweep.summarize(sweep.records(points))
    return {rate: next(cells["val", head].mean for head in ("dynamic", "fused") if ("val", head) in cells)
            for rate, cells in summary.items() if ("", "") not in cells}


def best(values: Mapping[float, float]) -> float:
    """The learning rate of the best accuracy, the smallest of equal ones."""
    return max(sorted(values), key=values.get)


def shown(values: Mapping[float, float]) -> str:
    return ", ".join(f"{rate:g}: {percent(x)}" for rate, x in values.items()) + f"; chosen {best(values):g}"


def compare(args, learning_rates: Mapping[str, float], rates: Sequence[float], dataset: Dataset,
            scheme: str) -> tuple[dict[float, list[Result]], dict[float, Dataset]]:
    """What all runs reached, and the data, by rate. Every method has teachers of its own learning rate."""
    # Without masks there is one scheme, whose runs are made once.
    schemes = {rate: scheme if rate else missing.SCHEMES[0] for rate in rates}
    datasets = {rate: mask(dataset, rate, schemes[rate]) for rate in rates}

    def config_for(rate, method, _):
        return replace(make_config(method, args.arrays, args.epochs), {
            "optimizer.learning_rate": learning_rates[method], "data.missing_rate": rate,
            "data.missing_scheme": schemes[rate]})

    results = {}
    for rate, masked in datasets.items():
        runs = [run for method in learning_rates for run in plan(
            functools.partial(config_for, rate, method), [method], args.seeds, masked,
            args.workdir / schemes[rate] / method, part=f"missing_{rate:g}")]
        claim(runs)
        results[rate] = [*make_runs(runs, masked, progress=False), reference(masked)]
    return results, datasets


def reference(dataset: Dataset) -> Result:
    """Test scores of logistic regression on the features of all modalities."""
    train, test = (fill(dataset.splits["train"], dataset.splits[split]) for split in ("train", "test"))
    model = LogisticRegression(C=0.1, max_iter=2000).fit(train, dataset.splits["train"]["label"])
    logits = np.full((len(test), dataset.num_classes), -np.inf)
    logits[:, model.classes_] = model.decision_function(test)
    labels = dataset.splits["test"]["label"]
    scores = {name: CLASS_SCORES[name](logits, labels) for name in ("accuracy", "weighted_f1", "mean_recall")}
    return Result(REFERENCE, 0, {"fused": scores})


def fill(train: Batch, split: Batch) -> np.ndarray:
    """Features [N, D] of all modalities, standardised by the rows of `train` that have them; else 0."""
    parts = []
    for m, x in sorted(split["inputs"].items()):
        known = train["inputs"][m][train["present"][m]].astype(np.float64)
        std = known.std(axis=0)
        x = (x.astype(np.float64) - known.mean(axis=0)) / np.where(std, std, 1)
        parts.append(np.where(split["present"][m][:, None], x, 0))
    return np.concatenate(parts, axis=1)


def numbers(table) -> dict[str, dict[str, dict[str, dict]]]:
    """By method, rate, head and metric the values of all seeds."""
    found: dict = {}
    for r in table:
        heads = found.setdefault(r.method, {}).setdefault(report.name(r.setting), {})
        heads.setdefault(r.head, {}).setdefault(r.metric, []).append(r.value)
    return found


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()     # rates and schemes have the same programs
    main()
