"""Options chosen on validation data, with the same number of trials for every method."""
import contextlib
import itertools
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxmm import escape, files
from jaxmm.config import Config, replace
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError
from jaxmm.experiments.planning import Planned
from jaxmm.report import continual, units, variants
from jaxmm.report import tuning as report
from jaxmm.report.variants import Variant
from jaxmm.train.folder import as_noted
from jaxmm.train.opened import check_start
from jaxmm.train.options import MOST
from jaxmm.train.schedule import train_many
from jaxmm.train.scores import main_head
from jaxmm.train.setup import build

FOLDER = "tuning"                # within that of a comparison
CLOCK = f"{FOLDER}/seconds.json"
SECTIONS = ("method", "optimizer", "train")
OF_RUNS = ("train.seed", "train.seeds")     # what tells runs apart, and not settings


def parse(text: str) -> list[dict[str, str]]:
    """All settings that OPTION=VALUE,VALUE;OPTION=VALUE,VALUE names: texts of the values by option.

    Raises:
      UserError: another form, an option twice, a value twice, or too many settings.
    """
    flag, values = f"--tune={text}", {}
    for part in text.split(";"):
        option, _, found = part.strip().partition("=")
        listed = [value.strip() for value in found.split(",")]
        if not option or not all(listed):
            raise UserError(f"{flag}; expected OPTION=VALUE,VALUE, several divided by ; as in "
                            '"optimizer.learning_rate=0.01,0.1;optimizer.weight_decay=0,1e-4"')
        if option in values or len(set(listed)) < len(listed):
            raise UserError(f"{flag}: {option} or one of its values is there twice; name each once")
        if option.partition(".")[0] not in SECTIONS or option in OF_RUNS:
            raise UserError(f"{flag}: {option!r} cannot be tuned; expected an option of "
                            f"{', '.join(SECTIONS)}, but not {' or '.join(OF_RUNS)}")
        values[option] = listed
    settings = [dict(zip(values, each)) for each in itertools.product(*values.values())]
    if len(settings) > MOST["seeds"]:
        raise UserError(f"{flag} has {len(settings)} settings; expected at most {MOST['seeds']}")
    return settings


def typed(config: Config, setting: Mapping[str, str]) -> dict[str, Any]:
    """The values of a setting by the types of the config's options.

    Raises:
      UserError: the config has no such option, or a text is no value of it.
    """
    config, values = replace(config, {}), {}
    for path, text in setting.items():
        section, _, option = path.partition(".")
        variants.set_option(getattr(config, section), option, text, "--tune")
        values[path] = getattr(getattr(config, section), option)
    return values


def plan(models: Sequence[Variant], settings: Sequence[Mapping[str, str]], seeds: int, dataset: Dataset,
         workdir: pathlib.Path) -> list[list[Planned]]:
    """The trials of every model, all of them checked; their settings vary slower than seeds.

    Teachers of a trial have its options; for options of the method alone trials share them.

    Raises:
      UserError: an error in one of the runs.
    """
    if not 1 <= seeds <= MOST["seeds"]:
        raise UserError(f"--tune_seeds={seeds}; expected 1 to {MOST['seeds']}")
    trials = []
    for model in models:
        folder, planned = workdir / FOLDER / model.folder, []
        for setting, i in itertools.product(settings, range(seeds)):
            start = model.config.train.seed, model.config.stream.seed
            config = replace(model.config, typed(model.config, setting) | {
                "train.seed": start[0] + i, "stream.seed": start[1] + i})
            name = "_".join(f"{path.rpartition('.')[2]}_{text}" for path, text in setting.items())
            run = folder / name.replace("/", "%2F") / f"seed_{config.train.seed}"
            setup = build(as_noted(config, run), dataset=dataset)
            own = all(path.startswith("method.") for path in setting)
            planned.append(Planned(model, setup.config, config.train.seed, setup.stream, run,
                                   f"{folder}/teachers/{{teacher}}/seed_{{seed}}" * own))
            check_start(setup, run)
        trials.append(planned)
    return trials


@contextlib.contextmanager
def timed(folder: pathlib.Path, name: str) -> Iterator[None]:
    """Counts the seconds of what is done within for a model of a comparison, unless an error ends it."""
    start = time.monotonic()
    yield
    spent = seconds(folder)
    spent[name] = round(spent.get(name, 0.0) + time.monotonic() - start, 3)
    files.write(folder / CLOCK, json.dumps(spent, indent=1) + "\n")


def seconds(folder: pathlib.Path) -> dict[str, float]:
    """Those that each model of a comparison took so far, over all commands that worked on it.

    Raises:
      UserError: the file that keeps them is damaged.
    """
    path = folder / CLOCK
    try:
        return files.parse_json(files.read(path)) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path}: {error}; remove it, and seconds are counted from now on") from error


def choose(trials: Sequence[Planned], settings: Sequence[Mapping[str, str]], dataset: Dataset,
           progress: bool = True) -> report.Choice:
    """Trains the trials of a model; its setting is the one of the best mean over seeds.

    What counts is the headline of the main head on validation data. Settings with a run that diverged are
    left out; of equal ones the first counts.
    """
    model, size = trials[0].variant, len(trials) // len(settings)
    kind, metric = model.config.stream.kind, continual.headline(
        model.config.stream.kind, units.task_of(dataset, model.config.task))
    runs = train_many([run.config for run in trials], [run.workdir for run in trials], dataset=dataset,
                      progress=progress, teachers=[run.teachers for run in trials])
    values = [None if isinstance(run, FloatingPointError) else _validation(run.history, kind, metric)
              for run in runs]
    found = [tuple(values[i:i + size]) for i in range(0, len(values), size)]
    means = {i: sum(scores) / size for i, scores in enumerate(found) if None not in scores}
    choice = report.Choice(model, settings, found, units.best(metric, means), metric)
    print(f"{escape.printable(model.folder)}: {report.line(choice)}", flush=True)
    return choice


def _validation(history: Sequence[Mapping[str, Any]], kind: str, metric: str) -> float:
    scores = continual.headlines(history, "val", kind, metric)
    return scores[main_head(scores)]
