"""Plots of what a trained run knows; accuracies are drawn in percent."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D

from jaxmm.report.plots import (EXTRA_COLOUR, GREY, GRID, HALO, INK, MODALITY_COLOURS, MOST_MODALITIES,
                                Figure, chance_line, head_colours, style)

MOST_POINTS = 500       # of a modality in a scatter plot
MOST_NAMES = 6          # classes that are named in a plot: more names would cover each other


def probe_curves(curves: Mapping[str, Mapping[str, Mapping[int, float]]],
                 modalities: Sequence[str], chance: float, title: str) -> Figure:
    """Probe accuracy over steps: the first model's lines are solid, those to compare with dashed.

    A model to compare with that has fewer than three points is a level line at its last one.

    Args:
      curves: accuracy by model, modality and step.
      modalities: of the data, in its order.
      chance: accuracy of guessing.
      title: over the plot.
    """
    figure = Figure(figsize=(6.6, 3.9), layout="constrained")
    axes = figure.subplots()
    colours = head_colours(modalities, modalities)
    curves = {name: {m: points for m, points in by_modality.items() if m in colours}
              for name, by_modality in curves.items()}
    first, *others = curves
    for m, points in curves[first].items():
        axes.plot(list(points), 100 * np.array(list(points.values())), color=colours[m], label=m,
                  linewidth=2.4, marker="o" if len(points) <= 30 else None, markersize=4,
                  clip_on=False, zorder=3)
    for name in others:
        for m, points in curves[name].items():
            look = {"color": colours[m], "label": name, "linestyle": (0, (3, 2)), "linewidth": 2}
            if len(points) < 3:
                axes.axhline(100 * points[max(points)], **look)
            else:
                axes.plot(list(points), 100 * np.array(list(points.values())), **look)
    style(axes, title)
    axes.set_ylim(0, 100)
    axes.set_xlim(left=0)
    axes.set_xlabel("step", color=GREY)
    axes.set_ylabel("probe accuracy (%)", color=GREY)
    axes.axhline(100 * chance, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate("chance", (0, 100 * chance), (4, 3), textcoords="offset points", fontsize=9,
                  color=GREY)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelcolor=INK,
                handlelength=2.6)
    return figure


def feature_planes(planes: Sequence[Mapping[str, np.ndarray]], modalities: Sequence[str],
                   title: str) -> Figure:
    """Features [N, 2] by modality with their means, a panel for each plane."""
    figure = Figure(figsize=(5.4 * len(planes), 4.4), layout="constrained")
    colours = head_colours(modalities, modalities)
    for i, (axes, plane) in enumerate(zip(figure.subplots(1, len(planes), squeeze=False)[0], planes)):
        plane = {m: x for m, x in plane.items() if m in colours}
        for m, x in plane.items():
            some = x[np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).astype(int)]
            axes.scatter(*some.T, s=9, color=colours[m], alpha=0.45, linewidths=0, zorder=2)
        for m, x in plane.items():
            axes.scatter(*x.mean(0), s=150, color=colours[m], marker="X", edgecolors="white",
                         linewidths=1.5, zorder=4, label=m)
        style(axes, title if i == 0 else "")
        axes.grid(axis="x", color=GRID, linewidth=1)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("first principal axis", color=GREY)
        axes.set_ylabel("second principal axis", color=GREY)
        axes.legend(title="mean of", title_fontproperties={"size": 9}, loc="upper left",
                    bbox_to_anchor=(1, 1), frameon=False, labelcolor=INK)
    return figure


def class_gains(best: np.ndarray, fused: np.ndarray, beats_sum: np.ndarray,
                class_names: Sequence[str], title: str) -> Figure:
    """Fused accuracy [C] of each class against the best of its unimodal ones.

    Args:
      best: [C]; NaN for classes without examples, as in `fused`.
      fused: [C].
      beats_sum: bool [C], whether it is more than the unimodal ones together.
      class_names: of the C classes.
      title: over the plot.
    """
    figure = Figure(figsize=(4.8, 5.8), layout="constrained")
    axes = figure.subplots()
    known = ~np.isnan(best + fused)
    x, y = 100 * best, 100 * fused
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    for chosen, colour, label in (
            (known & beats_sum, EXTRA_COLOUR, "beats the sum of the modalities"),
            (known & ~beats_sum & (fused > best), INK, "beats the best of them"),
            (known & ~beats_sum & (fused <= best), MODALITY_COLOURS[0], "does not")):
        axes.scatter(x[chosen], y[chosen], s=34, color=colour, alpha=0.8, linewidths=0, zorder=3,
                     label=f"{label} ({chosen.sum()})", clip_on=False)
    named = np.flatnonzero(known & beats_sum)
    for c in named[np.argsort(best[named] - fused[named], kind="stable")][:MOST_NAMES]:
        axes.annotate(class_names[c], (x[c], y[c]), (5, 4), textcoords="offset points", fontsize=8,
                      color=INK, path_effects=HALO, zorder=5)
    style(axes, title)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_aspect("equal")
    axes.set_xlabel("best unimodal accuracy of the class (%)", color=GREY)
    axes.set_ylabel("fused accuracy of the class (%)", color=GREY)
    figure.legend(loc="outside lower center", frameon=False, labelcolor=INK)
    return figure


def robustness_curves(panels: Mapping[str, tuple[Sequence[float], Mapping[str, np.ndarray]]],
                      modalities: Sequence[str], chance: float, title: str) -> Figure:
    """Accuracy of each head against how bad inputs are, a panel for each way to be bad.

    Args:
      panels: levels [L] and accuracies [L] by head, by title.
      modalities: of the data, in its order.
      chance: accuracy of guessing.
      title: over the plot.
    """
    *most, last = panels
    panels = {name: panels[name] for name in (*most[:MOST_MODALITIES], last)}
    figure = Figure(figsize=(1.6 + 3.1 * len(panels), 3.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=11.5, weight="bold")
    colours = head_colours({h for _, curves in panels.values() for h in curves}, modalities)
    every = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, (levels, curves)) in zip(every, panels.items()):
        for head in (head for head in curves if head in colours):
            axes.plot(levels, 100 * curves[head], color=colours[head], marker="o", markersize=4,
                      linewidth=3.2 if head == "fused" else 2, clip_on=False, zorder=3)
        style(axes, name, 10)
        axes.set_ylim(0, 100)
        axes.set_xlabel("probability" if "missing" in name else "standard deviations", color=GREY)
        axes.axhline(100 * chance, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    chance_line(every[-1], chance)
    every[0].set_ylabel("accuracy (%)", color=GREY)
    figure.legend([Line2D([], [], color=c, linewidth=3) for c in colours.values()], colours,
                  loc="outside lower center", ncols=len(colours), frameon=False, labelcolor=INK)
    return figure
