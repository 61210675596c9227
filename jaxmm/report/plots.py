"""Plots of runs and comparisons, as figures of their own that leave pyplot's state alone.

Colours are those of Okabe and Ito, which colour-blind people tell apart; "fused" is dark and bold.
Accuracies come as shares and are drawn in percent.
"""
import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure as mpl_figure
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from jaxmm import escape
from jaxmm.report.tables import Scores, percent, sort_heads

INK, GREY, GRID = "#1f2a44", "#5f6877", "#e5e7eb"
MODALITY_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2")
EXTRA_COLOUR = "#d55e00"
HALO = [withStroke(linewidth=3, foreground="white")]
METHODS_IN_A_ROW = 8        # of bars; more go below
MOST_MODALITIES = 16        # in a plot; more cannot be told apart
LONGEST_SIDE = 2**15        # of a picture, in pixels; matplotlib makes none of 2**16


class Figure(mpl_figure.Figure):
    """A figure whose texts are drawn as they are: no name in them is a formula."""

    def draw(self, renderer):
        for text in self.findobj(Text):
            text.set_parse_math(False)
            lines = text.get_text().split("\n")
            text.set_text("\n".join(map(escape.printable, lines)))
        super().draw(renderer)


def head_colours(heads: Iterable[str], modalities: Sequence[str]) -> dict[str, str]:
    """Colours by head, in the order of all plots; a modality keeps its colour in every plot.

    Of more than MOST_MODALITIES modalities only the first are there; see `note`.
    """
    left_out = set(modalities[MOST_MODALITIES:])
    colours = {m: MODALITY_COLOURS[i % len(MODALITY_COLOURS)] for i, m in enumerate(modalities)}
    colours["fused"] = INK
    return {head: colours.get(head, EXTRA_COLOUR)
            for head in sort_heads(set(heads) - left_out, modalities)}


def note(modalities: Sequence[str]) -> str:
    """A sentence, after a space, for a report whose plots leave out modalities; "" if they show all."""
    if len(modalities) <= MOST_MODALITIES:
        return ""
    return f" Plots show the first {MOST_MODALITIES} of {len(modalities)} modalities, tables all of them."


