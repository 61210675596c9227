"""Runs over the values of one option: a table, and a plot of the headline on validation data."""
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np

from jaxmm import escape, files
from jaxmm.config import TaskConfig
from jaxmm.data.dataset import Dataset
from jaxmm.report import continual, plots, units
from jaxmm.report.records import DIVERGED, Cell, Record, pivot
from jaxmm.report.tables import capital, csv_text, markdown, sort_heads
from jaxmm.train.scores import main_head

NOT_FINITE = "loss not finite"

# By value in ascending order, then by (split, head); what diverged under ("", "").
Summary = Mapping[float, Mapping[tuple[str, str], Cell]]


class Point(NamedTuple):
    """One run."""
    value: float
    seed: int
    history: Sequence[Mapping[str, Any]] | None     # of its evaluations; None: loss not finite


def records(points: Sequence[Point], metric: str = "accuracy", kind: str = "") -> list[Record]:
    """The headline of every run, on validation and test data; `kind` is that of the stream, if any."""
    found = []
    for p in sorted(points, key=lambda p: p.value):
        if p.history is None:
            found.append(Record("", p.value, p.seed, "", None, "", DIVERGED, 1.0))
            continue
        found += [Record("", p.value, p.seed, split, None, head, metric, value)
                  for split in ("val", "test")
                  for head, value in continual.headlines(p.history, split, kind, metric).items()]
    return found


def summarize(table: Sequence[Record]) -> Summary:
    """Means and deviations over the seeds."""
    return pivot(table, ["setting"], ["split", "head"])


def best(summary: Summary, metric: str = "accuracy") -> float | None:
    """The value whose main head is best on validation data; None if no run of a value is left.

    Values with a run whose loss was not finite are left out; of equal ones the smallest counts.
    """
    return units.best(metric, {value: cells["val", main_head(_heads(cells))].mean
                               for value, cells in summary.items()
                               if _heads(cells) and ("", "") not in cells})


def _heads(cells: Mapping[tuple[str, str], Cell]) -> list[str]:
    return [head for split, head in cells if split == "val"]


def table_rows(summary: Summary, option: str, modalities: Sequence[str],
               metric: str = "accuracy") -> tuple[list[dict[str, str]], list[str]]:
    """(cells by column, columns): a row for each value with the headline of every head on validation
    data, and of the main head on test data."""
    heads = sort_heads({h for cells in summary.values() for h in _heads(cells)}, modalities)
    chosen, rows = best(summary, metric), []
    for value, cells in summary.items():
        row = {option: f"{value:g}", "": "best" if value == chosen else NOT_FINITE * (("", "") in cells)}
        if _heads(cells):
            main = main_head(_heads(cells))
            rows.append(row | {f"{split} {head}": units.number(metric, cell.mean, cell.std)
                               for (split, head), cell in cells.items()
                               if split == "val" or (split, head) == ("test", main)})
        else:
            rows.append(row)
    test = [f"test {main_head(heads)}"] if heads else []
    return rows, [option, *(f"val {head}" for head in heads), *test, ""]


def table(summary: Summary, option: str, modalities: Sequence[str], metric: str = "accuracy") -> str:
    """Markdown of `table_rows`."""
    return markdown(*table_rows(summary, option, modalities, metric))


@plots.styled
def curves(summary: Summary, option: str, modalities: Sequence[str], chance: float | None, title: str,
           metric: str = "accuracy", *, page: plots.Page) -> plots.Figure:
    """The headline of each head on validation data by value, evenly spaced; the best is marked."""
    width = max(4.8, 1.4 + 0.8 * len(summary))
    figure = plots.Figure(figsize=(page.fit(width), 2.6 if page.width else 4))
    axes = figure.subplots()
    chosen, scale = best(summary, metric), units.unit(metric).scale
    for head, seen in plots.head_looks({h for cells in summary.values() for h in _heads(cells)},
                                       modalities).items():
        known = [(x, *cells["val", head][:2]) for x, cells in enumerate(summary.values())
                 if ("val", head) in cells]
        x, mean, std = zip(*known)
        axes.errorbar(x, scale * np.array(mean), [scale * (s or 0) for s in std], label=head, capsize=0,
                      elinewidth=0.8 * matplotlib.rcParams["lines.linewidth"], **seen.dots(len(x)))
    if chosen is not None:
        x = list(summary).index(chosen)
        axes.axvspan(x - 0.3, x + 0.3, color=plots.GRID, zorder=0.5, linewidth=0)
    plots.guess_line(axes, chance, metric)
    plots.limit(axes, metric)
    axes.set_xlim(-0.5, len(summary) - 0.5)
    axes.set_xticks(range(len(summary)), [
        f"{value:g}" + "\nbest" * (value == chosen) + "\nnot finite" * (("", "") in cells)
        for value, cells in summary.items()])
    axes.set_xlabel(option)
    if page.width:
        axes.set_ylabel(f"validation {units.unit(metric).axis}")
    axes.set_title(plots.heading(title, page, modalities, width))
    plots.legend(figure, *axes.get_legend_handles_labels())
    return figure


def write(points: Sequence[Point], option: str, dataset: Dataset, workdir, command: str,
          kind: str = "", page: plots.Page | None = None, task_config: TaskConfig = TaskConfig()) -> str:
    """Writes `report.md`, `sweep.csv` and `sweep.png` into a folder; returns the table.

    Args:
      points: of all runs.
      option: that was varied, by its path in the config.
      dataset: as it is learned.
      workdir: the folder.
      command: that makes the runs again.
      kind: of the stream, if there is one.
      page: of paper, for which the plot is drawn too, in the folder `figures`.
      task_config: of the runs, what is predicted.
    """
    workdir, task = pathlib.Path(workdir), units.task_of(dataset, task_config)
    metric = continual.headline(kind, task)
    found = records(points, metric, kind)
    summary = summarize(found)
    shown, chosen = table(summary, option, dataset.modalities, metric), best(summary, metric)
    seeds = len({p.seed for p in points})
    what = continual.caption(metric).removeprefix("test ")
    files.write(workdir / "sweep.csv", csv_text(
        [{"value": r.setting, "seed": r.seed, "split": r.split, "head": r.head, metric: r.value}
         for r in found if r.metric == metric], ["value", "seed", "split", "head", metric]))
    unit = units.unit(metric)
    picture = plots.save(workdir, "sweep", functools.partial(
        curves, summary, option, dataset.modalities, units.guess(task, dataset, "val"),
        f"{dataset.name}: validation {unit.axis}", metric), page)
    picked = (f"Best on validation data: **{option}={chosen:g}**." if chosen is not None else
              "No value has runs whose losses all stayed finite.")
    over = f", mean and deviation of {seeds} seeds" if seeds > 1 else ""
    files.write(workdir / "report.md", f"""# {option} on {escape.markdown(dataset.name)}

{picked} Test data is shown, and has no part in the choice.

{capital(what)}, {units.explain(metric)}, after the last epoch{over}.\
{plots.note(dataset.modalities, metric)}

{shown}
![Validation {unit.title} by value]({picture})

Made by

    {command}

Every run has a folder of its own here; `sweep.csv` has its scores.
""")
    return shown
