"""Tables as text: Markdown for people, CSV for programs."""
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jaxmm import escape
from jaxmm.report.units import number, unit

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


def latex(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], caption: str, notes: Iterable[str],
          bold: Mapping[tuple[int, str], str] = MappingProxyType({})) -> str:
    """A LaTeX table in the style of booktabs; all text is escaped.

    Args:
      rows: cells by column, as of `markdown`.
      columns: in order.
      caption: above the table.
      notes: lines below it.
      bold: by row number and column the cells in bold, and the mark that follows each, or "".
    """
    def cell(text, i, column):
        text = escape.latex("" if text is None else text)
        if (i, column) not in bold:
            return text
        mark = bold[i, column]
        return rf"\textbf{{{text}}}" + (rf"\textsuperscript{{{escape.latex(mark)}}}" if mark else "")

    lines = [[escape.latex(c) for c in columns]] + [
        [cell(row.get(c), i, c) for c in columns] for i, row in enumerate(rows)]
    head, *body = (f"  {' & '.join(line)} \\\\" for line in lines)
    below = [rf"\par\smallskip\footnotesize {escape.latex(note)}" for note in notes]
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{escape.latex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", r"  \toprule", head, r"  \midrule", *body,
        r"  \bottomrule", r"\end{tabular}", *below, r"\end{table}", ""])


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


def capital(text: str) -> str:
    """With a capital at the start, and the others left as they are."""
    return text[:1].upper() + text[1:]


def sort_heads(heads: Iterable[str], modalities: Sequence[str]) -> list[str]:
    """Heads in the order of every table and plot: modalities, fused, then a method's own."""
    order = [*modalities, "fused"]
    return sorted(heads, key=lambda head: order.index(head) if head in order else len(order))


def scores_table(scores: Scores, modalities: Sequence[str], sign: str = "%") -> str:
    """The scores of every head, a row each; shares in percent, with that sign or none."""
    heads = sort_heads(scores, modalities)
    metrics = dict.fromkeys(metric for head in heads for metric in scores[head])
    rows: list[dict[str, Any]] = [{"head": head} | {unit(metric).title: number(metric, value, sign=sign)
                              for metric, value in scores[head].items()} for head in heads]
    return markdown(rows, ["head", *(unit(metric).title for metric in metrics)])