def learning_curves(train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]],
                    modalities: Sequence[str], steps_per_epoch: Sequence[int], epochs: int,
                    chance: float) -> Figure:
    """Training loss, and the accuracy of each head on validation data, over epochs.

    Args:
      train: records with "step" and "loss".
      evaluations: records with "step" and "scores" by head.
      modalities: of the data, in its order.
      steps_per_epoch: of each task in turn.
      epochs: in a task; a thin line marks where one task ends and the next begins.
      chance: accuracy of guessing, a dashed line.
    """
    figure = Figure(figsize=(9.6, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    starts = epochs * np.arange(len(steps_per_epoch) + 1)
    to_epoch = functools.partial(np.interp, xp=np.cumsum([0, *steps_per_epoch]) * epochs, fp=starts)
    _curve(left, train, lambda r: r["loss"], to_epoch, color=INK)
    left.set_ylim(bottom=0)
    style(left, "training loss")
    for head, colour in head_colours((h for r in evaluations for h in r["scores"]),
                                     modalities).items():
        _curve(right, [r for r in evaluations if head in r["scores"]],
               lambda r, head=head: 100 * r["scores"][head]["accuracy"], to_epoch,
               color=colour, label=head, linewidth=3.2 if head == "fused" else 2)
    chance_line(right, chance)
    right.set_ylim(0, 100)
    right.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelcolor=INK)
    style(right, "validation accuracy (%)")
    for axes in (left, right):
        for start in starts[1:-1]:
            axes.axvline(start, color=GRID, linewidth=1, zorder=0.5)
        axes.set_xlabel("epoch", color=GREY)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


def accuracy_bars(scores: Scores, modalities: Sequence[str], chance: float, title: str) -> Figure:
    """The accuracy of each head of one run."""
    colours = head_colours(scores, modalities)
    figure = Figure(figsize=(max(3.6, 1.6 + 0.9 * len(colours)), 3.7), layout="constrained")
    axes = figure.subplots()
    for x, (head, colour) in enumerate(colours.items()):
        _bar(axes, x, scores[head]["accuracy"], None, color=colour, width=0.7,
             weight="bold" if head == "fused" else "normal")
    axes.set_xticks(range(len(colours)), colours)
    _style_bars(axes, chance, title)
    return figure


def comparison_bars(accuracy: Mapping[str, Mapping[str, tuple[float, float | None]]],
                    modalities: Sequence[str], chance: float | None, title: str) -> Figure:
    """The accuracy of each head of several methods, a group of bars each.

    Args:
      accuracy: (mean, standard deviation or None) by method and head; a method may have none.
      modalities: of the data, in its order.
      chance: accuracy of guessing, a dashed line if given.
      title: over the plot.
    """
    colours = head_colours((h for by_head in accuracy.values() for h in by_head), modalities)
    accuracy = {name: {head: x for head, x in by_head.items() if head in colours}
                for name, by_head in accuracy.items()}
    names = list(accuracy)
    rows = [names[i:i + METHODS_IN_A_ROW] for i in range(0, len(names), METHODS_IN_A_ROW)]
    positions = max(sum(max(len(accuracy[name]), 1) + 0.8 for name in row) for row in rows)
    width = max(5, 0.8 + 0.62 * positions, 1 + 0.095 * len(title))      # of bars or title, in inches
    figure = Figure(figsize=(width, 0.6 + 3.6 * len(rows)), layout="constrained")
    bars = {}
    for axes, row in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows):
        left, centres = 0.0, []
        for by_head in map(accuracy.get, row):
            places = max(len(by_head), 1)
            centres.append(left + (places - 1) / 2)
            for x, head in enumerate(h for h in colours if h in by_head):
                bars[head] = _bar(axes, left + x, *by_head[head], color=colours[head], width=0.9,
                                  weight="bold" if head == "fused" else "normal")
            left += places + 0.8
        axes.set_xticks(centres, row)
        _style_bars(axes, chance, title if row is rows[0] else "")
        if len(rows) > 1:
            axes.set_xlim(-0.9, positions - 0.9)        # bars as wide in every row
    figure.legend([bars[h] for h in colours], colours, loc="outside lower center",
                  ncols=len(colours), frameon=False, labelcolor=INK)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=min(160, LONGEST_SIDE / max(figure.get_size_inches())))
    return buffer.getvalue()


def _curve(axes: Axes, records, value, to_epoch, *, linewidth=2.0, **options):
    """value(record) over epochs; with dots where the points are few."""
    axes.plot([to_epoch(r["step"]) for r in records], [value(r) for r in records],
              marker="o" if len(records) <= 30 else None, markersize=3.5 + (linewidth > 2),
              linewidth=linewidth, solid_capstyle="round", clip_on=False, zorder=3, **options)


def _bar(axes: Axes, x, mean, std, *, color, width, weight):
    """A bar in percent, with its value above and, if there is one, an error bar."""
    bar = axes.bar(x, 100 * mean, width, color=color, zorder=2)
    if std is not None:
        axes.errorbar(x, 100 * mean, 100 * std, color=INK, linewidth=1.6, zorder=3,
                      path_effects=HALO)
    axes.annotate(percent(mean), (x, 100 * (mean + (std or 0))), (0, 3),
                  textcoords="offset points", ha="center", fontsize=9, color=INK, weight=weight,
                  path_effects=HALO, zorder=5)
    return bar


def _style_bars(axes: Axes, chance: float | None, title: str) -> None:
    if chance is not None:
        chance_line(axes, chance)
    axes.set_ylim(0, 105)
    axes.set_ylabel("accuracy (%)", color=GREY)
    style(axes, title)
    axes.tick_params(axis="x", labelcolor=INK, labelsize=10.5)


def chance_line(axes: Axes, chance: float) -> None:
    """A dashed line at the accuracy of guessing, named to the right of the axes."""
    axes.axhline(100 * chance, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=4)
    axes.annotate("chance", (1, 100 * chance), (4, 0), xycoords=axes.get_yaxis_transform(),
                  textcoords="offset points", va="center", fontsize=9, color=GREY)


def style(axes: Axes, title: str, size: float = 11.5) -> None:
    """The look of all plots; `size` is that of the title, in points."""
    axes.set_title(title, loc="left", color=INK, fontsize=size, weight="bold", pad=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(length=0, labelcolor=GREY)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
