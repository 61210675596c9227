"""Plots of runs on a stream of tasks; accuracies and shares are drawn in percent."""
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap

from jaxmm.metrics import Reliability
from jaxmm.report.calibration import Calibration
from jaxmm.report.plots import (GREY, GRID, HALO, INK, Figure, chance_line, comparison_bars,
                                head_colours, style)

HEAT = LinearSegmentedColormap.from_list("heat", ["#f5f8fc", "#7fb2dd", "#123a6b"])
METHOD_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
OVER_TIME = ("stability", "plasticity", "trade_off")


def task_matrices(matrices: Mapping[str, np.ndarray], modalities: Sequence[str],
                  title: str) -> Figure:
    """Accuracy on every task after learning each, a panel for each head.

    Args:
      matrices: R by head, [T, T], or [1, T] if all tasks were learned at once; NaN is left blank.
      modalities: of the data, in its order.
      title: over the plot.
    """
    heads = list(head_colours(matrices, modalities))
    learned, tasks = matrices[heads[0]].shape
    cell = 0.42 if tasks <= 10 else 0.32
    size = max(cell * tasks, 1.6) + 0.6, cell * learned + 1.0
    figure, panels = _panels(len(heads), min(len(heads), 4 if tasks <= 10 else 2), size, title)
    for axes, head in zip(panels.flat, heads):
        _heat_map(axes, matrices[head], digits=1 if tasks <= 5 else 0)
        axes.set_title(head, loc="left", color=INK, fontsize=10.5, weight="bold")
        axes.set_xlabel("accuracy (%) on task", color=GREY)
    for axes in panels[:, 0]:
        axes.set_ylabel("after learning task" if learned > 1 else "", color=GREY)
    return figure


def seen_curves(seen: Mapping[str, np.ndarray], modalities: Sequence[str], chance: float,
                title: str) -> Figure:
    """Accuracy [T] on the tasks seen so far by head, over the tasks learned."""
    figure = Figure(figsize=(5.6, 3.7), layout="constrained")
    axes = figure.subplots()
    for head, colour in head_colours(seen, modalities).items():
        tasks = np.arange(1, len(seen[head]) + 1)
        axes.plot(tasks, 100 * seen[head], color=colour, label=head, marker="o", markersize=4.5,
                  linewidth=3.2 if head == "fused" else 2, clip_on=False, zorder=3)
    style(axes, title)
    _style_tasks(axes, chance, max(map(len, seen.values())))
    axes.set_ylabel("accuracy on the tasks seen (%)", color=GREY)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelcolor=INK)
    return figure


def stability_bars(metrics: Mapping[str, Mapping[str, float]], modalities: Sequence[str],
                   title: str) -> Figure:
    """Stability, plasticity and their trade-off by head, a group of bars each."""
    groups = {name.replace("_", "-"): {head: (values[name], None)
                                       for head, values in metrics.items()
                                       if not np.isnan(values[name])} for name in OVER_TIME}
    return comparison_bars(groups, modalities, None, title)


def recency_bars(recency: Mapping[str, Sequence[float]], truth: Sequence[float],
                 modalities: Sequence[str], title: str) -> Figure:
    """Share of the predictions that fall in each task's classes, a panel for each head.

    Args:
      recency: shares [T] by head.
      truth: share of the test examples that each task has [T], a line over each bar.
      modalities: of the data, in its order.
      title: over the plot.
    """
    colours = head_colours(recency, modalities)
    tasks = np.arange(1, len(truth) + 1)
    figure, panels = _panels(len(colours), len(colours), (max(2.2, 0.8 + 0.2 * len(tasks)), 3.2),
                             title)
    for axes, (head, colour) in zip(panels.flat, colours.items()):
        axes.bar(tasks, 100 * np.asarray(recency[head]), 0.75, color=colour, zorder=2)
        marks = axes.hlines(100 * np.asarray(truth), tasks - 0.45, tasks + 0.45, color=INK,
                            linewidth=1.6, zorder=3, path_effects=HALO)
        style(axes, head, 10.5)
        axes.set_ylim(0, 110 * max(max(truth), *map(max, recency.values())))
        axes.set_xlabel("classes of task", color=GREY)
        _task_ticks(axes.xaxis, len(tasks))
    panels[0, 0].set_ylabel("predictions (%)", color=GREY)
    figure.legend([marks], ["share of the test examples"], loc="outside lower center",
                  frameon=False, labelcolor=INK)
    return figure


