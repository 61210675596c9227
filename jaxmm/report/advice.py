"""Which method to train: by trials of several, or UMT or UME by the rule of their paper.

Of several methods, in order from simple to costly, the advice is the first that the best of them is not
significantly ahead of: a lead that chance would often make is worth no cost.

By the rule a head on frozen unimodal encoders is compared with the average of the unimodal predictions, on
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

LEVEL = 0.05        # probability of a lead where there is none, over all that are compared together


class Lead(NamedTuple):
    """How far one model is ahead of another."""
    name: str           # of the former; or of the latter, where several are left behind
    gain: float         # in the headline, over seeds and rows
    error: float        # standard error of the gain
    needed: float       # the gain needed for significance

    @property
    def ahead(self) -> bool:
        """Whether the gain is significant."""
        return self.gain > self.needed


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

    For the test see `lead`; the best of several heads is taken.

    Args:
      average: [S, N], `contributions` of the averaged prediction, by seed and validation row.
      heads: the same of heads on the same frozen encoders, by name.
      metric: the headline.
    """
    found = max((lead(name, rows, average, len(heads), metric) for name, rows in heads.items()),
                key=lambda each: each.gain - each.needed)
    return Advice("umt" if found.ahead else "ume", *found)


def lead(name: str, rows: np.ndarray, others: np.ndarray, tests: int, metric: str = "accuracy") -> Lead:
    """How far a model is ahead of another, by a one-sided t test on the paired gain.

    Its level is `LEVEL` divided by the number of `tests`, as the best of several is taken (Bonferroni).

    Args:
      name: of the lead.
      rows: [S, N], `contributions` of the model, by seed and validation row.
      others: the same of the other.
      tests: how many are made.
      metric: the headline.
    """
    sign = -1 if unit(metric).lower else 1
    gain, error, freedom = paired_gain(sign * np.subtract(rows, others, dtype=np.float64))
    return Lead(name, gain, error, float(error * stats.t.ppf(1 - LEVEL / tests, freedom)))


class Choice(NamedTuple):
    """One of several methods."""
    method: str         # the advice
    best: str           # that of the best headline
    leads: dict[str, Lead]      # of the best over each other method, by its name


def choose(scores: Mapping[str, np.ndarray], metric: str = "accuracy") -> Choice:
    """The first method that the best one is not significantly ahead of.

    Args:
      scores: [S, N], `contributions` by seed and validation row, of methods from simple to costly.
      metric: the headline.
    """
    sign = -1 if unit(metric).lower else 1
    best = max(scores, key=lambda name: sign * scores[name].mean())
    leads = {name: lead(name, scores[best], rows, len(scores) - 1, metric)
             for name, rows in scores.items() if name != best}
    return Choice(next(name for name in scores if name == best or not leads[name].ahead), best, leads)


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


def text_of_choice(choice: Choice, scores: Mapping[str, np.ndarray], costs: Mapping[str, str],
                   metric: str = "accuracy") -> str:
    """The table of all methods and the recommendation, as Markdown.

    Args:
      choice: see `choose`.
      scores: as there.
      costs: what each method took, as text.
      metric: the headline.
    """
    title, (seeds, size) = unit(metric).title, scores[choice.best].shape
    behind = f"behind {choice.best}"
    rows = [{"on validation data": name, "M examples": costs[name],
             title: number(metric, values.mean(), values.mean(1).std(ddof=1) if seeds > 1 else None),
             behind: number(metric, found.gain, found.error) if (found := choice.leads.get(name)) else ""}
            for name, values in scores.items()]
    over = f"{size} validation rows" + (f" and {seeds} seeds" if seeds > 1 else ", one seed")

    def said(found: Lead) -> str:
        return (f"{number(metric, found.gain, sign='+')}, standard error {number(metric, found.error)} over {over}; "
                f"it takes {number(metric, found.needed, sign='+')}")

    simpler = [choice.leads[name] for name in [*scores][:[*scores].index(choice.method)]]
    why = []
    if choice.method != choice.best:
        why.append(f"{choice.best} has the best mean, but is not ahead of it by more than chance makes the best of "
                   f"{len(scores)} ({said(choice.leads[choice.method])}).")
    if simpler:     # all are behind
        nearest = min(simpler, key=lambda found: found.gain - found.needed)
        why.append(f"{choice.best} is ahead of every method before {choice.method} in the table, of the nearest of "
                   f"them, {nearest.name}, by {said(nearest)}.")
    else:
        why.append("It has the best mean, and none is simpler." if choice.method == choice.best else "None is simpler.")
    return (markdown(rows, ["on validation data", title, behind, "M examples"])
            + f"\nRecommendation: **{choice.method}**. {' '.join(why)}\n")


def write(workdir: pathlib.Path, shown: str, config: Config, command: str, title: str = "UMT or UME?") -> pathlib.Path:
    """Writes `advice.md`, and `next.json` with the config to run next, whose path it returns."""
    path = workdir / "next.json"
    files.write(path, json.dumps(to_dict(config), indent=2) + "\n")
    files.write(workdir / "advice.md", f"""# {title}

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
