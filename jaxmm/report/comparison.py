"""Comparison of methods over seeds.

In the form of table 1 of MLA (arXiv 2311.10707) and, for streams of tasks, of the main table of
SAMM (arXiv 2405.02766): methods as rows, in blocks by the size of their memory, heads as columns.
"""
import functools
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmm import escape, files
from jaxmm.config import Config, TaskConfig
from jaxmm.data.dataset import Dataset
from jaxmm.report import continual, plots, significance, stream_plots, units
from jaxmm.report.published import Value, Values
from jaxmm.report.records import DIVERGED, Cell, Record, pivot
from jaxmm.report.run_report import final_scores
from jaxmm.report.tables import Scores, capital, csv_text, latex, markdown, sort_heads
from jaxmm.train.scores import FUSED, main_head
from jaxmm.report.variants import Variant
from jaxmm.train.validity import describe

OVER_TIME = ("stability", "plasticity", "trade_off", "forgetting")
BY_CLASS = ("class_accuracy", "rare_accuracy", "middle_accuracy", "frequent_accuracy", "class_forgetting", "ece")
COST = ("state_bytes", "step_ms")
SEEN = "seen"                       # accuracy on the tasks seen so far, of a task that was learned
ROW = ("method", "setting")
Row = tuple[str, int | None]        # method, size of its memory


class Result(NamedTuple):
    """Test scores of one run. Runs of one method and seed with other heads make one row."""
    method: str
    seed: int
    scores: Scores                          # {} if it diverged
    buffer: int | None = None               # examples its memory holds, if it has one
    seen: Mapping[str, np.ndarray] | None = None    # by head: `continual.seen_accuracy`
    diverged: bool = False                  # its loss, or that of a model it starts from
    changed: Sequence[str] = ()             # splits that have changed since; it is scored again
    cost: Mapping[str, float] = {}          # of COST


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
    if m in scores and (variant.config.method.name == "unimodal" or scores.get("fused") == scores[m]):
        scores, seen = {m: scores[m]}, seen and {m: seen[m]}
    return Result(variant.method, seed, scores, variant.buffer, seen, changed=changed)


def with_probes(result: Result, accuracies: Mapping[str, float]) -> Result:
    """The result with the accuracy of a linear probe of each encoder as the metric "probe"."""
    return result._replace(scores={
        head: by_metric | ({"probe": accuracies[head]} if head in accuracies else {})
        for head, by_metric in result.scores.items()})


def records(results: Iterable[Result]) -> list[Record]:
    """All numbers of all runs.

    They come in blocks: methods without a memory, then the others by its size; within a block in the
    order of the results.
    """
    found = []
    for r in sorted(results, key=lambda r: r.buffer or 0):
        record = functools.partial(Record, r.method, r.buffer, r.seed, "test")
        found.append(record(None, "", DIVERGED, float(r.diverged)))
        found += [record(None, head, metric, value)
                  for head, scores in r.scores.items() for metric, value in scores.items()]
        found += [record(None, "", metric, value) for metric, value in r.cost.items()]
        found += [record(task, head, SEEN, value)
                  for head, curve in (r.seen or {}).items() for task, value in enumerate(curve, 1)]
    return found


def by_head(table: Iterable[Record], metric: str) -> dict[Row, dict[str, Cell]]:
    """A metric by row and head."""
    return pivot((r for r in table if r.metric == metric), ROW, ["head"])


def diverged_runs(table: Iterable[Record]) -> dict[Row, str]:
    """For rows with runs that diverged, how many did."""
    shares = {row: cell for row, cells in by_head(table, DIVERGED).items() for cell in cells.values()}
    return {row: DIVERGED if cell.mean == 1 else
            f"{round(cell.mean * len(cell.values))} of {len(cell.values)} {DIVERGED}"
            for row, cell in shares.items() if cell.mean}


