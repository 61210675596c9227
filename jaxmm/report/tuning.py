"""How the options of a comparison were chosen, and what that cost."""
import itertools
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from jaxmm import files
from jaxmm.methods import used_modalities
from jaxmm.report import units
from jaxmm.report.tables import csv_text, markdown
from jaxmm.report.variants import Variant
from jaxmm.train import writers
from jaxmm.train.folder import FILE, read_config

Examples = Mapping[str, int]        # that were trained on, by modality


class Choice(NamedTuple):
    """What was tried for one model of a comparison."""
    model: Variant
    settings: Sequence[Mapping[str, str]]           # texts of the values, by option
    scores: Sequence[tuple[float | None, ...]]      # on validation data, by setting and seed; None: diverged
    best: int | None                                # number of the chosen setting; None if all diverged
    metric: str

    @property
    def chosen(self) -> str:
        """The chosen setting as text."""
        return "none" if self.best is None else label(self.settings[self.best])

    @property
    def name(self) -> str:
        """The model as it is called in tables."""
        return self.model.folder if self.model.method == "unimodal" else self.model.method


def label(setting: Mapping[str, str]) -> str:
    """A setting in short: its value, or NAME=VALUE of several."""
    if len(setting) == 1:
        return next(iter(setting.values()))
    return ", ".join(f"{path.rpartition('.')[2]}={value}" for path, value in setting.items())


def mean(choice: Choice, number: int) -> str:
    """The mean over seeds of a setting, in the unit of the score."""
    scores = choice.scores[number]
    return "diverged" if None in scores else units.number(choice.metric, sum(scores) / len(scores))


def line(choice: Choice) -> str:
    """All settings with their means, and the chosen one."""
    each = ", ".join(f"{label(setting)}: {mean(choice, i)}" for i, setting in enumerate(choice.settings))
    return f"{each}; chosen {choice.chosen}"


def edges(choice: Choice) -> list[str]:
    """The options whose chosen value is the least or the largest of several numbers that were tried."""
    if choice.best is None:
        return []
    found = []
    for path, value in choice.settings[choice.best].items():
        try:
            values = {float(setting[path]) for setting in choice.settings}
        except ValueError:      # not of numbers
            continue
        if len(values) > 1 and float(value) in (min(values), max(values)):
            found.append(path)
    return found


def examples(folders: Collection[pathlib.Path], modalities: Sequence[str]) -> Examples:
    """Examples that all runs in folders and below were trained on, teachers included, by modality."""
    found = dict.fromkeys(modalities, 0)
    for path in itertools.chain(*(folder.rglob(FILE) for folder in folders)):
        config = read_config(path.parent)
        records = filter(None, map(writers.parse, writers.read_lines(path.with_name(writers.FILE))))
        steps = max((record["step"] for record in records), default=0)
        for m in used_modalities(config.method, modalities):
            found[m] += max(steps, 0) * config.train.batch_size
    return found


def millions(counts: Examples) -> str:
    """Counts in millions, without modalities that were not trained on: one number if all are equal."""
    shown = {m: f"{count / 1e6:.3g}" for m, count in counts.items() if count}
    if len(set(counts.values())) == 1:
        return next(iter(shown.values()), "0")
    return ", ".join(f"{m} {text}" for m, text in shown.items())


class Cost(NamedTuple):
    """What a model of a comparison took, teachers included."""
    trials: Examples
    runs: Examples
    seconds: float      # of the wall clock, while its trials and runs were made


def write_csv(choices: Sequence[Choice], path: pathlib.Path) -> None:
    """A row for each trial: the method, its options, the seed's number and the score, empty if it diverged."""
    metric = choices[0].metric
    rows = [{"method": choice.name, **setting, "trial": i, metric: score}
            for choice in choices for setting, scores in zip(choice.settings, choice.scores)
            for i, score in enumerate(scores)]
    files.write(path, csv_text(rows, ["method", *choices[0].settings[0], "trial", metric]))


def section(choices: Sequence[Choice], costs: Sequence[Cost], seeds: int, capacity: int = 0) -> str:
    """The part of a report that says how options were chosen, by how many trials, and at which cost.

    Args:
      choices: by model.
      costs: by model, of all sizes of its memory that have its options.
      seeds: runs of each.
      capacity: the only size of the memory that options were chosen with; 0: each for itself.
    """
    settings, metric, tried = choices[0].settings, choices[0].metric, len(choices[0].scores[0])
    labels = list(map(label, settings))
    rows = [{"method": choice.name, **{text: mean(choice, i) for i, text in enumerate(labels)},
             "chosen": choice.chosen + " *" * bool(edges(choice)), "trials, M examples": millions(cost.trials),
             "runs, M examples": millions(cost.runs), "seconds": f"{cost.seconds:.0f}"}
            for choice, cost in zip(choices, costs)]
    options = " and ".join(f"`{path}`" for path in settings[0])
    edge = ("\n\\* At the end of the values that were tried: others beyond it may be better.\n"
            if any(map(edges, choices)) else "")
    each = f"{len(settings)} settings of {options}" + (f", {tried} seeds each" if tried > 1 else ", one seed each")
    sizes = (f"Options were chosen with a memory of {capacity} examples, and those of other sizes have them too.\n"
             if capacity else "")
    return f"""
## How options were chosen

Every method had the same trials: {each}.
Its setting is the one of the best {units.unit(metric).title} of its main head on validation data. With it the
runs above were made, {seeds} of each. Trials do not see test data, which are used once. Teachers have the options
of their student, and count as its cost.
{sizes}Examples are those of forward and backward passes, in millions and for
each modality; seconds are those of this machine.

Validation {units.unit(metric).title} by setting, {units.explain(metric)}:

{markdown(rows, ["method", *labels, "chosen", "trials, M examples", "runs, M examples", "seconds"])}{edge}
All trials are in `tuning.csv`.
"""
