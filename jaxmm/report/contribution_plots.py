"""Plots of what each modality contributes; shares are drawn in percent, log-probabilities in nats."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmm.evaluate.decomposition import Decomposition
from jaxmm.report.plots import (DASHES, EXTRA_COLOUR, GREY, INK, MOST_MODALITIES, Figure, Page, head_looks, heading,
                                legend, panels, styled)

PARTS = {"redundant": INK, "first alone": "#7d8798", "second alone": "#c3c9d3", "synergy": EXTRA_COLOUR}


def _axis(value: str) -> tuple[str, float]:
    """What stands at an axis of values, and the factor of what is drawn."""
    return {"correct": ("accuracy (points)", 100), "prob": ("probability (points)", 100)}.get(
        value, ("log-probability (nats)", 1))


@styled
def overview(numbers: Mapping[str, Mapping[str, tuple[float, float, float]]],
             by_baseline: Mapping[str, Mapping[str, float]],
             pairs: Mapping[tuple[str, str], tuple[Decomposition, Decomposition]], modalities: Sequence[str],
             value: str, title: str, *, page: Page) -> Figure:
    """What each modality gives, how that depends on what stands for absent ones, and what pairs tell.

    Args:
      numbers: (number, low, high) by name, such as "Shapley", and modality.
      by_baseline: Shapley values by baseline and modality.
      pairs: decompositions by pair, measured and under shuffled labels.
      modalities: of the data, in its order.
      value: one of `contribution.VALUES`.
      title: over the plot.
      page: what it is drawn for.
    """
    looks = head_looks(next(iter(by_baseline.values())), modalities)
    count = 3 if pairs else 2
    figure, grid = panels(count, count, (3.7, 3.6), heading(title, page, modalities), page)
    left, middle, *last = grid.flat[:count]
    label, scale = _axis(value)
    bars = {}
    for axes, groups in ((left, numbers), (middle, {b: {m: (x, np.nan, np.nan) for m, x in phi.items()}
                                                    for b, phi in by_baseline.items()})):
        for i, (m, seen) in enumerate(looks.items()):
            x = np.arange(len(groups)) + (i - (len(looks) - 1) / 2) * 0.8 / len(looks)
            y, low, high = (scale * np.array([of[m][k] for of in groups.values()]) for k in range(3))
            bars[m] = axes.bar(x, y, 0.76 / len(looks), **seen.bar(page))
            axes.errorbar(x, y, [y - low, high - y], fmt="none", ecolor=INK, elinewidth=1.2, zorder=4)
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=3)
        axes.set_xticks(range(len(groups)), list(groups))
        axes.tick_params(axis="x", labelcolor=INK)
        axes.set_ylabel(label)
    left.set_title("with 95% intervals")
    middle.set_title("Shapley, absent is")
    for axes in last:
        bars |= _stack(axes, pairs)
    legend(figure, list(bars.values()), list(bars))
    return figure


def _stack(axes, pairs):
    """Horizontal bars of bits, a part after the other, which are returned; thin ones are under shuffled labels."""
    shown, bars = list(pairs.items())[:MOST_MODALITIES], {}
    for row, (_, both) in enumerate(shown):
        for height, offset, parts in ((0.16, 0.26, both[1]), (0.42, -0.12, both[0])):
            left = 0.0
            for (part, colour), x in zip(PARTS.items(), parts):
                bars[part] = axes.barh(row + offset, max(x, 0), height, left=left, color=colour, zorder=2)
                left += max(x, 0)
    axes.set_yticks(range(len(shown)), [f"{a}\n{b}" for (a, b), _ in shown])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(max(len(shown), 3) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    axes.set_xlabel("bits; thin: labels shuffled")
    axes.set_title("what pairs tell")
    return bars


@styled
def by_class(rows: Sequence[Mapping[str, Any]], used: Sequence[str], modalities: Sequence[str], value: str,
             title: str, *, page: Page) -> Figure:
    """Shapley values of each class, a bar for each modality.

    Args:
      rows: with "class" and "Shapley MODALITY".
      used: modalities of the run.
      modalities: of the data, in its order.
      value: one of `contribution.VALUES`.
      title: over the plot.
      page: what it is drawn for.
    """
    label, scale = _axis(value)
    looks = head_looks(used, modalities)
    figure = Figure(figsize=(page.fit(6.4), 1.4 + len(rows) * (0.16 + 0.14 * len(looks))))
    axes = figure.subplots()
    for i, (m, seen) in enumerate(looks.items()):
        y = np.arange(len(rows)) + (i - (len(looks) - 1) / 2) * 0.8 / len(looks)
        axes.barh(y, [scale * row[f"Shapley {m}"] for row in rows], 0.76 / len(looks), label=m, **seen.bar(page))
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=3)
    axes.set_yticks(range(len(rows)), [row["class"] for row in rows])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    axes.set_xlabel(f"Shapley value, {label}")
    axes.set_title(heading(title, page, modalities, 6.0))
    legend(figure, *axes.get_legend_handles_labels())
    return figure


@styled
def along_training(curve: Mapping[int, Mapping[str, float]], modalities: Sequence[str], value: str, title: str, *,
                   page: Page) -> Figure:
    """Shapley values over steps: solid lines; v(all), "fused", is dashed.

    Args:
      curve: values by step and modality.
      modalities: of the data, in its order.
      value: one of `contribution.VALUES`.
      title: over the plot.
      page: what it is drawn for.
    """
    label, scale = _axis(value)
    figure = Figure(figsize=(page.fit(6.6), 3.0 if page.width else 4.2))
    axes = figure.subplots()
    steps = list(curve)
    for head, seen in head_looks(next(iter(curve.values())), modalities).items():
        points = scale * np.array([at[head] for at in curve.values()])
        dashed = {"linestyle": DASHES if head == "fused" else "-"}
        axes.plot(steps, points, label="v(all)" if head == "fused" else head, **seen.dots(len(steps)) | dashed)
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    axes.set_title(heading(title, page, modalities, 6.6))
    axes.set_xlim(left=0)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    legend(figure, *axes.get_legend_handles_labels())
    return figure