def score_rows(table: Sequence[Record], modalities: Sequence[str], metric: str,
               published: Values | None = None) -> tuple[list[dict[str, Any]], list[str], list[Value]]:
    """Methods as rows, heads as columns: (cells by column, columns, published values among them).

    A head with published values has a column "paper" beside it. If runs diverged, a last column says how
    many of each method; means are over the others.
    """
    scores, diverged = by_head(table, metric), diverged_runs(table)
    heads = sort_heads({h: None for cells in scores.values() for h in cells}, modalities)
    known = {(row, head): value for row, values in (published or {}).items()
             for head, value in values.items() if head in scores.get(row, ())}
    order = [row for row in dict.fromkeys((r.method, r.setting) for r in table)
             if row in scores or row in diverged]
    columns = [c for h in heads for c in (h, f"{h}, paper") if c == h or h in {k[1] for k in known}]
    rows = [_row(row) | {head: units.number(metric, cell.mean, cell.std)
                         for head, cell in scores.get(row, {}).items()}
            | {f"{head}, paper": units.number(metric, value.mean, value.std) + "*" * bool(value.differences)
               for (r, head), value in known.items() if r == row} | {"": diverged.get(row)}
            for row in order]
    return rows, [*_row_columns(order), *columns, *[""] * bool(diverged)], list(known.values())


def score_table(table: Sequence[Record], modalities: Sequence[str], metric: str = "accuracy",
                published: Values | None = None) -> str:
    """Markdown of `score_rows`, as mean ± deviation.

    Below the table stands where published values come from, and why those marked with * cannot be
    compared.
    """
    rows, columns, values = score_rows(table, modalities, metric, published)
    return markdown(rows, columns) + "".join(f"\n{line}\n" for line in sources(values))


def sources(values: Sequence[Value]) -> list[str]:
    """Lines below a table that has published values; none if it has none."""
    papers = ", ".join(dict.fromkeys(v.source for v in values))
    differences = "; ".join(dict.fromkeys(d for v in values for d in v.differences))
    notes = "; ".join(dict.fromkeys(n for v in values for n in v.notes))
    return ([f"Paper: {papers}{' (' + notes + ')' if notes else ''}."] * bool(papers)
            + [f"\\* Not comparable: {differences}."] * bool(differences))


def over_time_rows(table: Sequence[Record], metrics: Sequence[str] = OVER_TIME,
                   ) -> tuple[list[dict[str, Any]], list[str]]:
    """Stability and so on of each method's main head: (cells by column, columns)."""
    rows = {}
    for row, cells in pivot((r for r in table if r.metric in metrics), ROW, ["head", "metric"]).items():
        head = main_head(dict.fromkeys(h for h, _ in cells))
        rows[row] = _row(row) | {"head": head} | {
            units.unit(metric).title: units.number(metric, cell.mean, cell.std)
            for (h, metric), cell in cells.items() if h == head}
    titles = [units.unit(metric).title for metric in metrics]
    return list(rows.values()), [*_row_columns(rows), "head",
                                 *(t for t in titles if any(t in row for row in rows.values()))]


def over_time_table(table: Sequence[Record], metrics: Sequence[str] = OVER_TIME) -> str:
    """Markdown of `over_time_rows`; "" if none learned over time."""
    rows, columns = over_time_rows(table, metrics)
    return markdown(rows, columns) if rows else ""


def class_section(table: Sequence[Record]) -> str:
    """The part of a report on the classes of a generalised stream; "" for other streams."""
    if not any(r.metric == BY_CLASS[0] for r in table):
        return ""
    return f"""
## By class

Accuracy as a mean over all classes seen, and over thirds of them by how many examples the stream has of each;
forgetting by class is the best accuracy on a class after any task less that after the last one. In percent, and
ECE as a number.

{over_time_table(table, BY_CLASS)}"""


def cost_section(table: Sequence[Record]) -> str:
    """The part of a report on what methods cost; "" if that was not measured."""
    rows = [_row(row) | {units.unit(metric).title: units.number(metric, cell.mean, cell.std)
                         for metric, cell in cells.items()}
            for row, cells in pivot((r for r in table if r.metric in COST), ROW, ["metric"]).items()]
    if not rows:
        return ""
    columns = _row_columns([(row["method"], row["buffer"]) for row in rows])
    return f"""
## Cost

Of the state with its memory, and of a step on this machine (the median; of all seeds that were trained at once).

{markdown(rows, [*columns, *(units.unit(metric).title for metric in COST)])}"""


def curve_panels(table: Iterable[Record]) -> dict[str, dict[str, dict[int, Cell]]]:
    """Accuracy by tasks seen of each method's main head, by size of memory and method.

    Methods without a memory are in every panel.
    """
    curves = {}
    for row, cells in pivot((r for r in table if r.metric == SEEN), ROW, ["head", "task"]).items():
        head = main_head(dict.fromkeys(h for h, _ in cells))
        curves[row] = {task: cell for (h, task), cell in cells.items() if h == head}
    buffers = sorted({buffer for _, buffer in curves if buffer is not None}) or [None]
    return {"" if buffer is None else f"memory of {buffer} examples":
            {method: x for (method, b), x in curves.items() if b in (None, buffer)}
            for buffer in buffers}


