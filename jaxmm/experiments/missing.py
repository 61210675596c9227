"""Several methods over the rates at which modalities are missing, compared."""
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmm import data
from jaxmm.config import Config, replace
from jaxmm.data import missing
from jaxmm.errors import UserError, check_choice
from jaxmm.experiments import configs, folders
from jaxmm.experiments.compare import finish_over, make_over, methods_of
from jaxmm.experiments.configs import Chosen
from jaxmm.report import plots, published
from jaxmm.report import missing as report
from jaxmm.train.options import MOST, check_counts


def compare(chosen: Chosen, methods: Sequence[str] | None, rates: Sequence[str], modality: str, seeds: int,
            workdir: str, command: str, page: plots.Page | None = None) -> str:
    """Trains all runs of a comparison over rates and writes its report into the folder; returns the table.

    The data are loaded once; the masks of a rate are the same for all methods and seeds.

    Args:
      chosen: the config; `data.missing_scheme` is that of the masks.
      methods: METHOD, METHOD:MODALITY, METHOD+OPTION=VALUE; None: those that the config's file names.
      rates: numbers in [0, 1) as typed.
      modality: that alone is missing, and only in training; "": all, in all splits.
      seeds: runs of each.
      workdir: the folder, "": one under runs/.
      command: what makes the report again.
      page: of paper, to draw the plot for it too.

    Raises:
      UserError: whatever would stop one of the runs.
      FloatingPointError: all diverged.
    """
    config = chosen.config
    values = parse_rates(rates)
    check_counts(config)
    check(chosen, modality)
    modality = modality or config.data.missing_modality
    mask = report.Mask(config.data.missing_scheme, modality, config.data.seed)
    name = "_".join(filter(None, ["compare", folders.data_name(config), "missing", modality,
                                  mask.scheme if mask.scheme != missing.SCHEMES[0] else ""]))
    folder = folders.workdir(workdir, name)
    dataset = data.load(dataclasses.replace(config.data, missing_rate=0.0, missing_modality=""))
    if modality:
        check_choice("--missing_modality", modality, dataset.modalities)
    options = {rate: {"data.missing_rate": rate, "data.missing_modality": modality} for rate in values}
    masked = {rate: missing.mask(dataset, replace(config, options[rate]).data) for rate in values}

    def config_for(rate: float, method: str) -> Config:
        return replace(configs.config_for(chosen, method), options[rate])

    runs, results = make_over(masked, config_for, methods_of(chosen, methods), seeds, folder,
                              lambda rate: f"missing_{report.name(rate)}")
    known = {rate: published.find([run.variant for run in part], masked[rate])["accuracy"]
             for rate, part in runs.items()}
    table = report.write(results, masked, mask, folder, command, known, page, config.task)
    return finish_over(table, folder, runs, results)


def parse_rates(values: Sequence[str]) -> list[float]:
    """The rates named by --missing_rates, in ascending order.

    Raises:
      UserError: one is no number in [0, 1), or is there twice, or there are none or too many.
    """
    text = f"--missing_rates={','.join(values)}"
    try:
        rates = sorted(map(float, values))
    except ValueError as error:
        raise UserError(f"{text}; expected numbers, as in 0.1,0.3,0.5") from error
    if not rates:
        raise UserError("--missing_rates is empty; expected numbers, as in 0.1,0.3,0.5")
    for rate in rates:
        if not 0 <= rate < 1:
            raise UserError(f"{text}: {rate:g} is not in [0, 1); one modality of each example is kept")
    if twice := {a for a, b in itertools.pairwise(rates) if report.name(a) == report.name(b)}:
        raise UserError(f"{text} has {min(twice):g} twice; name each rate once")
    if len(rates) > MOST["seeds"]:
        raise UserError(f"--missing_rates has {len(rates)} values; expected at most {MOST['seeds']}")
    return rates


def check(chosen: Chosen, modality: str) -> None:
    """Raises UserError for options of the config that rates do not combine with."""
    both = {"data.missing_rate": "--missing_rates"}
    if modality:
        both["data.missing_modality"] = "--missing_modality"
    for option, other in both.items():
        if option in chosen.overrides:
            raise UserError(f"{other} sets {option}; leave out --config.{option}")
    config = chosen.config
    for option, value in (("stream.kind", config.stream.kind), ("data.folds", config.data.folds)):
        if value:
            raise UserError(f"--missing_rates does not go with {option}={value}; leave it out")


def check_alone(others: Mapping[str, Any], rates: Sequence[str], modality: str) -> None:
    """Raises UserError for a modality without rates, and for other options of `compare`, here by name, that
    do not go with rates."""
    if modality and not rates:
        raise UserError(f"--missing_modality={modality} needs --missing_rates, such as 0,0.3,0.6,0.9")
    for option, value in others.items():
        if value:
            raise UserError(f"--missing_rates does not go with --{option}; leave it out")
