"""Comparison of methods over seeds.

In the form of table 1 of MLA (arXiv 2311.10707) and, for streams of tasks, of the main table of
SAMM (arXiv 2405.02766): methods as rows, in blocks by the size of their memory, heads as columns.
"""
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmm import escape, files
from jaxmm.data.dataset import Dataset
from jaxmm.report import continual, plots, stream_plots
from jaxmm.report.published import Value, Values
from jaxmm.report.run_report import final_scores
from jaxmm.report.tables import Scores, csv_text, markdown, percent, sort_heads
from jaxmm.train.scores import main_head
from jaxmm.report.variants import Variant
from jaxmm.train.validity import describe

OVER_TIME = ("stability", "plasticity", "trade_off", "forgetting")
DIVERGED = "diverged"
Row = tuple[str, int | None]        # method, size of its memory


class Result(NamedTuple):
    """Test scores of one run. Runs of one method and seed with other heads make one row."""
    method: str
    seed: int
    scores: Scores                          # {} if it diverged
    buffer: int | None = None               # examples its memory holds, if it has one
    seen: Mapping[str, np.ndarray] | None = None    # by head: `continual.seen_accuracy`
    diverged: bool = False                  # its loss, or that of a model it starts from
    changed: Sequence[str] = ()             # splits that have changed since; it is scored anew

    @property
    def row(self) -> Row:
        return self.method, self.buffer


class Summary(NamedTuple):
    """One metric of one head of a method, over its seeds.

    The metric DIVERGED, of head "", is the share of a method's runs that did; seeds their number.
    """
    method: str
    buffer: int | None
    head: str
    metric: str
    mean: float
    std: float | None       # sample standard deviation (n - 1); None for a single seed
    seeds: int


def read_result(variant: Variant, seed: int, history: Sequence[Mapping[str, Any]] | None,
                changed: Sequence[str] = ()) -> Result:
    """The scores of a finished run, on a stream also those over its tasks; None if it diverged.

    A model of one modality has nothing to fuse: its fused head is left out where it has just the
    scores of the modality. Models of `unimodal` share a row.
    """
    if history is None:
        return Result(variant.method, seed, {}, variant.buffer, diverged=True)
    scores, seen, kind = final_scores(history, "test"), None, variant.config.stream.kind
    if kind:
        over_tasks = continual.summary(history, kind)
        scores = {head: by_metric | over_tasks[head] for head, by_metric in scores.items()}
        seen = {h: x for h, x in continual.seen_accuracy(history, kind).items() if h in scores}
    m = variant.modality
    if m and (variant.config.method.name == "unimodal" or scores["fused"] == scores[m]):
        scores, seen = {m: scores[m]}, seen and {m: seen[m]}
    return Result(variant.method, seed, scores, variant.buffer, seen, changed=changed)


def with_probes(result: Result, accuracies: Mapping[str, float]) -> Result:
    """The result with the accuracy of a linear probe of each encoder as the metric "probe"."""
    return result._replace(scores={
        head: by_metric | ({"probe": accuracies[head]} if head in accuracies else {})
        for head, by_metric in result.scores.items()})


def summarize(results: Iterable[Result]) -> list[Summary]:
    """Means and standard deviations of all numbers that are not NaN.

    Rows come in blocks: methods without a memory, then the others by its size; within a block, and
    for heads and metrics, in the order in which they occur.
    """
    values, diverged = {}, {}
    for result in sorted(results, key=lambda r: r.buffer or 0):
        diverged.setdefault(result.row, []).append(result.diverged)
        if result.diverged:
            values.setdefault((*result.row, "", DIVERGED), diverged[result.row])
        for head, scores in result.scores.items():
            for metric, value in scores.items():
                if not np.isnan(value):
                    values.setdefault((*result.row, head, metric), []).append(value)
    return [Summary(*key, float(np.mean(x)),
                    float(np.std(x, ddof=1)) if len(x) > 1 and key[-1] != DIVERGED else None,
                    len(x)) for key, x in values.items()]


def by_row(summaries: Iterable[Summary],
           metric: str) -> dict[Row, dict[str, tuple[float, float | None]]]:
    """(mean, standard deviation or None) of a metric, by row and head."""
    table = {}
    for s in summaries:
        if s.metric == metric:
            table.setdefault((s.method, s.buffer), {})[s.head] = s.mean, s.std
    return table


