"""Tables as text: Markdown for people, CSV for programs."""
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxmm import escape

Scores = Mapping[str, Mapping[str, float]]      # by head, then by metric


def markdown(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A Markdown table, aligned so that it reads well as plain text too.

    Args:
      rows: cells by column, shown as they are; what a row lacks, or is None, stays empty.
      columns: in order; the first is aligned to the left, the others to the right.
    """
    lines = [[_cell(c) for c in columns]] + [[_cell(row.get(c)) for c in columns] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines)]
    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]

    def join(cells):
        first, *others = zip(cells, widths)
        padded = [first[0].ljust(first[1]), *(x.rjust(w) for x, w in others)]
        return f"| {' | '.join(padded)} |\n"

    return "".join(map(join, [lines[0], rule, *lines[1:]]))


def _cell(value: Any) -> str:
    return "" if value is None else escape.markdown(value)


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Comma-separated values, numbers in full; what a row lacks, or is None, stays empty.

    Names that a spreadsheet would take for formulas begin with a ' in it, see `escape.cell`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(escape.cell, columns))
    writer.writerows([escape.cell(row.get(c)) for c in columns] for row in rows)
    return text.getvalue()


def percent(value: float) -> str:
    """A share as percent with one decimal, without the sign."""
    return f"{100 * value:.1f}"


def sort_heads(heads: Iterable[str], modalities: Sequence[str]) -> list[str]:
    """Heads in the order of every table and plot: modalities, fused, then a method's own."""
    order = [*modalities, "fused"]
    return sorted(heads, key=lambda head: order.index(head) if head in order else len(order))


def scores_table(scores: Scores, modalities: Sequence[str]) -> str:
    """The scores of every head, a row each; accuracy and macro F1 in percent."""
    rows = [{"head": head,
             "accuracy": f"{percent(scores[head]['accuracy'])}%",
             "macro F1": f"{percent(scores[head]['macro_f1'])}%",
             "ECE": f"{scores[head]['ece']:.3f}",
             "NLL": f"{scores[head]['nll']:.3f}"} for head in sort_heads(scores, modalities)]
    return markdown(rows, ["head", "accuracy", "macro F1", "ECE", "NLL"])
