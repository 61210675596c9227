"""Runs over the values of one option: a table, and a plot of the accuracy on validation data."""
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmm import escape, files
from jaxmm.data.dataset import Dataset
from jaxmm.report import continual, plots
from jaxmm.report.tables import csv_text, markdown, percent, sort_heads
from jaxmm.train.scores import main_head

NOT_FINITE = "loss not finite"


class Point(NamedTuple):
    """One run."""
    value: float
    seed: int
    history: Sequence[Mapping[str, Any]] | None     # of its evaluations; None: loss not finite


class Summary(NamedTuple):
    """The headline of one value by head, as mean and deviation (None for one seed) over its seeds."""
    val: dict[str, tuple[float, float | None]]
    test: dict[str, tuple[float, float | None]]
    lost: int               # runs whose loss was not finite


def summarize(points: Sequence[Point], kind: str = "") -> dict[float, Summary]:
    """By value, in ascending order; `kind` is that of the stream, if there is one."""
    return {value: Summary(*(_accuracy([p for p in points if p.value == value], split, kind)
                             for split in ("val", "test")),
                           sum(p.value == value and p.history is None for p in points))
            for value in sorted({p.value for p in points})}


def best(summaries: Mapping[float, Summary]) -> float | None:
    """The value whose main head is best on validation data; None if no run of a value is left.

    Values with a run whose loss was not finite are left out; of equal ones the smallest counts.
    """
    sound = {value: s.val[main_head(s.val)][0] for value, s in summaries.items()
             if s.val and not s.lost}
    return max(sound, key=sound.get) if sound else None


def table(summaries: Mapping[float, Summary], option: str, modalities: Sequence[str]) -> str:
    """Markdown: a row for each value with the accuracy of every head on validation data, in
    percent, and of the main head on test data."""
    heads = sort_heads({h for s in summaries.values() for h in s.val}, modalities)
    chosen, rows = best(summaries), []
    for value, s in summaries.items():
        row = {option: f"{value:g}", "": "best" if value == chosen else NOT_FINITE * bool(s.lost)}
        if s.val:
            main = main_head(s.val)
            row |= {f"val {head}": _cell(s.val[head]) for head in heads}
            row |= {f"test {main}": _cell(s.test[main])}
        rows.append(row)
    test = [f"test {main_head(heads)}"] if heads else []
    return markdown(rows, [option, *(f"val {head}" for head in heads), *test, ""])


def curves(summaries: Mapping[float, Summary], option: str, modalities: Sequence[str],
           chance: float, title: str) -> plots.Figure:
    """Validation accuracy of each head by value, evenly spaced; the best value is marked."""
    figure = plots.Figure(figsize=(max(4.8, 2.4 + 0.8 * len(summaries)), 3.7), layout="constrained")
    axes = figure.subplots()
    chosen = best(summaries)
    for head, colour in plots.head_colours({h for s in summaries.values() for h in s.val},
                                           modalities).items():
        known = [(x, *s.val[head]) for x, s in enumerate(summaries.values()) if head in s.val]
        x, mean, std = zip(*known)
        bold = head == main_head(next(s.val for s in summaries.values() if s.val))
        axes.errorbar(x, 100 * np.array(mean), [100 * (s or 0) for s in std], color=colour,
                      label=head, linewidth=3.2 if bold else 2, marker="o", capsize=0,
                      elinewidth=1.6, zorder=3, clip_on=False)
    if chosen is not None:
        x = list(summaries).index(chosen)
        axes.axvspan(x - 0.3, x + 0.3, color=plots.GRID, zorder=0.5, linewidth=0)
    plots.chance_line(axes, chance)
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.5, len(summaries) - 0.5)
    axes.set_xticks(range(len(summaries)), [
        f"{value:g}" + "\nbest" * (value == chosen) + "\nnot finite" * bool(s.lost)
        for value, s in summaries.items()])
    axes.set_xlabel(option, color=plots.GREY)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.1, 1), frameon=False, labelcolor=plots.INK)
    plots.style(axes, title)
    return figure


def write(points: Sequence[Point], option: str, dataset: Dataset, workdir, command: str,
          kind: str = "") -> str:
    """Writes `report.md`, `sweep.csv` and `sweep.png` into a folder; returns the table.

    Args:
      points: of all runs.
      option: that was varied, by its path in the config.
      dataset: as it is learned.
      workdir: the folder.
      command: that makes the runs again.
      kind: of the stream, if there is one.
    """
    workdir, summaries = pathlib.Path(workdir), summarize(points, kind)
    found, chosen = table(summaries, option, dataset.modalities), best(summaries)
    seeds = len({p.seed for p in points})
    metric = continual.headline(kind)
    what = continual.HEADLINES[metric].removeprefix("test ")
    files.write(workdir / "sweep.csv", csv_text(
        [{"value": p.value, "seed": p.seed, "split": split, "head": head, metric: value}
         for p in points if p.history for split in ("val", "test")
         for head, value in continual.headlines(p.history, split, kind).items()],
        ["value", "seed", "split", "head", metric]))
    files.write(workdir / "sweep.png", plots.png(curves(
        summaries, option, dataset.modalities, 1 / dataset.num_classes,
        f"{dataset.name}: validation accuracy (%)")))
    picked = (f"Best on validation data: **{option}={chosen:g}**." if chosen is not None else
              "No value has runs whose losses all stayed finite.")
    over = f", mean and deviation of {seeds} seeds" if seeds > 1 else ""
    files.write(workdir / "report.md", f"""# {option} on {escape.markdown(dataset.name)}

{picked} Test data is shown, and has no part in the choice.

{what.capitalize()} in percent, after the last epoch{over}.{plots.note(dataset.modalities)}

{found}
![Validation accuracy by value](sweep.png)

Made by

    {command}

Every run has a folder of its own here; `sweep.csv` has its accuracies.
""")
    return found


def _accuracy(points: Sequence[Point], split: str,
              kind: str) -> dict[str, tuple[float, float | None]]:
    by_head = {}
    for point in points:
        values = continual.headlines(point.history, split, kind) if point.history else {}
        for head, value in values.items():
            by_head.setdefault(head, []).append(value)
    return {head: (float(np.mean(x)), float(np.std(x, ddof=1)) if len(x) > 1 else None)
            for head, x in by_head.items()}


def _cell(value: tuple[float, float | None]) -> str:
    mean, std = value
    return percent(mean) if std is None else f"{percent(mean)} ± {percent(std)}"
