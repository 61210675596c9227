"""Comparison of methods over the values of one option: methods as rows, values as columns.

On a stream also stability against plasticity, with the option along each curve, and what was forgotten.
"""
import functools
import pathlib
from collections.abc import Mapping, Sequence

from jaxmm import escape, files
from jaxmm.config import TaskConfig
from jaxmm.data.dataset import Dataset
from jaxmm.report import comparison, continual, missing, plots, units
from jaxmm.report.comparison import Result
from jaxmm.report.missing import name
from jaxmm.report.records import Record, pivot
from jaxmm.report.tables import capital, sort_heads

KEPT = ("forgetting", "task_recency", "stability", "plasticity")      # tables of a stream
Curve = dict[float | str, tuple[float, float]]      # (plasticity, stability), means, by value


def trade_offs(table: Sequence[Record], modalities: Sequence[str]) -> dict[str, dict[str, Curve]]:
    """Curves of every head by method, of the methods that learned over time and have test data of each task."""
    cells = pivot((r for r in table if r.metric in ("plasticity", "stability")), ["head"],
                  ["method", "setting", "metric"])
    found: dict[str, dict[str, Curve]] = {}
    for head in sort_heads(cells, modalities):
        for method, value, metric in cells[head]:
            if metric == "plasticity":
                found.setdefault(head, {}).setdefault(method, {})[value] = (
                    cells[head][method, value, metric].mean, cells[head][method, value, "stability"].mean)
    return found


@plots.styled
def trade_off_curves(curves: Mapping[str, Mapping[str, Curve]], title: str, *, page: plots.Page) -> plots.Figure:
    """Stability against plasticity, a panel for each head and a curve for each method, along the values.

    The values stand at the ends of a curve; its dots grow along it.
    """
    methods = list(dict.fromkeys(method for by_method in curves.values() for method in by_method))
    looks = {method: plots.look(i, plots.METHOD_COLOURS) for i, method in enumerate(methods)}
    columns = min(len(curves), 3)
    figure, grid = plots.panels(len(curves), columns, (3.8, 3.8), plots.heading(title, page, width=columns * 3.8),
                                page)
    lines = {}
    for axes, (head, by_method) in zip(grid.flat, curves.items()):
        for method, curve in by_method.items():
            x, y = (tuple(100 * place[i] for place in curve.values()) for i in (0, 1))
            lines[method], = axes.plot(x, y, **looks[method].curve(), marker=looks[method].marker, markersize=0.1)
            axes.scatter(x, y, [14 + 50 * i / max(len(x) - 1, 1) for i in range(len(x))], zorder=6,
                         color=looks[method].colour, marker=looks[method].marker)
            for i in {0, len(x) - 1}:
                axes.annotate(name(list(curve)[i]), (x[i], y[i]), (5, 5), textcoords="offset points",
                              fontsize="small", color=looks[method].colour, path_effects=plots.HALO, zorder=5)
        axes.set_title(head)
        axes.set_xlabel("plasticity (%)")
        axes.grid(visible=True, axis="both")
        axes.margins(0.15)
    for axes in grid[:, 0]:
        axes.set_ylabel("stability (%)")
    for line in lines.values():
        line.set_markersize(4.5)
    plots.legend(figure, list(lines.values()), list(lines))
    return figure


def write(results: Mapping[float | str, Sequence[Result]], option: str, dataset: Dataset, workdir, command: str,
          kind: str = "", page: plots.Page | None = None, task_config: TaskConfig = TaskConfig()) -> str:
    """Writes the comparison into a folder; returns the Markdown table of the headline.

    The folder gets `report.md` with tables and plots; `vary.csv` with a row for each method, value, head and
    metric (mean, std, number of seeds), `seeds.csv` with a row for each seed too, and `vary.tex`. Shares in the
    CSV files are no percent.

    Args:
      results: of all runs by value, of which at least one did not diverge.
      option: that was varied, by its path in the config.
      dataset: as it is learned at one of the values.
      workdir: the folder.
      command: that makes the comparison again.
      kind: of the stream, if there is one.
      page: of paper, for which the plots are drawn too, in the folder `figures`.
      task_config: of the runs, what is predicted.
    """
    workdir, table, modalities = pathlib.Path(workdir), missing.records(results), dataset.modalities
    task, values = units.task_of(dataset, task_config), sorted(results)
    metric = continual.headline(kind, task)
    scores = missing.scores_of(table, metric, modalities, every=False)
    seeds = max(len(cell.values) for cells in scores.values() for cell in cells.values())
    what = continual.caption(metric) + f", mean and deviation of {seeds} seeds" * (seeds > 1)
    title, last = f"{dataset.name}: {what}", option.rpartition(".")[2]
    placed = {row: {values.index(value): cell for value, cell in cells.items()} for row, cells in scores.items()}
    picture = plots.save(workdir, "vary", functools.partial(
        missing.curves, *missing.of_all(placed, modalities, {}), option, units.guess(task, dataset), title, metric,
        lambda place: name(values[int(place)])), page)
    comparison.write_csv(table, workdir / "vary.csv", last)
    files.write(workdir / "vary.tex", missing.latex_table(table, scores, scores, metric, {}, title))
    shown = missing.score_table(table, scores, metric, {})
    lost = "Means are of the runs that did not diverge.\n\n" * bool(comparison.diverged_runs(table))
    files.write(workdir / "report.md", f"""# {option} on {escape.markdown(dataset.name)}

{capital(what)}, {units.explain(metric)}, after the last epoch of each run, by {escape.code(option)}.\
{plots.note(modalities, metric)}

{lost}{shown}
![{capital(units.unit(metric).title)} by value]({picture})
{_over_time(table, option, modalities, dataset.name, workdir, page) if kind else ""}
Made by

    {command}

All scores of all heads are in `vary.csv`, every seed in `seeds.csv`, the table for LaTeX in `vary.tex`, and
every run has a folder of its own here.
""")
    return shown


def _over_time(table: Sequence[Record], option: str, modalities: Sequence[str], data: str, workdir: pathlib.Path,
               page: plots.Page | None) -> str:
    """The part of a report that is about the tasks of a stream; "" if no run learned them in turn."""
    parts = []
    if curves := trade_offs(table, modalities):
        picture = plots.save(workdir, "stability_plasticity", functools.partial(
            trade_off_curves, curves, f"{data}: stability against plasticity, along {option}"), page)
        parts.append(f"![Stability against plasticity, along {option}]({picture})\n")
    for metric in KEPT:
        if scores := missing.scores_of(table, metric, modalities, every=False):
            about = " (share of the predictions in the classes of the last task)" * (metric == "task_recency")
            learned = {method for method, _ in scores}
            parts.append(f"{capital(units.unit(metric).title)}{about}, {units.explain(metric)}:\n\n"
                         + missing.score_table([r for r in table if r.method in learned], scores, metric, {}))
    return "\n## Over the tasks\n\n" + "\n".join(parts) if parts else ""