def reliability_diagrams(calibrations: Mapping[str, Calibration], modalities: Sequence[str],
                         title: str) -> Figure:
    """Accuracy against confidence, a panel for each head; a dot's area is its bin's share."""
    colours = head_colours(calibrations, modalities)
    figure, panels = _panels(len(colours), min(len(colours), 4), (2.8, 3.2), title)
    for axes, (head, colour) in zip(panels.flat, colours.items()):
        before, _, after = calibrations[head]
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        _reliability(axes, before.bins, "#a9b0bd" if after else colour, "before")
        if after:
            _reliability(axes, after.bins, colour, "after scaling")
        axes.legend(loc="upper left", frameon=False, labelcolor=INK, fontsize=9)
        style(axes, f"{head}: ECE {before.ece:.3f}" + (f" → {after.ece:.3f}" if after else ""), 10)
        axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
        axes.set_xlabel("confidence (%)", color=GREY)
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy (%)", color=GREY)
    return figure


def method_curves(panels: Mapping[str, Mapping[str, np.ndarray]], chance: float,
                  title: str) -> Figure:
    """Accuracy on the tasks seen so far by method, mean and a band of one standard deviation.

    Args:
      panels: by the title of a panel, then by method: [S, T] for S seeds; NaN where a seed has
        fewer tasks. A method that learned all tasks at once has T = 1 and is a level line.
      chance: accuracy of guessing, a dashed line.
      title: over the plot.
    """
    methods = dict.fromkeys(method for curves in panels.values() for method in curves)
    colours = {m: METHOD_COLOURS[i % len(METHOD_COLOURS)] for i, m in enumerate(methods)}
    figure, grid = _panels(len(panels), min(len(panels), 3), (4.6, 3.6), title)
    lines = {}
    for axes, (name, curves) in zip(grid.flat, panels.items()):
        for method, values in curves.items():
            lines[method] = _mean_curve(axes, 100 * values, colours[method])
        style(axes, name, 10.5)
        _style_tasks(axes, chance, max(x.shape[1] for x in curves.values()))
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy on the tasks seen (%)", color=GREY)
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=min(len(lines), 4),
                  frameon=False, labelcolor=INK)
    return figure


def _panels(count: int, columns: int, size: tuple[float, float], title: str):
    """A figure with a title and a grid [rows, columns] of axes, the last ones empty."""
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(5, columns * size[0] + 0.5), rows * size[1] + 0.3),
                    layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=11.5, weight="bold")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[count:]:
        axes.set_axis_off()
    return figure, panels


def _heat_map(axes: Axes, R: np.ndarray, digits: int) -> None:
    """The matrix with its numbers in percent, dark for high."""
    axes.imshow(np.ma.masked_invalid(R), cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(R):
        if not np.isnan(value):
            axes.annotate(f"{100 * value:.{digits}f}", (j, i), ha="center", va="center",
                          fontsize=8.5 if R.shape[1] <= 10 else 7.5,
                          color="white" if value > 0.55 else INK)
    axes.set_facecolor(GRID)
    _task_ticks(axes.xaxis, R.shape[1], first=0)
    _task_ticks(axes.yaxis, R.shape[0] if len(R) > 1 else 0, first=0)
    axes.tick_params(length=0, labelcolor=GREY, labelsize=9)
    axes.spines[:].set_visible(False)


def _reliability(axes: Axes, bins: Reliability, colour: str, label: str) -> None:
    """The bins that have examples."""
    filled = bins.count > 0
    x, y = 100 * bins.confidence[filled], 100 * bins.accuracy[filled]
    axes.plot(x, y, color=colour, linewidth=1.4, marker="o", markersize=3, label=label, zorder=2)
    axes.scatter(x, y, 160 * bins.count[filled] / bins.count.sum(), color=colour, zorder=3,
                 clip_on=False)


def _mean_curve(axes: Axes, values: np.ndarray, colour: str):
    """Mean and band over the seeds [S, T]; a level line for T = 1."""
    mean = np.nanmean(values, axis=0)
    if len(mean) == 1:
        return axes.axhline(mean[0], color=colour, linewidth=2, linestyle=(0, (1, 1.2)), zorder=2)
    tasks = np.arange(1, len(mean) + 1)
    several = np.sum(~np.isnan(values), axis=0) > 1
    if several.any():
        std = np.nanstd(values[:, several], axis=0, ddof=1)
        axes.fill_between(tasks[several], mean[several] - std, mean[several] + std, color=colour,
                          alpha=0.18, linewidth=0, zorder=1)
    return axes.plot(tasks, mean, color=colour, linewidth=2, marker="o", markersize=4, zorder=3,
                     clip_on=False)[0]


def _style_tasks(axes: Axes, chance: float, tasks: int) -> None:
    """Axes of accuracy over the number of tasks learned."""
    chance_line(axes, chance)
    axes.set_ylim(0, 100)
    axes.set_xlabel("tasks learned", color=GREY)
    _task_ticks(axes.xaxis, tasks)


def _task_ticks(axis: Axis, tasks: int, first: int = 1) -> None:
    """Every task by its number from 1, or every other one of many; `first` is where 1 stands."""
    step = 1 if tasks <= 10 else 2
    axis.set_ticks(range(first, first + tasks, step), range(1, tasks + 1, step))