def latex_table(table: Sequence[Record], modalities: Sequence[str], metric: str, caption: str,
                published: Values | None = None, repeats: str = "seeds") -> str:
    """LaTeX of `score_rows`, see `latex_best`."""
    rows, columns, values = score_rows(table, modalities, metric, published)
    scores = by_head(table, metric)
    by_column = {head: {row: found[head] for row, found in scores.items() if head in found}
                 for head in dict.fromkeys(head for cells in scores.values() for head in cells)}
    order = [(row["method"], row["buffer"]) for row in rows]
    return latex_best(rows, columns, values, by_column, order, metric, caption, repeats)


def latex_best(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], values: Sequence[Value],
               by_column: Mapping[str, Mapping[tuple, Cell]], order: Sequence[tuple], metric: str, caption: str,
               repeats: str = "seeds") -> str:
    """A LaTeX table: the best of each column in bold, with a star if it is better than each of the others;
    comments name the test, its number of seeds and each p. Folds, which share most of their training rows,
    are not tested.

    Args:
      rows: cells as text by column.
      columns: in order.
      values: published ones among them.
      by_column: the numbers, by column and row.
      order: names of the rows, as in `by_column`.
      metric: the score.
      caption: above the table.
      repeats: what runs of a method differ in: "seeds" or "folds".
    """
    bold, comments = {}, []
    for column, cells in by_column.items():
        if len(cells) > 1:
            found = significance.winner(metric, cells)
            level = [row for row, cell in cells.items() if cell.mean == cells[found.row].mean]
            if len(level) < len(cells):
                bold |= {(order.index(row), column): "*" * (found.better and repeats == "seeds") for row in level}
            listed = ", ".join(" ".join([*map(str, filter(None, row)),
                                         "(equal)" if np.isnan(p) else f"{p:.2g}"])
                               for row, p in found.p.items())
            if repeats != "seeds":
                continue
            comments.append(f"% {escape.printable(column)}, n = {found.seeds}: " + escape.printable(
                f"p of the best against {listed}" if found.p else "no test with so few seeds") + "\n")
    test = ("; * better than each other method of its column: two-sided paired t tests over the seeds, "
            f"p < {significance.LEVEL} each" if any(bold.values()) else "")
    n = {len(cell.values) for cells in by_column.values() for cell in cells.values()}
    seeds = f"n = {min(n)}" + f" to {max(n)}" * (len(n) > 1) + f" {repeats}"
    notes = [f"Best in bold; {seeds}{test}."]
    notes += [f"† {line.removeprefix(chr(92) + '* ')}" if line.startswith("\\") else line
              for line in sources(values)]
    return "".join(comments) + latex(_daggers(rows), columns, caption, notes, bold)


