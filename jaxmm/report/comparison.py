"""Comparison of methods over seeds, in the form of table 1 of MLA (arXiv 2311.10707)."""
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxmm.data.dataset import Dataset
from jaxmm.report import files, plots
from jaxmm.report.tables import Scores, csv_text, markdown, percent, sort_heads


class Result(NamedTuple):
    """Test scores of one run. Runs of one method and seed with other heads make one row."""
    method: str
    seed: int
    scores: Scores


class Summary(NamedTuple):
    """One metric of one head of a method, over its seeds."""
    method: str
    head: str
    metric: str
    mean: float
    std: float | None       # sample standard deviation (n - 1); None for a single seed
    seeds: int


def summarize(results: Iterable[Result]) -> list[Summary]:
    """Means and standard deviations, in the order in which methods, heads and metrics occur."""
    values = {}
    for result in results:
        for head, scores in result.scores.items():
            for metric, value in scores.items():
                values.setdefault((result.method, head, metric), []).append(value)
    return [Summary(*key, float(np.mean(x)), float(np.std(x, ddof=1)) if len(x) > 1 else None,
                    len(x)) for key, x in values.items()]


def accuracy(summaries: Iterable[Summary]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """(mean, standard deviation or None) of the accuracy, by method and head."""
    table = {}
    for s in summaries:
        if s.metric == "accuracy":
            table.setdefault(s.method, {})[s.head] = s.mean, s.std
    return table


def accuracy_table(summaries: Iterable[Summary], modalities: Sequence[str]) -> str:
    """Markdown: methods as rows, heads as columns, accuracy in percent, mean ± deviation."""
    table = accuracy(summaries)
    heads = sort_heads({h: None for by_head in table.values() for h in by_head}, modalities)
    rows = [{"method": method} | {head: _cell(*value) for head, value in by_head.items()}
            for method, by_head in table.items()]
    return markdown(rows, ["method", *heads])


def _cell(mean: float, std: float | None) -> str:
    return percent(mean) if std is None else f"{percent(mean)} ± {percent(std)}"


def write(results: Sequence[Result], dataset: Dataset, workdir, command: str) -> str:
    """Writes the comparison into a folder; returns the Markdown table of accuracies.

    The folder gets `report.md`, which shows the table, the plot `accuracy.png` and `command`;
    `comparison.csv` with a row for each method, head and metric (mean, std, number of seeds); and
    `seeds.csv` with a row for each seed too. Values in the CSV files are shares, not percent.
    """
    workdir = pathlib.Path(workdir)
    summaries = summarize(results)
    table = accuracy_table(summaries, dataset.modalities)
    seeds = max(s.seeds for s in summaries)
    caption = "test accuracy" + (f", mean and deviation of {seeds} seeds" if seeds > 1 else "")
    files.write(workdir / "comparison.csv",
                csv_text([s._asdict() for s in summaries], Summary._fields))
    files.write(workdir / "seeds.csv", csv_text(
        [{"method": r.method, "head": head, "metric": metric, "seed": r.seed, "value": value}
         for r in results for head, scores in r.scores.items() for metric, value in scores.items()],
        ["method", "head", "metric", "seed", "value"]))
    files.write(workdir / "accuracy.png", plots.png(plots.comparison_bars(
        accuracy(summaries), dataset.modalities, 1 / dataset.num_classes,
        f"{dataset.name}: {caption}")))
    files.write(workdir / "report.md", f"""# Methods on {dataset.name}

{caption.capitalize()}, in percent, after the last epoch of each run.

{table}
![Test accuracy by method and head](accuracy.png)

Made by

    {command}

Macro F1, calibration error (ECE) and negative log-likelihood (NLL) are in `comparison.csv`, every
seed in `seeds.csv`, and every run has a folder of its own here.
""")
    return table
