"""Plots of runs on a stream of tasks; accuracies and shares are drawn in percent."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap

from jaxmm.metrics import Reliability
from jaxmm.report.calibration import Calibration
from jaxmm.report.plots import (DASHES, GREY, GRID, HALO, INK, METHOD_COLOURS, Figure, Look, Page,
                                comparison_bars, guess_line, head_looks, heading, legend, look, mean_curve,
                                panels, styled)
from jaxmm.report.records import Cell
from jaxmm.report.units import unit

HEAT = LinearSegmentedColormap.from_list("heat", ["#f5f8fc", "#7fb2dd", "#123a6b"])
OVER_TIME = ("stability", "plasticity", "trade_off")
MOST_CURVES = 8         # methods in one panel of their curves


@styled
def task_matrices(matrices: Mapping[str, np.ndarray], modalities: Sequence[str], title: str, *,
                  page: Page) -> Figure:
    """Accuracy on every task after learning each, a panel for each head.

    Args:
      matrices: R by head, [T, T], or [1, T] if all tasks were learned at once; NaN is left blank.
      modalities: of the data, in its order.
      title: over the plot.
      page: what it is drawn for.
    """
    heads = list(head_looks(matrices, modalities))
    learned, tasks = matrices[heads[0]].shape
    cell = 0.42 if tasks <= 10 else 0.32
    size = max(cell * tasks, 1.6) + 0.6, cell * learned + 1.0
    figure, grid = panels(len(heads), min(len(heads), 4 if tasks <= 10 else 2), size,
                          heading(title, page, modalities), page)
    for axes, head in zip(grid.flat, heads):
        _heat_map(axes, matrices[head], digits=1 if tasks <= 5 else 0)
        axes.set_title(head)
        axes.set_xlabel("accuracy (%) on task")
    for axes in grid[:, 0]:
        axes.set_ylabel("after learning task" if learned > 1 else "")
    return figure


@styled
def seen_curves(seen: Mapping[str, np.ndarray], modalities: Sequence[str], chance: float,
                title: str, *, page: Page) -> Figure:
    """Accuracy [T] on the tasks seen so far by head, over the tasks learned."""
    figure = Figure(figsize=(page.fit(5.6), 2.6 if page.width else 3.7))
    axes = figure.subplots()
    for head, seen_as in head_looks(seen, modalities).items():
        tasks = np.arange(1, len(seen[head]) + 1)
        axes.plot(tasks, 100 * seen[head], label=head, **seen_as.dots(len(tasks)))
    axes.set_title(heading(title, page, modalities, 5.6))
    _style_tasks(axes, chance, max(map(len, seen.values())))
    axes.set_ylabel("accuracy on the tasks seen (%)")
    legend(figure, *axes.get_legend_handles_labels())
    return figure


def stability_bars(metrics: Mapping[str, Mapping[str, float]], modalities: Sequence[str],
                   title: str, **options) -> Figure:
    """Stability, plasticity and their trade-off by head, a group of bars each."""
    groups = {unit(name).title: {head: (values[name], None) for head, values in metrics.items()
                                 if not np.isnan(values[name])} for name in OVER_TIME}
    return comparison_bars(groups, modalities, None, title, **options)


@styled
def recency_bars(recency: Mapping[str, Sequence[float]], truth: Sequence[float],
                 modalities: Sequence[str], title: str, *, page: Page) -> Figure:
    """Share of the predictions that fall in each task's classes, a panel for each head.

    Args:
      recency: shares [T] by head.
      truth: share of the test examples that each task has [T], a line over each bar.
      modalities: of the data, in its order.
      title: over the plot.
      page: what it is drawn for.
    """
    looks = head_looks(recency, modalities)
    tasks = np.arange(1, len(truth) + 1)
    figure, grid = panels(len(looks), len(looks), (max(2.2, 0.8 + 0.2 * len(tasks)), 3.2),
                          heading(title, page, modalities), page)
    for axes, (head, seen) in zip(grid.flat, looks.items()):
        axes.bar(tasks, 100 * np.asarray(recency[head]), 0.75, color=seen.colour, zorder=2)
        marks = axes.hlines(100 * np.asarray(truth), tasks - 0.45, tasks + 0.45, color=INK,
                            linewidth=1.6, zorder=3, path_effects=HALO)
        axes.set_title(head)
        axes.set_ylim(0, 110 * max(max(truth), *map(max, recency.values())))
        axes.set_xlabel("classes of task")
        _task_ticks(axes.xaxis, len(tasks))
    for axes in grid[:, 0]:
        axes.set_ylabel("predictions (%)")
    legend(figure, [marks], ["share of the test examples"])
    return figure


@styled
def reliability_diagrams(calibrations: Mapping[str, Calibration], modalities: Sequence[str],
                         title: str, *, page: Page) -> Figure:
    """Accuracy against confidence, a panel for each head; a dot's area is its bin's share."""
    looks = head_looks(calibrations, modalities)
    figure, grid = panels(len(looks), min(len(looks), 4), (2.8, 3.2), heading(title, page, modalities),
                          page)
    for axes, (head, seen) in zip(grid.flat, looks.items()):
        before, _, after = calibrations[head]
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle=DASHES, zorder=1)
        _reliability(axes, before.bins, "#a9b0bd" if after else seen.colour, "before")
        if after:
            _reliability(axes, after.bins, seen.colour, "after scaling")
        axes.legend(loc="upper left", fontsize="small")
        axes.set_title(f"{head}: ECE {before.ece:.3f}" + (f" → {after.ece:.3f}" if after else ""),
                       fontsize="medium")
        axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
        axes.set_xlabel("confidence (%)")
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy (%)")
    return figure


@styled
def method_curves(curves: Mapping[str, Mapping[str, Mapping[int, Cell]]], chance: float,
                  title: str, *, page: Page) -> Figure:
    """Accuracy on the tasks seen so far by method, mean and a band of one standard deviation.

    More than `MOST_CURVES` methods have a panel each, in which the curves are those of the sizes of its memory.

    Args:
      curves: by the size of the memory as a title, "" if no method has one, then by method and the number of tasks
        seen, over the seeds. A method that learned all tasks at once has one cell and is a level line.
      chance: accuracy of guessing, a dashed line.
      title: over the plot.
      page: what it is drawn for.
    """
    methods = list(dict.fromkeys(method for by_method in curves.values() for method in by_method))
    size, columns, font = (4.6, 3.6), 3, {}
    if len(methods) > MOST_CURVES:
        curves, size, columns, font = _by_method(curves, methods), (2.3, 2.1), 4, {"fontsize": "medium"}
    names = list(dict.fromkeys(name for panel in curves.values() for name in panel))
    looks = {name: look(i, METHOD_COLOURS) for i, name in enumerate(names)}
    tasks = max(max(cells) for panel in curves.values() for cells in panel.values())
    columns = min(len(curves), columns)
    figure, grid = panels(len(curves), columns, size, heading(title, page, width=columns * size[0]), page)
    lines = {}
    for axes, (name, panel) in zip(grid.flat, curves.items()):
        for curve, cells in panel.items():
            lines[curve] = _mean_curve(axes, cells, looks[curve])
        axes.set_title(name.replace("+", "\n+"), **font)
        _style_tasks(axes, chance, tasks)
    figure.supylabel("accuracy on the tasks seen (%)", fontsize="medium", color=GREY)
    legend(figure, [lines[name] for name in names if name], list(filter(None, names)))
    return figure


def _by_method(curves: Mapping[str, Mapping[str, Mapping[int, Cell]]], methods: Sequence[str]):
    """The same curves by method, then by the size of its memory, or "" for a method without one."""
    found = {}
    for method in methods:
        own = {size: by_method[method] for size, by_method in curves.items() if method in by_method}
        first = next(iter(own.values()))
        # One without a memory, or with one of bytes, is the same curve beside every size.
        alone = len(curves) == 1 or len(own) > 1 and all(cells is first for cells in own.values())
        found[method] = {"": first} if alone else own
    return found


def _heat_map(axes: Axes, R: np.ndarray, digits: int) -> None:
    """The matrix with its numbers in percent, dark for high."""
    axes.imshow(np.ma.masked_invalid(R), cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(R):
        if not np.isnan(value):
            axes.annotate(f"{100 * value:.{digits}f}", (j, i), ha="center", va="center",
                          fontsize="small", color="white" if value > 0.55 else INK)
    axes.set_facecolor(GRID)
    axes.grid(False)
    _task_ticks(axes.xaxis, R.shape[1], first=0)
    _task_ticks(axes.yaxis, R.shape[0] if len(R) > 1 else 0, first=0)
    axes.spines[:].set_visible(False)


def _reliability(axes: Axes, bins: Reliability, colour: str, label: str) -> None:
    """The bins that have examples."""
    filled = bins.count > 0
    x, y = 100 * bins.confidence[filled], 100 * bins.accuracy[filled]
    axes.plot(x, y, color=colour, linewidth=1.4, marker="o", markersize=3, label=label, zorder=2)
    axes.scatter(x, y, 160 * bins.count[filled] / bins.count.sum(), color=colour, zorder=3,
                 clip_on=False)


def _mean_curve(axes: Axes, cells: Mapping[int, Cell], seen: Look):
    """Mean and band over the seeds, by number of tasks; a level line if there is just one."""
    if len(cells) == 1:
        level, = (100 * cell.mean for cell in cells.values())
        return axes.axhline(level, **seen.curve() | {"linestyle": (0, (1, 1.2)), "zorder": 2})
    return mean_curve(axes, cells, seen, "accuracy")


def _style_tasks(axes: Axes, chance: float, tasks: int) -> None:
    """Axes of accuracy over the number of tasks learned."""
    guess_line(axes, chance)
    axes.set_ylim(0, 100)
    axes.set_xlabel("tasks learned")
    _task_ticks(axes.xaxis, tasks)


def _task_ticks(axis: Axis, tasks: int, first: int = 1) -> None:
    """Every task by its number from 1, or every other one of many; `first` is where 1 stands."""
    step = 1 if tasks <= 10 else 2
    axis.set_ticks(range(first, first + tasks, step), range(1, tasks + 1, step))
