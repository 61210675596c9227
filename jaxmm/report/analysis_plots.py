"""Plots for analyses of a trained run; shares are drawn in percent."""
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmm.report.plots import (DASHES, EXTRA_COLOUR, GREY, HALO, INK, MODALITY_COLOURS,
                                MOST_MODALITIES, Figure, Page, guess_line, head_looks, heading, legend,
                                limit, panels, styled)
from jaxmm.report.units import unit

MOST_POINTS = 500       # of a modality in a scatter plot
MOST_NAMES = 6          # classes that are named in a plot: more names would cover each other


@styled
def probe_curves(curves: Mapping[str, Mapping[str, Mapping[int, float]]],
                 modalities: Sequence[str], chance: float, title: str, *, page: Page) -> Figure:
    """Probe accuracy over steps: solid lines for the first model, dashed ones for the references.

    A reference with fewer than three points is a horizontal line at its last one.

    Args:
      curves: accuracy by model, modality and step.
      modalities: of the data, in its order.
      chance: accuracy of guessing.
      title: over the plot.
      page: what it is drawn for.
    """
    figure = Figure(figsize=(page.fit(6.6), 3.0 if page.width else 4.2))
    axes = figure.subplots()
    looks = head_looks(modalities, modalities)
    curves = {name: {m: points for m, points in by_modality.items() if m in looks}
              for name, by_modality in curves.items()}
    first, *others = curves
    for m, points in curves[first].items():
        axes.plot(list(points), 100 * np.array(list(points.values())), label=m,
                  **looks[m].dots(len(points)) | {"linestyle": "-"})
    for name in others:
        for m, points in curves[name].items():
            seen = looks[m].curve() | {"label": name, "linestyle": (0, (3, 2))}
            if len(points) < 3:
                axes.axhline(100 * points[max(points)], **seen)
            else:
                axes.plot(list(points), 100 * np.array(list(points.values())), **seen)
    axes.set_title(heading(title, page, modalities, 6.6))
    axes.set_ylim(0, 100)
    axes.set_xlim(left=0)
    axes.set_xlabel("step")
    axes.set_ylabel("probe accuracy (%)")
    guess_line(axes, chance)
    legend(figure, *axes.get_legend_handles_labels())
    return figure


@styled
def feature_planes(planes: Sequence[Mapping[str, np.ndarray]], modalities: Sequence[str],
                   title: str, *, page: Page) -> Figure:
    """Features [N, 2] by modality with their means, a panel for each plane."""
    figure, grid = panels(len(planes), len(planes), (5.0, 4.4), heading(title, page, modalities), page)
    looks = head_looks(modalities, modalities)
    means = {}
    for axes, plane in zip(grid.flat, planes):
        plane = {m: x for m, x in plane.items() if m in looks}
        for m, x in plane.items():
            some = x[np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).astype(int)]
            axes.scatter(*some.T, s=9, color=looks[m].colour, alpha=0.45, linewidths=0, zorder=2)
        for m, x in plane.items():
            means[m] = axes.scatter(*x.mean(0), s=110, color=looks[m].colour, marker=looks[m].marker,
                                    edgecolors="white", linewidths=1.5, zorder=4)
        axes.grid(axis="x")
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("first principal axis")
        axes.set_ylabel("second principal axis")
    legend(figure, list(means.values()), [f"mean of {m}" for m in means])
    return figure


@styled
def class_gains(best: np.ndarray, fused: np.ndarray, beats_sum: np.ndarray,
                class_names: Sequence[str], title: str, *, page: Page) -> Figure:
    """Fused accuracy [C] of each class against the best of its unimodal ones.

    Args:
      best: [C]; NaN for classes without examples, as in `fused`.
      fused: [C].
      beats_sum: bool [C], whether it is more than the unimodal ones together.
      class_names: of the C classes.
      title: over the plot.
      page: what it is drawn for.
    """
    figure = Figure(figsize=(page.fit(4.8), min(5.8, 1.25 * page.fit(4.8))))
    axes = figure.subplots()
    known = ~np.isnan(best + fused)
    x, y = 100 * best, 100 * fused
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle=DASHES, zorder=1)
    for chosen, colour, marker, label in (
            (known & beats_sum, EXTRA_COLOUR, "^", "beats the sum of the modalities"),
            (known & ~beats_sum & (fused > best), INK, "o", "beats the best of them"),
            (known & ~beats_sum & (fused <= best), MODALITY_COLOURS[0], "s", "does not")):
        axes.scatter(x[chosen], y[chosen], s=34, color=colour, marker=marker, alpha=0.8, linewidths=0,
                     zorder=3, label=f"{label} ({chosen.sum()})", clip_on=False)
    named = np.flatnonzero(known & beats_sum)
    for c in named[np.argsort(best[named] - fused[named], kind="stable")][:MOST_NAMES]:
        axes.annotate(class_names[c], (x[c], y[c]), (5, 4), textcoords="offset points", fontsize="small",
                      color=INK, path_effects=HALO, zorder=5)
    axes.set_title(heading(title, page, width=4.4))
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_aspect("equal")
    axes.set_xlabel("best unimodal accuracy of the class (%)")
    axes.set_ylabel("fused accuracy of the class (%)")
    legend(figure, *axes.get_legend_handles_labels())
    return figure


@styled
def robustness_curves(curves: Mapping[str, tuple[Sequence[float], Mapping[str, np.ndarray]]],
                      modalities: Sequence[str], chance: float | None, title: str,
                      metric: str = "accuracy", *, page: Page) -> Figure:
    """A score of each head against how bad inputs are, a panel for each way to be bad.

    Args:
      curves: levels [L] and scores [L] by head, by title of the panel.
      modalities: of the data, in its order.
      chance: score of guessing, if it is known.
      title: over the plot.
      metric: the score.
      page: what it is drawn for.
    """
    *most, last = curves
    curves = {name: curves[name] for name in (*most[:MOST_MODALITIES], last)}
    looks = head_looks({h for _, by_head in curves.values() for h in by_head}, modalities)
    figure, grid = panels(len(curves), len(curves), (3.1, 3.6), heading(title, page, modalities), page)
    for axes, (name, (levels, by_head)) in zip(grid.flat, curves.items()):
        for head in (head for head in by_head if head in looks):
            axes.plot(levels, unit(metric).scale * by_head[head], label=head,
                      **looks[head].dots(len(levels)))
        axes.set_title(name)
        axes.set_xlabel("probability" if "missing" in name else "standard deviations")
        guess_line(axes, chance, metric)
        limit(axes, metric)
    highest = max(axes.get_ylim()[1] for axes in grid.flat[:len(curves)])
    for axes in grid.flat[:len(curves)]:
        axes.set_ylim(0, highest)
    for axes in grid[:, 0]:
        axes.set_ylabel(unit(metric).axis)
    drawn = {label: line for axes in grid.flat for line, label in zip(*axes.get_legend_handles_labels())}
    legend(figure, [drawn[head] for head in looks], list(looks))
    return figure