def diverged_runs(summaries: Iterable[Summary]) -> dict[Row, str]:
    """Of the rows with runs that diverged, how many did."""
    return {(s.method, s.buffer): DIVERGED if s.mean == 1 else
            f"{round(s.mean * s.seeds)} of {s.seeds} {DIVERGED}"
            for s in summaries if s.metric == DIVERGED}


def accuracy_table(summaries: Sequence[Summary], modalities: Sequence[str],
                   metric: str = "accuracy",
                   published: Values | None = None) -> str:
    """Markdown: methods as rows, heads as columns, accuracy in percent, mean ± deviation.

    A last column says of which methods runs diverged, if any did: means are of the others. A head
    for which there are published values has a column "paper" beside it. Below the table stands
    where they come from, and why those marked with * cannot be compared.
    """
    table, diverged = by_row(summaries, metric), diverged_runs(summaries)
    heads = sort_heads({h: None for by_head in table.values() for h in by_head}, modalities)
    known = {(row, head): value for row, by_head in (published or {}).items()
             for head, value in by_head.items() if head in table.get(row, ())}
    columns = [c for h in heads for c in (h, f"{h}, paper") if c == h or h in {k[1] for k in known}]
    order = _rows(summaries, metric)
    rows = [_row(row) | {head: _cell(*value) for head, value in table.get(row, {}).items()}
            | {f"{head}, paper": _cell(value.mean, value.std) + "*" * bool(value.differences)
               for (r, head), value in known.items() if r == row} | {"": diverged.get(row)}
            for row in order]
    return (markdown(rows, [*_row_columns(order), *columns, *[""] * bool(diverged)])
            + _sources(known.values()))


def _sources(values: Iterable[Value]) -> str:
    """The lines below a table that has published values; "" if it has none."""
    sources = ", ".join(dict.fromkeys(v.source for v in values))
    differences = "; ".join(dict.fromkeys(d for v in values for d in v.differences))
    notes = "; ".join(dict.fromkeys(n for v in values for n in v.notes))
    return (f"\nPaper: {sources}{' (' + notes + ')' if notes else ''}.\n" * bool(sources)
            + f"\n\\* Not comparable: {differences}.\n" * bool(differences))


def over_time_table(summaries: Sequence[Summary]) -> str:
    """Markdown: stability and so on of each method's main head; "" if none learned over time."""
    rows = {}
    for metric in OVER_TIME:
        for row, by_head in by_row(summaries, metric).items():
            head = main_head(by_head)
            rows.setdefault(row, _row(row) | {"head": head})[
                continual.NAMES.get(metric, metric)] = _cell(*by_head[head])
    known = [name for name in (continual.NAMES.get(m, m) for m in OVER_TIME)
             if any(name in row for row in rows.values())]
    columns = [*_row_columns(rows), "head", *known]
    return markdown(rows.values(), columns) if rows else ""


def curve_panels(results: Sequence[Result]) -> dict[str, dict[str, np.ndarray]]:
    """Accuracy on the tasks seen [S, T] of each method's main head, by size of memory and method.

    Methods without a memory are in every panel. Rows are seeds, with NaN after the tasks they have.
    """
    curves = {}
    for result in (r for r in results if not r.diverged):
        curves.setdefault(result.row, {}).setdefault(main_head(result.seen), []).append(result)
    curves = {row: _pad([r.seen[head] for r in by_head[head]]) for row, by_head in curves.items()
              for head in [main_head(by_head)]}
    buffers = sorted({buffer for _, buffer in curves if buffer is not None}) or [None]
    return {"" if buffer is None else f"memory of {buffer} examples":
            {method: x for (method, b), x in curves.items() if b in (None, buffer)}
            for buffer in buffers}


def _pad(curves: Sequence[np.ndarray]) -> np.ndarray:
    """[S, T] with NaN where a curve is shorter than the longest."""
    longest = max(map(len, curves))
    return np.stack([np.pad(c, (0, longest - len(c)), constant_values=np.nan) for c in curves])


def _rows(summaries: Iterable[Summary], metric: str) -> list[Row]:
    """Those with values of a metric, or with runs that diverged."""
    return list(dict.fromkeys((s.method, s.buffer) for s in summaries
                              if s.metric in (metric, DIVERGED)))


def _row(row: Row) -> dict[str, Any]:
    return {"method": row[0], "buffer": row[1]}


def _label(method: str, buffer: int | None) -> str:
    """A row below its bars, in narrow lines."""
    return method.replace("+", "\n+") + ("" if buffer is None else f"\n{buffer}")


