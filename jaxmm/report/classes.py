"""What a head gets right and wrong: by class, of examples or of pixels, by label, or number against number."""
import functools
from collections.abc import Callable, Sequence

import numpy as np
import sklearn.metrics

from jaxmm import escape, metrics
from jaxmm.batch import Batch, Logits
from jaxmm.report import plots
from jaxmm.report.tables import markdown
from jaxmm.task import DENSE, Task
from jaxmm.train.scores import head_rows, main_head

NAME = "predictions"    # of the plot
LISTED = 30             # classes, labels or outputs in a table; beyond, the worst ones
NAMED = 40              # classes whose names stand at the confusion matrix; beyond, their numbers do
DRAWN = 100             # classes in the plot; beyond, there is none
NUMBERED = 12           # classes whose counts stand in its cells
PANELS = 9              # numbers to predict that are drawn
SCATTERED = 2000        # points up to which each is drawn; beyond, their density


def section(task: Task, outputs: Logits, split: Batch) -> tuple[str, Callable | None]:
    """Text, and what draws the plot, of the main head on a split: scores by class, label or number to predict.

    Args:
      task: of the outputs.
      outputs: [N, K] by head; of a segmentation counts of pixels [N, C, C].
      split: its labels and masks.
    """
    head = main_head(outputs)
    rows = head_rows(outputs, split["present"])[head]
    z, y = np.asarray(outputs[head])[rows], np.asarray(split["label"])[rows]
    if not len(y):
        return f"No example has what the head {escape.code(head)} needs.", None
    make = {"classification": _classes, "multilabel": _labels, "regression": _numbers, DENSE: _pixels}[task.name]
    text, draw = make(z, y, task.names)
    return f"Of the head {escape.code(head)}, {len(y)} examples. {text}", draw


def _classes(z, y, names):
    predicted = z.argmax(1)
    text = table(y, predicted, names, "class", labels=np.arange(len(names)))
    if len(names) > DRAWN:
        return f"{text}\nThe confusion matrix of {len(names)} classes is not drawn.\n", None
    matrix = sklearn.metrics.confusion_matrix(y, predicted, labels=np.arange(len(names)))
    return text, functools.partial(confusion_plot, matrix, names)


def _pixels(confusion, y, names):
    del y       # which is in the counts
    counts = metrics.total_confusion(confusion)
    iou, true, total = metrics.class_iou(counts), counts.sum(1), max(counts.sum(), 1)
    order = sorted(range(len(names)), key=lambda k: (true[k] == 0, np.nan_to_num(iou[k])))
    shown, note = worst(order, "classes", "the lowest IoU")
    rows = [{"class": names[k], "IoU": None if np.isnan(iou[k]) else f"{100 * iou[k]:.1f}",
             "recall": f"{100 * counts[k, k] / true[k]:.1f}" if true[k] else None,
             "precision": f"{100 * counts[k, k] / counts[:, k].sum():.1f}" if counts[:, k].any() else None,
             "pixels": f"{100 * true[k] / total:.2f}"} for k in shown]
    text = (f"In percent of pixels that are not void; pixels is the share of a class of all of them.{note}\n\n"
            + markdown(rows, ["class", "IoU", "recall", "precision", "pixels"]))
    if len(names) > DRAWN:
        return f"{text}\nThe confusion matrix of {len(names)} classes is not drawn.\n", None
    return text, functools.partial(pixel_plot, counts, names)


def _labels(z, y, names):
    draw = functools.partial(label_plot, y, z > 0, names) if len(names) <= LISTED else None
    return table(y, z > 0, names, "label"), draw


def _numbers(z, y, names):
    rows = [{"output": name, "mae": np.abs(a - b).mean(), "deviation of the labels": b.std(),
             "r2": sklearn.metrics.r2_score(b, a) if len(b) > 1 and b.std() else None}
            for name, a, b in zip(names, z.T.astype(np.float64), y.T.astype(np.float64))]
    order = sorted(range(len(rows)), key=lambda k: -(rows[k]["mae"] / (rows[k]["deviation of the labels"] or 1)))
    shown, note = worst(order, "numbers", "the largest error in deviations of the labels")
    cells = [{k: v if isinstance(v, str) or v is None else f"{v:.3f}" for k, v in rows[i].items()}
             for i in shown]
    return (f"MAE in units of the labels.{note}\n\n{markdown(cells, list(rows[0]))}",
            functools.partial(scatter_plot, z[:, shown[:PANELS]], y[:, shown[:PANELS]],
                              [names[i] for i in shown[:PANELS]]))


def table(y, predicted, names: Sequence[str], what: str, **options) -> str:
    """Precision, recall, F1 (percent) and support, a row for each class or label.

    Beyond LISTED, those of the lowest F1 that occur; precision is empty where nothing is predicted,
    recall where nothing occurs.
    """
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        y, predicted, zero_division=np.nan, **options)
    order = sorted(range(len(names)), key=lambda k: (support[k] == 0, np.nan_to_num(f1[k])))
    shown, note = worst(order, "classes" if what == "class" else "labels", "the lowest F1")

    def cell(x):
        return None if np.isnan(x) else f"{100 * x:.1f}"

    rows = [{what: names[k], "precision": cell(precision[k]), "recall": cell(recall[k]), "F1": cell(f1[k]),
             "support": int(support[k])} for k in shown]
    return (f"In percent; support is how many examples there are.{note}\n\n"
            + markdown(rows, [what, "precision", "recall", "F1", "support"]))


