"""Which method to use for several modalities, UMT or UME, by the rule of their paper.

A head on frozen unimodal encoders is compared with the average of the unimodal predictions, on
validation data. If the head is better, paired features matter: distil (UMT). Otherwise an ensemble
(UME) is as good, without further training (arXiv 2305.01233, section 3). "Better" means significantly
better, as UME is cheaper: over draws of validation rows and seeds, a lead of this size would rarely
occur by chance.
"""
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxmm import escape, files
from jaxmm.config import Config
from jaxmm.errors import as_typed
from jaxmm.report.tables import markdown
from jaxmm.report.units import number, unit
from jaxmm.task import Task
from jaxmm.train.options import to_dict

LEVEL = 0.05        # probability of advising UMT where no head is better, over all heads together


class Advice(NamedTuple):
    """What to do, and why."""
    method: str         # "umt" or "ume"
    head: str           # the head that is furthest ahead of the average
    gain: float         # how much better its headline is than that of the average, over seeds and rows
    error: float        # standard error of the gain
    needed: float       # the gain needed for significance


def contributions(task: Task, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The contribution of each row to the headline score of the task: float64 [N], with that mean.

    For accuracy it is whether the row is right, for MAE its error. Macro F1 is not a mean over rows: its
    contributions are by the jackknife, F + (N - 1) (mean of F without a row - F without this row).
    """
    if task.headline == "accuracy":
        return (outputs.argmax(1) == labels).astype(np.float64)
    if task.headline == "mae":
        return np.abs(outputs.astype(np.float64) - labels).mean(1)
    if task.headline != "macro_f1":
        raise ValueError(f"no contributions of rows to {task.headline}")
    predicted, labels = outputs > 0, labels.astype(bool)
    right, said = predicted & labels, predicted.astype(np.float64) + labels     # 2 TP, TP + FP + TP + FN

    def f1(right, said):
        return np.divide(2 * right, said, out=np.zeros_like(said), where=said > 0).mean(-1)

    without = f1(right.sum(0) - right, said.sum(0) - said)
    return f1(right.sum(0), said.sum(0)) + (len(labels) - 1) * (without.mean() - without)


def advise(average: np.ndarray, heads: Mapping[str, np.ndarray], metric: str = "accuracy") -> Advice:
    """UMT if some head is significantly ahead of the average, otherwise UME.

    The test is a one-sided t test on the paired gain of a head, at `LEVEL` divided by the number of
    heads, as the best of several is taken (Bonferroni).

    Args:
      average: [S, N], `contributions` of the averaged prediction, by seed and validation row.
      heads: the same of heads on the same frozen encoders, by name.
      metric: the headline.
    """
    found, sign = [], -1 if unit(metric).lower else 1
    for name, rows in heads.items():
        gain, error, freedom = paired_gain(sign * np.subtract(rows, average, dtype=np.float64))
        needed = error * stats.t.ppf(1 - LEVEL / len(heads), freedom)
        found.append(Advice("umt" if gain > needed else "ume", name, gain, error, float(needed)))
    return max(found, key=lambda advice: advice.gain - advice.needed)


def paired_gain(differences: np.ndarray) -> tuple[float, float, float]:
    """(mean, standard error, degrees of freedom) of differences that vary with seeds and rows.

    Rows are the same for all seeds, so the design is crossed: d = mean + seed + row + rest. The mean
    squares of the three parts give the variance of the mean, (MS_row + (MS_seed - MS_rest)) / (S N),
    where a negative part of the seeds counts as 0, and Satterthwaite's degrees of freedom. With one
    seed the error includes only the rows.

    Args:
      differences: float64 [S, N], the difference of two models by seed and row; N > 1.
    """
    seeds, rows = differences.shape
    mean = differences.mean()
    by_seed, by_row = differences.mean(1) - mean, differences.mean(0) - mean
    row_square, excess, freedom = seeds * np.sum(by_row**2) / (rows - 1), 0.0, rows - 1
    if seeds > 1:
        seed_square = rows * np.sum(by_seed**2) / (seeds - 1)
        rest = np.sum((differences - mean - by_seed[:, None] - by_row)**2) / (
            (seeds - 1) * (rows - 1))
        excess = max(seed_square - rest, 0.0)
        if excess:
            freedom = (row_square + excess)**2 / (
                seed_square**2 / (seeds - 1) + row_square**2 / (rows - 1)
                + rest**2 / ((seeds - 1) * (rows - 1)))
    return float(mean), float(np.sqrt((row_square + excess) / (seeds * rows))), float(freedom)


def text(advice: Advice, average: np.ndarray, heads: Mapping[str, np.ndarray],
         metric: str = "accuracy") -> str:
    """The table of both sides and the recommendation, as Markdown; arguments as of `advise`."""
    def cell(values, sign=""):
        return number(metric, np.mean(values), np.std(values, ddof=1) if len(values) > 1 else None, sign)

    title = unit(metric).title
    rows = [{"on validation data": name, title: cell(values.mean(1)),
             "minus average": cell(values.mean(1) - average.mean(1)) if name in heads else ""}
            for name, values in {"average of unimodal models": average, **heads}.items()]
    seeds, size = average.shape
    gained = ("points" if unit(metric).scale == 100 else f"of {title}") + " less" * unit(metric).lower
    lead = (f"{number(metric, advice.gain, sign='+')} {gained}, standard error "
            f"{number(metric, advice.error)} over {size} validation rows"
            + (f" and {seeds} seeds" if seeds > 1 else ", one seed")
            + f"; it takes {number(metric, advice.needed, sign='+')}")
    why = {
        "umt": f"The {advice.head} is ahead of the average ({lead}): features of several modalities "
               "matter together. Train them together, taught by the unimodal models.",
        "ume": f"No head on the unimodal encoders is ahead of the average by more than chance makes "
               f"it (best: {advice.head}, {lead}): average the unimodal models, which are trained "
               "already.",
    }[advice.method]
    return (markdown(rows, ["on validation data", title, "minus average"])
            + f"\nRecommendation: **{advice.method.upper()}**. {why}\n")


def write(workdir: pathlib.Path, shown: str, config: Config, command: str) -> pathlib.Path:
    """Writes `advice.md`, and `next.json` with the config to run next, whose path it returns."""
    path = workdir / "next.json"
    files.write(path, json.dumps(to_dict(config), indent=2) + "\n")
    files.write(workdir / "advice.md", f"""# UMT or UME?

{shown}
Made by

    {command}

To follow it:

    {follow(path)}
""")
    return path


def follow(path: pathlib.Path) -> str:
    """The command that trains the config of a file."""
    return f"{as_typed('train')} {escape.command([f'--config={path}'])}"