def _row_columns(rows: Iterable[Row]) -> list[str]:
    """The column of sizes only if there is one to show."""
    return ["method", "buffer"] if any(buffer is not None for _, buffer in rows) else ["method"]


def _cell(mean: float, std: float | None) -> str:
    return percent(mean) if std is None else f"{percent(mean)} ± {percent(std)}"


def write(results: Sequence[Result], dataset: Dataset, workdir, command: str,
          kind: str = "", published: Mapping[str, Values] | None = None) -> str:
    """Writes the comparison into a folder; returns the Markdown table of accuracies.

    The folder gets `report.md`, which shows the tables, the plots and `command`; `comparison.csv`
    with a row for each method, head and metric (mean, std, number of seeds); and `seeds.csv` with a
    row for each seed too. Values in the CSV files are shares, not percent.

    Args:
      results: of all runs, of which at least one did not diverge.
      dataset: as it is learned, on a stream with the labels of its tasks.
      workdir: the folder.
      command: that makes the comparison again.
      kind: of the stream, if there is one.
      published: values of papers, as `jaxmm.report.published.find` gives them.
    """
    workdir = pathlib.Path(workdir)
    summaries = summarize(results)
    metric = continual.headline(kind)
    published = published or {}
    table = accuracy_table(summaries, dataset.modalities, metric, published.get("accuracy"))
    seeds = max(s.seeds for s in summaries if s.metric != DIVERGED)
    chance, diverged, accuracies = (1 / dataset.num_classes, diverged_runs(summaries),
                                    by_row(summaries, metric))
    what = continual.HEADLINES[metric]
    caption = what + (f", mean and deviation of {seeds} seeds" if seeds > 1 else "")
    files.write(workdir / "comparison.csv",
                csv_text([s._asdict() for s in summaries], Summary._fields))
    files.write(workdir / "seeds.csv", csv_text(
        [_row(r.row) | {"head": head, "metric": metric, "seed": r.seed, "value": value}
         for r in results for head, scores in ({"": {DIVERGED: 1.0}} if r.diverged else
                                               r.scores).items()
         for metric, value in scores.items()],
        ["method", "buffer", "head", "metric", "seed", "value"]))
    bars = {"\n".join(filter(None, [_label(*row), diverged.get(row)])): accuracies.get(row, {})
            for row in _rows(summaries, metric)}
    files.write(workdir / "accuracy.png", plots.png(plots.comparison_bars(
        bars, dataset.modalities, chance, f"{dataset.name}: {caption}")))
    probes = accuracy_table(summaries, dataset.modalities, "probe", published.get("probe"))
    probed = f"""
## What the encoders know

Test accuracy in percent of a linear probe: logistic regression on the features of each frozen
encoder. Far below the encoder of `unimodal` means that the other modalities made it lazy.

{probes}""" if any(s.metric == "probe" for s in summaries) else ""
    over_time = _over_time_section(results, summaries, dataset, workdir) if kind else ""
    notes = ("Means are of the runs that did not diverge.\n\n" * bool(diverged)
             + "".join(f"{escape.markdown(r.method)}, seed {r.seed}: "
                       f"{escape.markdown(describe(dataset.name, r.changed))}.\n\n"
                       for r in results if r.changed))
    files.write(workdir / "report.md", f"""# Methods on {escape.markdown(dataset.name)}

{caption.capitalize()}, in percent, after the last epoch of each run.{plots.note(dataset.modalities)}

{notes}{table}
![Test accuracy by method and head](accuracy.png)
{over_time}{probed}
Made by

    {command}

Macro F1, calibration error (ECE) and negative log-likelihood (NLL) are in `comparison.csv`, every
seed in `seeds.csv`, and every run has a folder of its own here.
""")
    return f"{table}\nLinear probes:\n\n{probes}" if probed else table


def _over_time_section(results, summaries, dataset: Dataset, workdir: pathlib.Path) -> str:
    files.write(workdir / "tasks_seen.png", plots.png(stream_plots.method_curves(
        curve_panels(results), 1 / dataset.num_classes,
        f"{dataset.name}: accuracy on the tasks seen so far")))
    return f"""
## Over the tasks

Of the head `dynamic` where there is one, otherwise of `fused`.

{over_time_table(summaries)}
![Accuracy on the tasks seen so far by method](tasks_seen.png)
"""
