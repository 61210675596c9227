"""Comparison of methods over the rates at which modalities are missing.

In the form of table 2 of MLA (arXiv 2311.10707): methods as rows, rates as columns. If one modality alone
is missing, in training, the table has every head, as in its figure 2.
"""
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxmm import escape, files
from jaxmm.config import TaskConfig
from jaxmm.data import missing
from jaxmm.data.dataset import Dataset
from jaxmm.report import comparison, plots, units
from jaxmm.report.comparison import Result
from jaxmm.report.published import Value, Values
from jaxmm.report.records import Cell, Record, pivot
from jaxmm.report.tables import capital, markdown, percent, sort_heads
from jaxmm.train.scores import main_head

BESIDE = ("weighted_f1", "mean_recall")     # shown after the headline
Row = tuple[str, str]                       # method, head
Scores = Mapping[Row, Mapping[float, Cell]]     # by rate
Published = Mapping[float, Values]              # by rate
Known = Mapping[tuple[Row, float], Value]       # of these the values that rows of a table have


class Mask(NamedTuple):
    """What is missing."""
    scheme: str         # of `jaxmm.data.missing.SCHEMES`
    modality: str       # the only one, and only in training; "": all, everywhere
    seed: int           # that draws it


def records(results: Mapping[float, Iterable[Result]]) -> list[Record]:
    """All numbers of all runs in the order of the rates, which tell models of a method apart."""
    return [r._replace(setting=rate) for rate in sorted(results) for r in comparison.records(results[rate])]


def scores_of(table: Iterable[Record], metric: str, modalities: Sequence[str], every: bool) -> Scores:
    """A metric by row and rate: of every head, or of the one that stands for a method.

    A method that has none but heads of modalities, as `unimodal`, has a row for each.
    """
    found = pivot((r for r in table if r.metric == metric), ["method", "head"], ["setting"])
    heads = {method: [head for other, head in found if other == method] for method, _ in found}
    shown = {method: [main_head(own)] if not every and main_head(own) not in modalities else
             sort_heads(own, modalities) for method, own in heads.items()}
    return {(method, head): found[method, head] for method, own in shown.items() for head in own}


def published_of(published: Published, rows: Iterable[Row]) -> Known:
    """The published values of these rows, of those by rate that `jaxmm.report.published.find` gives."""
    return {(row, rate): values[row[0], None][row[1]] for rate, values in published.items() for row in rows
            if row[1] in values.get((row[0], None), ())}