def worst(order: Sequence[int], what: str, why: str) -> tuple[list[int], str]:
    """All numbers in order or, if more than LISTED, the first of `order`; and a sentence about it."""
    if len(order) <= LISTED:
        return sorted(order), ""
    return list(order[:LISTED]), f" The {LISTED} of {len(order)} {what} with {why} are listed."


@plots.styled
def confusion_plot(matrix: np.ndarray, names: Sequence[str], *, page: plots.Page) -> plots.Figure:
    """Confusion matrix [C, C] of counts; colours are shares of the true class."""
    side = confusion_side(len(names))
    width = page.fit(side + 0.8)
    figure = plots.Figure(figsize=(width, side * width / (side + 0.8)))
    draw_confusion(figure, figure.subplots(), matrix, names)
    return figure


@plots.styled
def pixel_plot(counts: np.ndarray, names: Sequence[str], *, page: plots.Page) -> plots.Figure:
    """IoU of each class that occurs as a bar, and the confusion matrix of counts of pixels [C, C]."""
    side, count = confusion_side(len(names)), len(names)
    width = page.fit(side + 4.2)
    figure = plots.Figure(figsize=(width, side * width / (side + 4.2)))
    left, right = figure.subplots(1, 2, width_ratios=(3.4, side + 0.8))
    iou, true = 100 * np.nan_to_num(metrics.class_iou(counts)), counts.sum(1)
    there = np.flatnonzero(true)
    left.barh(there, iou[there], color=plots.INK, height=0.7)
    size = 9 if count <= 20 else 7
    for k in there:
        left.annotate(f"{iou[k]:.1f}", (iou[k], k), (3, 0), textcoords="offset points", va="center", fontsize=size,
                      color=plots.INK)
    shown = [name if len(name) <= 18 else f"{name[:17]}…" for name in map(escape.printable, names)]
    left.set_yticks(there, [shown[k] for k in there], fontsize=size)
    left.set_xlim(0, 118)
    left.set_xticks((0, 50, 100))
    left.set_ylim(count - 0.5, -0.5)
    left.set_title("IoU (%)")
    left.grid(visible=False)
    draw_confusion(figure, right, counts, names, percent=True)
    return figure


def confusion_side(count: int) -> float:
    """Inches of a side of the confusion matrix of so many classes."""
    return float(np.clip(1.6 + 0.28 * count, 4.2, 11))


def draw_confusion(figure: plots.Figure, axes, matrix: np.ndarray, names: Sequence[str], percent: bool = False) -> None:
    """Confusion matrix [C, C] of counts; colours are shares of the true class, numbers counts or these shares."""
    count = len(names)
    total = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of the true class")
    if count <= NUMBERED:
        for (i, j), n in np.ndenumerate(matrix):
            axes.text(j, i, f"{100 * share[i, j]:.0f}" if percent else str(n), ha="center", va="center", fontsize=9,
                      color="white" if share[i, j] > 0.55 else plots.INK)
    axes.set_title("Confusion matrix")
    axes.grid(visible=False)
    if count <= NAMED:
        shown = [name if len(name) <= 18 else f"{name[:17]}…" for name in map(escape.printable, names)]
        size = 9 if count <= 20 else 7
        axes.set_xticks(range(count), shown, rotation=90 if max(map(len, shown)) > 2 else 0, fontsize=size)
        axes.set_yticks(range(count), shown, fontsize=size)
    axes.set_xlabel("predicted" if count <= NAMED else "predicted (class number)")
    axes.set_ylabel("true" if count <= NAMED else "true (class number)")


@plots.styled
def label_plot(y: np.ndarray, predicted: np.ndarray, names: Sequence[str], *, page: plots.Page) -> plots.Figure:
    """F1 of each label, of at most LISTED."""
    f1 = sklearn.metrics.f1_score(y, predicted, average=None, zero_division=0)
    figure = plots.Figure(figsize=(page.fit(6.4), 1.2 + 0.3 * len(names)))
    axes = figure.subplots()
    axes.barh(range(len(names)), 100 * f1, color=plots.INK, height=0.7)
    for k, value in enumerate(f1):
        axes.annotate(f"{100 * value:.1f}", (100 * value, k), (3, 0), textcoords="offset points", va="center",
                      fontsize=9, color=plots.INK)
    axes.set_yticks(range(len(names)), list(map(escape.printable, names)))
    axes.set_xlim(0, 108)
    axes.invert_yaxis()
    axes.set_title("F1 of each label (%)")
    axes.grid(visible=False)
    return figure


@plots.styled
def scatter_plot(z: np.ndarray, y: np.ndarray, names: Sequence[str], *, page: plots.Page) -> plots.Figure:
    """Predicted against true numbers [N, K], a panel each; the line is where they are equal."""
    figure, grid = plots.panels(len(names), min(3, len(names)), (3.4, 3.4), "", page)
    for axes, name, a, b in zip(grid.flat, names, z.T, y.T):
        if len(b) <= SCATTERED:
            axes.scatter(b, a, s=10, color=plots.INK, alpha=0.45, linewidths=0, zorder=3)
        else:
            axes.hexbin(b, a, gridsize=40, mincnt=1, bins="log", cmap="Blues", zorder=3)
        low, high = min(a.min(), b.min()), max(a.max(), b.max())
        axes.plot([low, high], [low, high], color=plots.EXTRA_COLOUR, linewidth=1.2, zorder=4)
        axes.set_title(escape.printable(name))
        axes.set_xlabel("true")
        axes.set_ylabel("predicted")
    return figure
