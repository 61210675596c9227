"""Plots of runs and comparisons, as matplotlib figures that do not use pyplot's state.

Colours are those of Okabe and Ito, which colour-blind people can distinguish; "fused" is dark and bold.
Shares are drawn in percent. Every function that draws has the argument `page`: a screen, or paper.
"""
import functools
import io
import math
import pathlib
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import figure as mpl_figure
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from jaxmm import escape, files
from jaxmm.errors import check_choice
from jaxmm.report.records import Cell
from jaxmm.report.tables import Scores, sort_heads
from jaxmm.report.units import number, unit

INK, GREY, GRID = "#1f2a44", "#5f6877", "#e5e7eb"
STYLE = {
    "axes.axisbelow": True, "axes.edgecolor": GREY, "axes.grid": True, "axes.grid.axis": "y",
    "axes.labelcolor": GREY, "axes.spines.left": False, "axes.spines.right": False,
    "axes.spines.top": False, "axes.titlecolor": INK, "axes.titlelocation": "left",
    "axes.titlepad": 10, "axes.titlesize": "large", "axes.titleweight": "bold",
    "figure.constrained_layout.use": True, "figure.titlesize": "large", "figure.titleweight": "bold",
    "font.size": 10, "grid.color": GRID, "grid.linewidth": 1, "hatch.linewidth": 1.2,
    "legend.fontsize": "medium", "legend.frameon": False, "legend.labelcolor": INK,
    "lines.linewidth": 2, "lines.markersize": 4.5, "lines.solid_capstyle": "round",
    "pdf.fonttype": 42, "svg.hashsalt": "jaxmm",        # fonts as publishers ask; the same bytes again
    "xtick.color": GREY, "xtick.major.size": 0, "ytick.color": GREY, "ytick.major.size": 0,
}
PAPER = STYLE | {
    "axes.titlepad": 5, "axes.titlesize": "medium", "font.size": 8.5,      # its "small" is 7.1 points
    "grid.linewidth": 0.6, "hatch.linewidth": 0.7, "legend.fontsize": "small", "lines.linewidth": 1.2,
    "lines.markersize": 3.2, "xtick.labelsize": "small", "ytick.labelsize": "small",
}
DASHES = (0, (4, 3))
HALO = [withStroke(linewidth=3, foreground="white")]
MODALITY_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2")
METHOD_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
EXTRA_COLOUR = "#d55e00"
MARKERS = "osD^vP*X"
LINES = ("-", (0, (4, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (1, 1)))
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo", "|||")
METHODS_IN_A_ROW = 8        # of bars on a screen; more go below
BAR, NARROW_BAR = 0.62, 0.15    # inches for one, with its number across it or along it
MOST_DOTS = 30              # on a curve
HIGHEST = 8.5               # inches of a page of paper, less a caption
MOST_MODALITIES = 16        # in a plot; more cannot be told apart
LONGEST_SIDE = 2**15        # of a picture, in pixels; matplotlib makes none of 2**16
WIDTHS = {"column": 3.25, "page": 6.75}     # of papers in two columns, inches
FORMATS = ("png", "pdf", "svg")


class Page(NamedTuple):
    """What a figure is drawn for."""
    width: float | None = None      # inches of the figure on paper; None for a screen, which scrolls
    suffix: str = "png"             # one of FORMATS

    def fit(self, inches: float) -> float:
        """The width in inches of a figure whose content needs `inches`."""
        return self.width or inches

    @property
    def room(self) -> float:
        """The width of the paper, in inches on a screen, where text is larger."""
        return self.width * STYLE["font.size"] / PAPER["font.size"] if self.width else math.inf


SCREEN = Page()


def parse_page(figures: str, width: str) -> Page | None:
    """The page that a user names by a format, "" for none, and a width: "column", "page".

    Raises:
      UserError: another format or width.
    """
    if not figures:
        return None
    check_choice("--figures", figures, FORMATS)
    check_choice("--width", width, WIDTHS)
    return Page(WIDTHS[width], figures)


class Figure(mpl_figure.Figure):
    """A figure whose texts are drawn literally, never as formulas."""

    def draw(self, renderer):
        for text in self.findobj(Text):
            text.set_parse_math(False)
            lines = text.get_text().split("\n")
            text.set_text("\n".join(map(escape.printable, lines)))
        super().draw(renderer)


class Look(NamedTuple):
    """How a head or a method is distinguished from others, with and without colour."""
    colour: str
    marker: str = "o"
    line: Any = "-"
    number: int = 0             # its hatch on paper
    hatch: str = ""             # on a screen
    weight: float = 1           # of its lines

    def curve(self) -> dict[str, Any]:
        """Arguments of a line."""
        return {"color": self.colour, "linestyle": self.line,
                "linewidth": self.weight * matplotlib.rcParams["lines.linewidth"]}

    def dots(self, points: int) -> dict[str, Any]:
        """Arguments of a line with markers, of which there are not too many."""
        return self.curve() | {"marker": self.marker, "clip_on": False, "zorder": 3,
                               "markevery": 1 if points <= MOST_DOTS else points // 15}

    def bar(self, page: Page) -> dict[str, Any]:
        """Arguments of a bar."""
        hatch = HATCHES[self.number % len(HATCHES)] if page.width else self.hatch
        return {"color": self.colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0, "zorder": 2}


def look(number: int, colours: Sequence[str]) -> Look:
    """Of the first, second... of several: colours change first, then lines and hatches."""
    rounds = number // len(colours)
    return Look(colours[number % len(colours)], MARKERS[number % len(MARKERS)],
                LINES[rounds % len(LINES)], number, HATCHES[rounds % len(HATCHES)])


def head_looks(heads: Iterable[str], modalities: Sequence[str]) -> dict[str, Look]:
    """Looks by head, in the order of all plots; a modality keeps its own in every plot.

    Of more than MOST_MODALITIES modalities only the first are there; see `note`.
    """
    left_out = set(modalities[MOST_MODALITIES:])
    looks = {m: look(i, MODALITY_COLOURS) for i, m in enumerate(modalities)}
    looks["fused"] = Look(INK, weight=1.6)
    heads = sort_heads(set(heads) - left_out, modalities)
    extra = [head for head in heads if head not in looks]
    # From the end, so that a few modalities have other markers and hatches.
    looks |= {head: Look(EXTRA_COLOUR, MARKERS[-1 - i % len(MARKERS)], LINES[-1], len(HATCHES) - 1 - i)
              for i, head in enumerate(sorted(extra))}
    return {head: looks[head] for head in heads}


def note(modalities: Sequence[str], metric: str = "accuracy") -> str:
    """Notes on the plots of a report, each sentence after a space: which modalities they leave out, and
    what their dashed line means if it is not labelled "chance"."""
    left_out = (f" Plots show the first {MOST_MODALITIES} of {len(modalities)} modalities, tables all of "
                "them.") * (len(modalities) > MOST_MODALITIES)
    return left_out + (" The dashed line is the median of the training labels as every answer."
                       ) * (metric == "mae")


def heading(title: str, page: Page, modalities: Sequence[str] = (), width: float = math.inf) -> str:
    """The title of a plot, broken into lines of at most `width` inches.

    On paper, where the caption has the title, it is only a note on what is left out.
    """
    title = "" if page.width else title
    if width < math.inf:
        title = "\n".join(line for part in title.split("\n")
                          for line in textwrap.wrap(part, max(20, int((width - 0.7) / 0.1))))
    left_out = len(modalities) - MOST_MODALITIES
    shown = f"first {MOST_MODALITIES} of {len(modalities)} modalities" * (left_out > 0)
    return "\n".join(filter(None, [title, shown]))


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Gives a function that draws the argument `page`, and its style."""
    @functools.wraps(draw)
    def drawn(*args, page: Page = SCREEN, **options):
        with matplotlib.rc_context(PAPER if page.width else STYLE):
            return draw(*args, page=page, **options)

    return drawn


@styled
def learning_curves(train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]],
                    modalities: Sequence[str], steps_per_epoch: Sequence[int], epochs: int,
                    chance: float | None, metric: str = "accuracy", *, page: Page) -> Figure:
    """Training loss, and the score of each head on validation data, over epochs.

    Args:
      train: records with "step" and "loss".
      evaluations: records with "step" and "scores" by head.
      modalities: of the data, in its order.
      steps_per_epoch: of each task in turn.
      epochs: in a task; a thin line marks where one task ends and the next begins.
      chance: score of guessing, a dashed line if it is known.
      metric: the score.
      page: see the module.
    """
    stacked = page.room < 6
    figure = Figure(figsize=(page.fit(9.6), 5.2 if stacked else 2.6 if page.width else 3.7))
    left, right = figure.subplots(2, 1) if stacked else figure.subplots(1, 2)
    starts = epochs * np.arange(len(steps_per_epoch) + 1)
    to_epoch = functools.partial(np.interp, xp=np.cumsum([0, *steps_per_epoch]) * epochs, fp=starts)

    def curve(axes, records, value, look, label=None):
        axes.plot([to_epoch(r["step"]) for r in records], [value(r) for r in records], label=label,
                  **look.dots(len(records)))

    curve(left, train, lambda r: r["loss"], Look(INK, marker="o" if len(train) <= MOST_DOTS else ""))
    left.set_ylim(bottom=0)
    left.set_title("training loss")
    for head, seen in head_looks((h for r in evaluations for h in r["scores"]), modalities).items():
        curve(right, [r for r in evaluations if head in r["scores"]],
              lambda r, head=head: unit(metric).scale * r["scores"][head][metric], seen, head)
    guess_line(right, chance, metric)
    limit(right, metric)
    left_out = heading("", page, modalities)
    right.set_title(f"validation {unit(metric).axis}" + f"\n{left_out}" * bool(left_out))
    legend(figure, *right.get_legend_handles_labels())
    for axes in (left, right):
        for start in starts[1:-1]:
            axes.axvline(start, color=GRID, linewidth=1, zorder=0.5)
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


@styled
def score_bars(scores: Scores, modalities: Sequence[str], chance: float | None, title: str,
               metric: str = "accuracy", *, page: Page) -> Figure:
    """A score of each head of one run."""
    looks = head_looks(scores, modalities)
    width = max(3.6, 1.6 + 0.9 * len(looks))
    figure = Figure(figsize=(page.fit(width), 2.4 if page.width else 3.7))
    axes = figure.subplots()
    slot = (_room(page, width) - 0.8) / len(looks)
    narrow = slot < 0.5
    for x, (head, seen) in enumerate(looks.items()):
        _bar(axes, x, scores[head][metric], None, metric, seen, page, width=0.7, along=narrow)
    axes.set_xticks(range(len(looks)), looks)
    _style_bars(axes, chance, metric, heading(title, page, modalities, width),
                90 if slot < 0.3 else 30 if narrow or _touch(dict.fromkeys(looks, slot)) else 0)
    limit(axes, metric, 1.25 if narrow else 1.05)
    return figure


@styled
def comparison_bars(scores: Mapping[str, Mapping[str, tuple[float, float | None]]],
                    modalities: Sequence[str], chance: float | None, title: str,
                    metric: str = "accuracy", *, page: Page) -> Figure:
    """A score of each head of several methods, a group of bars each.

    Args:
      scores: (mean, standard deviation or None) by method and head; a method may have none.
      modalities: of the data, in its order.
      chance: score of guessing, a dashed line if given.
      title: over the plot.
      metric: the score.
      page: see the module.
    """
    looks = head_looks((h for by_head in scores.values() for h in by_head), modalities)
    scores = {name: {head: x for head, x in by_head.items() if head in looks}
              for name, by_head in scores.items()}
    places = {name: max(len(by_head), 1) + 0.8 for name, by_head in scores.items()}
    rows = _rows_of(places, (page.room - 0.8) / NARROW_BAR)
    positions = max(sum(places[name] for name in row) for row in rows)
    wanted = 0.8 + BAR * positions
    width = max(5, wanted)
    room = _room(page, width)
    along = room < wanted                               # numbers stand along their bars
    slot = (room - 0.8) / positions
    slanted = _touch({name: slot * places[name] for name in scores})
    height = min(2, (HIGHEST - 1) / len(rows)) if page.width else 3.6
    figure = Figure(figsize=(page.fit(width), height * len(rows) + 0.6))
    bars, grid = {}, figure.subplots(len(rows), squeeze=False, sharey=True)[:, 0]
    for axes, row in zip(grid, rows):
        left, centres = 0.0, []
        for name in row:
            by_head = scores[name]
            centres.append(left + (places[name] - 1.8) / 2)
            for x, head in enumerate(h for h in looks if h in by_head):
                bars[head] = _bar(axes, left + x, *by_head[head], metric, looks[head], page, width=0.9,
                                  along=along)
            left += places[name]
        axes.set_xticks(centres, row)
        _style_bars(axes, chance, metric, heading(title, page, modalities, width)
                    if axes is grid[0] else "", 30 if slanted else 0)
        if len(rows) > 1:
            axes.set_xlim(-0.9, positions - 0.9)        # bars as wide in every row
    limit(grid[0], metric, 1.25 if along else 1.05)
    legend(figure, [bars[h] for h in looks], list(looks))
    return figure


def _room(page: Page, width: float) -> float:
    """Inches on a screen that a figure has, which takes `width` there: on paper those of the paper."""
    return page.room if page.width else width


def _touch(names: Mapping[str, float]) -> bool:
    """Whether one of the names, side by side below bars, is longer than its inches on a screen."""
    return any(0.09 * max(map(len, name.split("\n"))) > inches for name, inches in names.items())


def _rows_of(places: Mapping[str, float], most: float) -> list[list[str]]:
    """Names in rows of at most METHODS_IN_A_ROW or, on paper, of at most `most` places."""
    if most == math.inf:
        names = list(places)
        return [names[i:i + METHODS_IN_A_ROW] for i in range(0, len(names), METHODS_IN_A_ROW)]
    count = math.ceil(sum(places.values()) / most)
    rows, share = [[]], sum(places.values()) / count    # about as many in every row
    for name, place in places.items():
        filled = sum(places[n] for n in rows[-1])
        if rows[-1] and (filled + place > most or filled + place / 2 > share):
            rows.append([])
        rows[-1].append(name)
    return rows


def _bar(axes: Axes, x, mean, std, metric, seen: Look, page, *, width, along):
    """A bar with its value above, or along it, and, if there is one, an error bar."""
    scale = unit(metric).scale
    bar = axes.bar(x, scale * mean, width, **seen.bar(page))
    if std is not None:
        axes.errorbar(x, scale * mean, scale * std, color=INK, zorder=3, path_effects=HALO,
                      linewidth=0.8 * matplotlib.rcParams["lines.linewidth"])
    axes.annotate(number(metric, mean), (x, scale * (mean + (std or 0))), (0, 3),
                  textcoords="offset points", ha="center", va="bottom", fontsize="small", color=INK,
                  weight="bold" if seen.weight > 1 else "normal", path_effects=HALO, zorder=5,
                  rotation=90 if along else 0)
    return bar


def _style_bars(axes: Axes, chance: float | None, metric: str, title: str, angle: float) -> None:
    """All but the limits; names below the bars turned by an angle in degrees."""
    guess_line(axes, chance, metric)
    axes.set_ylabel(unit(metric).axis)
    axes.set_title(title)
    axes.tick_params(axis="x", labelcolor=INK)
    if angle:
        for text in axes.get_xticklabels():
            text.set(rotation=angle, ha="right", va="center" if angle == 90 else "top",
                     rotation_mode="anchor")


def mean_curve(axes: Axes, cells: Mapping[float, Cell], seen: Look, metric: str):
    """A score, mean and a band of one deviation over the seeds, over what it depends on; the line."""
    scale, x = unit(metric).scale, np.array(list(cells))
    mean = scale * np.array([cell.mean for cell in cells.values()])
    std = scale * np.array([np.nan if cell.std is None else cell.std for cell in cells.values()])
    several = ~np.isnan(std)
    if several.any():
        axes.fill_between(x[several], (mean - std)[several], (mean + std)[several],
                          color=seen.colour, alpha=0.18, linewidth=0, zorder=1)
    return axes.plot(x, mean, **seen.dots(len(x)))[0]


def guess_line(axes: Axes, chance: float | None, metric: str = "accuracy") -> None:
    """A dashed line at the score of guessing, if it is known, labelled to the right of the axes.

    For shares it is chance, otherwise the score of always predicting the median of the training labels.
    """
    if chance is None:
        return
    y = unit(metric).scale * chance
    axes.axhline(y, color=GREY, linewidth=0.6 * matplotlib.rcParams["lines.linewidth"], linestyle=DASHES,
                 zorder=4)
    axes.annotate("median" if metric == "mae" else "chance", (1, y), (4, 0),
                  xycoords=axes.get_yaxis_transform(), textcoords="offset points", va="center",
                  fontsize="small", color=GREY)


def limit(axes: Axes, metric: str, room: float = 1) -> None:
    """Limits from 0 to 100 for shares, from 0 to the largest value otherwise; `room` scales the upper one.

    Where a share with its deviation is more than 100, the limit is as far above that, with the number there.
    """
    if unit(metric).scale == 100:
        highest = max(other.dataLim.y1 for other in axes.get_shared_y_axes().get_siblings(axes))
        axes.set_ylim(0, max(100, highest) * room)
        axes.set_yticks(range(0, 101, 20))
    else:
        axes.set_ylim(0, 1.05 * room * axes.get_ylim()[1])


def legend(figure: Figure, handles: Sequence, labels: Sequence[str]) -> None:
    """Below all panels, in as many rows as it takes, for which the figure grows."""
    if labels:
        size = matplotlib.rcParams["font.size"] / 10
        each = size * (0.6 + 0.085 * max(map(len, labels)))
        columns = int(np.clip(figure.get_figwidth() / each, 1, len(labels)))
        figure.set_figheight(figure.get_figheight() + 0.2 * size * (math.ceil(len(labels) / columns) - 1))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def panels(count: int, columns: int, size: tuple[float, float], title: str, page: Page):
    """A figure with a title and a grid [rows, columns] of axes of a size, the last ones empty.

    On paper it has as many columns as there is room for, and is not higher than a page.
    """
    if page.width:
        columns = max(1, min(columns, max(round(page.room / size[0]),
                                          min(math.ceil(count / 4), round(page.room / 1.6)))))
    rows = math.ceil(count / columns)
    wanted = columns * size[0] + 0.5
    height = rows * size[1] * min(1, page.room / wanted) + 0.3
    figure = Figure(figsize=(page.fit(max(5, wanted)), min(height, HIGHEST if page.width else math.inf)))
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return figure, grid


def save(folder: pathlib.Path, name: str, draw: Callable[..., Figure], page: Page | None = None) -> str:
    """Writes NAME.png for the report and returns its name; with a `page`, also figures/NAME.SUFFIX."""
    files.write(folder / f"{name}.png", encode(draw()))
    if page:
        (folder / "figures").mkdir(exist_ok=True)
        files.write(folder / "figures" / f"{name}.{page.suffix}", encode(draw(page=page), page))
    return f"{name}.png"


def encode(figure: Figure, page: Page = SCREEN) -> bytes:
    """The figure as a file; the same bytes for the same figure."""
    dpi = min(300 if page.width else 160, LONGEST_SIDE / max(figure.get_size_inches()))
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=page.suffix, dpi=dpi, metadata=dates.get(page.suffix))
    return buffer.getvalue()
