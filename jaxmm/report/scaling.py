"""How the time of a training step grows: with the batch, modalities, classes, examples, runs, memory and devices."""
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from jaxmm import files
from jaxmm.report import plots
from jaxmm.report.tables import markdown

COLUMNS = {"milliseconds_per_step": "ms / step", "examples_per_second": "examples / s",
           "compile_seconds": "compile s", "peak_memory_mib": "peak MiB"}
Results = Mapping[str, Mapping[int, Mapping[str, Any]]]     # by axis, by value


def table(results: Results) -> str:
    """Markdown: a row for each value of each axis."""
    rows = [{"axis": axis, "value": value} | {name: found[key] for key, name in COLUMNS.items()}
            for axis, values in results.items() for value, found in values.items()]
    return markdown(rows, ["axis", "value", *COLUMNS.values()])


@plots.styled
def curves(results: Results, *, page: plots.Page) -> plots.Figure:
    """Milliseconds of a step by value, a panel for each axis; dashed: growing as the value does."""
    figure, grid = plots.panels(len(results), min(4, len(results)), (2.9, 3.2), "", page)
    measured = [found["milliseconds_per_step"] for v in results.values() for found in v.values()]
    for axes, (axis, values) in zip(grid.flat, results.items()):
        x, y = list(values), [found["milliseconds_per_step"] for found in values.values()]
        axes.plot(x, [y[0] * value / x[0] for value in x], color=plots.GREY, linewidth=1.2,
                  linestyle=plots.DASHES)
        axes.plot(x, y, **plots.Look(plots.INK, weight=1.2).dots(len(x)) | {"clip_on": True})
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(min(measured) / 1.4, 1.4 * max(measured))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(axis)
        axes.set_title("ms / step" if axes is grid[0, 0] else "")
    return figure


def write(results: Results, facts: Sequence[str], folder, command: str) -> str:
    """Writes `scaling.md` and `scaling.png` into a folder; returns the table.

    Args:
      results: see `Results`.
      facts: of the machine and the workloads, a line each.
      folder: where to.
      command: that measures it again.
    """
    folder, found = pathlib.Path(folder), table(results)
    plots.save(folder, "scaling", functools.partial(curves, results))
    listed = "".join(f"- {fact}\n" for fact in facts)
    files.write(folder / "scaling.md", f"""# Time of a training step

{listed}
{found}
![Milliseconds of a step, and in proportion to the value (dashed)](scaling.png)

Made by

    {command}
""")
    return found