def _daggers(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with † in place of * at published values that cannot be compared: * marks the best."""
    return [{column: value.replace("*", "†") if column.endswith(", paper") and value else value
             for column, value in row.items()} for row in rows]


def shown(result: Result, dataset: Dataset, config: Config) -> str:
    """The headline of every head of a run of this config in a line."""
    metric = continual.headline(config.stream.kind, units.task_of(dataset, config.task))
    return ", ".join(f"{head} {units.number(metric, result.scores[head][metric])}"
                     for head in sort_heads(result.scores, dataset.modalities))


def _row(row: Row) -> dict[str, Any]:
    return {"method": row[0], "buffer": row[1]}


def _label(method: str, buffer: int | None) -> str:
    """A row below its bars, in narrow lines."""
    return method.replace("+", "\n+") + ("" if buffer is None else f"\n{buffer}")


def _row_columns(rows: Iterable[Row]) -> list[str]:
    """The column of sizes only if there is one to show."""
    return ["method", "buffer"] if any(buffer is not None for _, buffer in rows) else ["method"]


def write(results: Sequence[Result], dataset: Dataset, workdir, command: str, kind: str = "",
          published: Mapping[str, Values] | None = None, page: plots.Page | None = None,
          repeats: str = "seeds", task_config: TaskConfig = TaskConfig(), baseline: str = "",
          sections: str = "") -> str:
    """Writes the comparison into a folder; returns the Markdown table of the headline.

    The folder gets `report.md`, which shows the tables, the plots and `command`; `comparison.csv`
    with a row for each method, head and metric (mean, std, number of seeds); `seeds.csv` with a row
    for each seed too; and `comparison.tex` with the tables for papers. Shares in the CSV files are no
    percent.

    Args:
      results: of all runs, of which at least one did not diverge.
      dataset: as it is learned, on a stream with the labels of its tasks.
      workdir: the folder.
      command: that makes the comparison again.
      kind: of the stream, if there is one.
      published: values of papers, as `jaxmm.report.published.find` gives them.
      page: of paper, for which the plots are drawn too, in the folder `figures`.
      repeats: what runs of a method differ in: "seeds", or the "folds" of a cross-validation.
      task_config: of the runs, what is predicted.
      baseline: method of the others' differences, if they are asked for.
      sections: Markdown that the report gets before its last lines.
    """
    workdir, table, published = pathlib.Path(workdir), records(results), published or {}
    task = units.task_of(dataset, task_config)
    metric, chance = continual.headline(kind, task), units.guess(task, dataset)
    unit, diverged, scores = units.unit(metric), diverged_runs(table), by_head(table, metric)
    if task.headline != "accuracy":
        published = {}      # which are accuracies
    shown = score_table(table, dataset.modalities, metric, published.get("accuracy"))
    seeds = max(len(cell.values) for cells in scores.values() for cell in cells.values())
    what = continual.caption(metric) + (f", mean and deviation of {seeds} {repeats}" if seeds > 1 else "")
    write_csv(table, workdir / "comparison.csv")
    _write_latex(table, dataset, metric, f"{dataset.name}: {what}, {units.explain(metric)}.", published,
                 workdir, repeats)
    bars = {"\n".join(filter(None, [_label(*row), diverged.get(row)])):
            {head: cell[:2] for head, cell in scores.get(row, {}).items()}
            for row in dict.fromkeys((r.method, r.setting) for r in table)
            if row in scores or row in diverged}
    picture = plots.save(workdir, task.headline, functools.partial(
        plots.comparison_bars, bars, dataset.modalities, chance, f"{dataset.name}: {what}", metric), page)
    probes = score_table(table, dataset.modalities, "probe", published.get("probe"))
    probed = f"""
## What the encoders know

Test accuracy in percent of a linear probe: logistic regression on the features of each frozen
encoder. Far below the encoder of `unimodal` means that the other modalities made it lazy.

{probes}""" if any(r.metric == "probe" for r in table) else ""
    over_time = (_over_time_section(table, dataset, workdir, page) + class_section(table) + cost_section(table)
                 if kind else "")
    against = difference_section(table, metric, baseline, repeats) if baseline else ""
    others = [units.unit(m).title for m in dict.fromkeys(
        m for r in results for scores in r.scores.values() for m in scores) if m != metric]
    notes = ("Each row is tested in one fold; folds share training rows, so that their deviation says less "
             "than that of independent runs. In the CSV files they stand as seeds.\n\n" * (repeats == "folds")
             + "Means are of the runs that did not diverge.\n\n" * bool(diverged)
             + "".join(f"{escape.markdown(r.method)}, {repeats[:-1]} {r.seed}: "
                       f"{escape.markdown(describe(dataset.name, r.changed))}.\n\n"
                       for r in results if r.changed))
    files.write(workdir / "report.md", f"""# Methods on {escape.markdown(dataset.name)}

{capital(what)}, {units.explain(metric)}, after the last epoch of each run.\
{plots.note(dataset.modalities, metric)}

{notes}{shown}
![Test {unit.title} by method and head]({picture})
{over_time}{probed}{against}{sections}
Made by

    {command}

{capital(', '.join(others)) or 'Means'} are in `comparison.csv`, every {repeats[:-1]} in `seeds.csv`, tables for
LaTeX in `comparison.tex`, and every run has a folder of its own here.
""")
    return f"{shown}\nLinear probes:\n\n{probes}" if probed else shown


def difference_rows(table: Iterable[Record], metric: str, baseline: str) -> list[dict[str, Any]]:
    """For each method, the mean of the paired differences of its main head to that of the baseline, with its
    standard error, over the seeds that both have.

    A method without a fused head has a row for each head. Differences of one seed have no error. Memories are of
    the same size; a method without one has a row for each size that the baseline has. There are no rows if all
    runs of the baseline diverged.
    """
    scores, rows = by_head(table, metric), []
    starts = {size: dict(cells[main_head(cells)].values) for (method, size), cells in scores.items()
              if method == baseline}
    for (method, size), cells in scores.items():
        main = main_head(cells)
        pairs = itertools.product([main] if main in FUSED else cells, [size] if size in starts else starts)
        for head, start_size in pairs if method != baseline else ():
            start, theirs = starts[start_size], dict(cells[head].values)
            found = np.array([theirs[s] - start[s] for s in sorted(start.keys() & theirs)])
            if not len(found):
                continue
            error = float(found.std(ddof=1) / len(found)**0.5) if len(found) > 1 else None
            rows.append(_row((method, start_size if size is None else size)) | {
                "head": head, "difference": units.number(metric, float(found.mean()), error, "+"),
                "seeds": str(len(found))})
    return rows


def difference_section(table: Sequence[Record], metric: str, baseline: str, repeats: str) -> str:
    """The part of a report with `difference_rows`."""
    rows = difference_rows(table, metric, baseline)
    if not rows:
        return f"""
## Against {escape.markdown(baseline)}

There are no {repeats} in which both {escape.markdown(baseline)} and another method have a result.
"""
    columns = [*_row_columns([(row["method"], row["buffer"]) for row in rows]), "head", "difference", "seeds"]
    return f"""
## Against {escape.markdown(baseline)}

{capital(units.unit(metric).title)} less that of {escape.markdown(baseline)} with the same {repeats[:-1]}: the
mean over {repeats} and, behind ±, its standard error.

{markdown(rows, columns)}"""


def means(table: Iterable[Record], setting: str = "buffer") -> list[dict[str, Any]]:
    """Mean and sample deviation of every number over the seeds, a row each.

    Its keys are method, that which `setting` names, head, metric, mean, std (None of one seed), and seeds.
    """
    return [{"method": row[0], setting: row[1], "head": column[0], "metric": column[1], "mean": cell.mean,
             "std": None if column[-1] == DIVERGED else cell.std, "seeds": len(cell.values)}
            for row, cells in pivot((r for r in table if r.task is None), ROW, ["head", "metric"]).items()
            for column, cell in cells.items() if column[-1] != DIVERGED or cell.mean]


def write_csv(table: Sequence[Record], path: pathlib.Path, setting: str = "buffer") -> None:
    """The `means`, and beside them as `seeds.csv` the records of all seeds."""
    row = ["method", setting, "head", "metric"]
    files.write(path, csv_text(means(table, setting), [*row, "mean", "std", "seeds"]))
    files.write(path.with_name("seeds.csv"), csv_text(
        [r._asdict() | {setting: r.setting} for r in table
         if r.task is None and (r.metric != DIVERGED or r.value)], [*row, "seed", "value"]))


def _write_latex(table: Sequence[Record], dataset: Dataset, metric: str, caption: str,
                 published: Mapping[str, Values], workdir: pathlib.Path, repeats: str) -> None:
    """Writes `comparison.tex`: the headline and, if there are any, probes and scores over the tasks."""
    tables = [latex_table(table, dataset.modalities, metric, caption, published.get("accuracy"), repeats)]
    if any(r.metric == "probe" for r in table):
        tables.append(latex_table(table, dataset.modalities, "probe", f"{dataset.name}: accuracy of linear "
                                  "probes of the frozen encoders, in percent.", published.get("probe"), repeats))
    rows, columns = over_time_rows(table)
    if rows:
        tables.append(latex(rows, columns, f"{dataset.name}: over the tasks, in percent.", []))
    files.write(workdir / "comparison.tex", "% Needs \\usepackage{booktabs}.\n" + "\n".join(tables))


def _over_time_section(table: Sequence[Record], dataset: Dataset, workdir: pathlib.Path,
                       page: plots.Page | None) -> str:
    picture = plots.save(workdir, "tasks_seen", functools.partial(
        stream_plots.method_curves, curve_panels(table), 1 / dataset.num_classes,
        f"{dataset.name}: accuracy on the tasks seen so far"), page)
    return f"""
## Over the tasks

Of the head `dynamic` where there is one, otherwise of `fused`.

{over_time_table(table)}
![Accuracy on the tasks seen so far by method]({picture})
"""
