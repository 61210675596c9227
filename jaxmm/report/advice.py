"""Which way of training several modalities pays: UMT or UME, by the rule of their paper.

A head on frozen unimodal encoders is compared with the average of the unimodal predictions, on
validation data. If the head is better, features of several modalities matter together: distil (UMT).
Otherwise an ensemble (UME) has all there is, at no further cost (arXiv 2305.01233, section 3).
"""
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxmm import escape, files
from jaxmm.config import Config
from jaxmm.report.tables import markdown, percent
from jaxmm.train.runs import to_dict


class Advice(NamedTuple):
    """What to do, and why."""
    method: str         # "umt" or "ume"
    head: str           # of the heads the one that is furthest ahead of the average
    gain: float         # mean of its accuracy less that of the average, over the seeds
    error: float        # standard error of the gain; NaN for a single seed


def advise(average: Sequence[float], heads: Mapping[str, Sequence[float]]) -> Advice:
    """UMT if some head is ahead of the average by more than the standard error of its lead.

    Args:
      average: validation accuracy of the averaged predictions by seed.
      heads: validation accuracy of heads on the same frozen encoders, by name and seed.
    """
    gains = {name: np.subtract(values, average) for name, values in heads.items()}
    head = max(gains, key=lambda name: gains[name].mean())
    gain, seeds = gains[head], len(average)
    error = gain.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
    ahead = gain.mean() > np.nan_to_num(error)
    return Advice("umt" if ahead else "ume", head, float(gain.mean()), float(error))


def text(advice: Advice, average: Sequence[float], heads: Mapping[str, Sequence[float]]) -> str:
    """The table of both sides and the recommendation, as Markdown."""
    rows = [{"on validation data": name, "accuracy": _cell(values),
             "minus average": _cell(np.subtract(values, average)) if name in heads else ""}
            for name, values in {"average of unimodal models": average, **heads}.items()]
    lead = f"{100 * advice.gain:+.1f} points"
    if not np.isnan(advice.error):
        lead += f", standard error {percent(advice.error)}"
    why = {
        "umt": f"The {advice.head} is ahead of the average ({lead}): features of several modalities "
               "matter together. Train them together, taught by the unimodal models.",
        "ume": f"No head on the unimodal encoders is ahead of the average by more than its "
               f"uncertainty (best: {advice.head}, {lead}): average the unimodal models, which are "
               "trained already.",
    }[advice.method]
    return (markdown(rows, ["on validation data", "accuracy", "minus average"])
            + f"\nRecommendation: **{advice.method.upper()}**. {why}\n")


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {percent(np.std(values, ddof=1))}" if len(values) > 1 else ""
    return f"{percent(np.mean(values))}{spread}"


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
    return escape.command(["python", "-m", "launch.train", f"--config={path}"])