def score_rows(table: Sequence[Record], scores: Scores, metric: str,
               known: Known) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each of `scores`, a column for each rate: (cells by column, columns).

    A rate with published values has a column "paper" beside it. How many runs diverged is said in the cell
    of the others; a method that has no other runs has a row too.
    """
    lost, rates = comparison.diverged_runs(table), sorted({r.setting for r in table})
    learned = {method for method, _ in scores}
    rows = []
    for row in (*scores, *((m, "") for m in dict.fromkeys(r.method for r in table) if m not in learned)):
        cells = {"method": row[0], "head": row[1]}
        for rate in rates:
            cell, said = scores.get(row, {}).get(rate), lost.get((row[0], rate))
            number = cell and units.number(metric, cell.mean, cell.std)
            cells[name(rate)] = f"{number} ({said})" if number and said else number or said
            if value := known.get((row, rate)):
                cells[f"{name(rate)}, paper"] = (units.number(metric, value.mean, value.std)
                                                 + "*" * bool(value.differences))
        rows.append(cells)
    beside = {rate for _, rate in known}
    return rows, ["method", "head", *(c for rate in rates for c in (name(rate), f"{name(rate)}, paper")
                                      if c == name(rate) or rate in beside)]


def score_table(table: Sequence[Record], scores: Scores, metric: str, known: Known) -> str:
    """Markdown of `score_rows`, and below it where published values come from."""
    below = comparison.sources(list(known.values()))
    return markdown(*score_rows(table, scores, metric, known)) + "".join(f"\n{line}\n" for line in below)


def latex_table(table: Sequence[Record], scores: Scores, compared: Scores, metric: str, known: Known,
                title: str) -> str:
    """LaTeX of `score_rows`, the best of each column of `compared` in bold."""
    rows, columns = score_rows(table, scores, metric, known)
    by_column: dict[str, dict[Row, Cell]] = {}
    for row, cells in compared.items():
        for rate, cell in cells.items():
            by_column.setdefault(name(rate), {})[row] = cell
    return "% Needs \\usepackage{booktabs}.\n" + comparison.latex_best(
        rows, columns, list(known.values()), by_column, [(row["method"], row["head"]) for row in rows], metric,
        f"{title}, {units.explain(metric)}.")


def share_table(datasets: Mapping[float, Dataset]) -> str:
    """Markdown of what is missing in training and test data, by rate."""
    rows, columns = [], ["rate"]
    for rate, dataset in datasets.items():
        row = {"rate": name(rate)}
        for split in (s for s in ("train", "test") if s in dataset.splits):
            lack, several = missing.shares(dataset.splits[split])
            row |= {f"{split}: missing": percent(lack), f"{split}: with several": percent(several)}
        rows.append(row)
        columns = list(row)
    return markdown(rows, columns)


def name(rate: float | str) -> str:
    """A rate, or a value of another option, as it is typed."""
    return rate if isinstance(rate, str) else f"{rate:.12g}"


def of_all(scores: Scores, modalities: Sequence[str], known: Known):
    """What `curves` draws of several methods: one panel with a line for each row, their looks, and papers."""
    lines = {row: " ".join(row) if row[1] in modalities else row[0] for row in scores}
    looks = {line: plots.look(i, plots.METHOD_COLOURS) for i, line in enumerate(lines.values())}
    papers: dict[str, dict[float, float]] = {}
    for (row, rate), value in known.items():
        papers.setdefault(lines[row], {})[rate] = value.mean
    return {"": {lines[row]: cells for row, cells in scores.items()}}, looks, papers


def by_method(scores: Scores, modalities: Sequence[str], known: Known):
    """What `curves` draws of every head: a panel for each method, the looks of heads, and no papers."""
    del known
    looks = plots.head_looks({head for _, head in scores}, modalities)
    panels: dict[str, dict[str, Mapping[float, Cell]]] = {}
    for (method, head), cells in scores.items():
        if head in looks:
            panels.setdefault(method, {})[head] = cells
    return panels, looks, {}


@plots.styled
def curves(panels: Mapping[str, Mapping[str, Mapping[float, Cell]]], looks: Mapping[str, plots.Look],
           papers: Mapping[str, Mapping[float, float]], below: str, chance: float | None, title: str,
           metric: str = "accuracy", tick: Callable[[float], str] = name, *, page: plots.Page) -> plots.Figure:
    """A score over the rates, mean and a band of one standard deviation.

    Args:
      panels: by the title of a panel, then by line.
      looks: by line.
      papers: published values by line and rate, as open markers.
      below: what is on the horizontal axis.
      chance: score of guessing, a dashed line if it is known.
      title: over the plot.
      metric: the score.
      tick: what stands below a rate.
      page: what it is drawn for.
    """
    size = (6.4, 4.6) if len(panels) == 1 else (3.6, 3.4)
    columns = min(len(panels), 3)
    figure, grid = plots.panels(len(panels), columns, size,
                                plots.heading(title, page, width=columns * size[0]), page)
    rates = sorted({rate for by_line in panels.values() for cells in by_line.values() for rate in cells})
    lines = {}
    for axes, (panel, by_line) in zip(grid.flat, panels.items()):
        for line, cells in by_line.items():
            lines[line] = plots.mean_curve(axes, cells, looks[line], metric)
            for rate, value in papers.get(line, {}).items():
                lines["paper"], = axes.plot([rate], [units.unit(metric).scale * value], linestyle="none",
                                            zorder=4, clip_on=False, marker=looks[line].marker,
                                            markerfacecolor="white", markeredgecolor=looks[line].colour)
        axes.set_title(panel)
        axes.set_xlabel(below)
        axes.set_xticks(rates, map(tick, rates))
        plots.guess_line(axes, chance, metric)
        plots.limit(axes, metric)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"test {units.unit(metric).axis}")
    lines = {line: lines[line] for line in (*looks, "paper") if line in lines}
    plots.legend(figure, list(lines.values()), list(lines))
    return figure


def write(results: Mapping[float, Sequence[Result]], datasets: Mapping[float, Dataset], mask: Mask, workdir,
          command: str, published: Published, page: plots.Page | None = None,
          task_config: TaskConfig = TaskConfig()) -> str:
    """Writes the comparison into a folder; returns the Markdown table of the headline.

    The folder gets `report.md` with tables and plot; `missing.csv` with a row for each method, rate, head
    and metric (mean, std, number of seeds), `seeds.csv` with a row for each seed too, and `missing.tex`.
    Shares in the CSV files are no percent.

    Args:
      results: of all runs by rate, of which at least one did not diverge.
      datasets: as they are learned, by rate.
      mask: what is missing.
      workdir: the folder.
      command: that makes the comparison again.
      published: values of papers by rate, as `jaxmm.report.published.find` gives the accuracies.
      page: of paper, for which the plot is drawn too, in the folder `figures`.
      task_config: of the runs, what is predicted.
    """
    workdir, table, dataset = pathlib.Path(workdir), records(results), next(iter(datasets.values()))
    task, every, modalities = units.task_of(dataset, task_config), bool(mask.modality), dataset.modalities
    metric, chance = task.headline, units.guess(task, dataset)
    scores = scores_of(table, metric, modalities, every)
    known = published_of(published, scores) if metric == "accuracy" else {}
    seeds = max(len(cell.values) for cells in scores.values() for cell in cells.values())
    what = f"test {units.unit(metric).title}" + f", mean and deviation of {seeds} seeds" * (seeds > 1)
    where = f"{mask.modality} missing in training" if every else f"modalities missing ({mask.scheme})"
    title = f"{dataset.name}, {where}: {what}"
    below = f"share of {mask.modality} missing in training" if every else "rate of missing modalities"
    lines = (by_method if every else of_all)(scores, modalities, known)
    picture = plots.save(workdir, "missing", functools.partial(
        curves, *lines, below, chance, title, metric), page)
    comparison.write_csv(table, workdir / "missing.csv", "rate")
    compared = scores_of(table, metric, modalities, every=False)
    files.write(workdir / "missing.tex", latex_table(table, scores, compared, metric, known, title))
    shown = score_table(table, scores, metric, known)
    beside = "".join(
        f"\n## {capital(units.unit(other).title)}\n\n"
        f"{score_table(table, scores_of(table, other, modalities, every), other, {})}"
        for other in BESIDE if any(r.metric == other for r in table))
    lost = "Means are of the runs that did not diverge.\n\n" * bool(comparison.diverged_runs(table))
    files.write(workdir / "report.md", f"""# Missing modalities on {escape.markdown(dataset.name)}

{capital(what)}, {units.explain(metric)}, after the last epoch of each run. {_say_mask(mask)}\
{plots.note(modalities, metric) if every else ""}

{lost}{shown}
![{capital(units.unit(metric).title)} by rate]({picture})
{beside}
## What is missing

Share of the modalities that examples lack, and of examples that have two or more, in percent.

{share_table(datasets)}
Made by

    {command}

All scores of all heads are in `missing.csv`, every seed in `seeds.csv`, the table for LaTeX in
`missing.tex`, and every run has a folder of its own here.
""")
    return shown


def _say_mask(mask: Mask) -> str:
    """What is missing, in sentences."""
    if mask.modality:
        drawn = (f"Of the training examples a share lacks {escape.markdown(mask.modality)}; validation and "
                 "test data are as they are.")
    elif mask.scheme == "exact":
        drawn = ("One modality of each example is kept, of the others so many are missing that the rate is "
                 "the share of all, in training, validation and test.")
    else:
        drawn = ("Each modality of each example is missing with that probability, but one is kept, in "
                 "training, validation and test.")
    return f"{drawn} The masks, drawn by data.seed={mask.seed}, are the same for all methods and seeds."
