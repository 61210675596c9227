"""Which runs a comparison makes, and where."""
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxmm.config import Config, replace
from jaxmm.data.dataset import Dataset
from jaxmm.data.streams import Stream
from jaxmm.errors import UserError
from jaxmm.report import variants
from jaxmm.train.opened import check_start
from jaxmm.train.folder import as_noted, claim_folder
from jaxmm.train.options import MOST
from jaxmm.train.setup import build


class Planned(NamedTuple):
    """A run to be made."""
    variant: variants.Variant
    config: Config              # of the variant, with the seed or fold of the run
    repeat: int                 # the seed, or the fold
    stream: Stream | None
    workdir: pathlib.Path
    teachers: str               # folders of the models that it starts from, by {teacher} and {seed}; "": its own


def plan_runs(config_for: Callable[[str], Config], methods: Sequence[str], seeds: int,
              dataset: Dataset, workdir: pathlib.Path, capacities: Sequence[int] = ()) -> list[Planned]:
    """All runs of a comparison, checked, with their folders claimed; for the arguments see `plan`.

    Raises:
      UserError: an error in one of the runs.
    """
    runs = plan(config_for, methods, seeds, dataset, workdir, capacities)
    claim(runs)
    return runs


def plan(config_for: Callable[[str], Config], methods: Sequence[str], seeds: int, dataset: Dataset,
         workdir: pathlib.Path, capacities: Sequence[int] = (), fold: int | None = None,
         part: str = "", tuned: Mapping[str, Mapping[str, Any]] | None = None) -> list[Planned]:
    """All runs of a comparison, checked; nothing is written.

    Args:
      config_for: the config of a method.
      methods: see `variants`.
      seeds: runs of each.
      dataset: to learn from.
      workdir: the folder of the comparison.
      capacities: sizes of the memory.
      fold: of a cross-validation, which `dataset` then is; every run is made once then.
      part: folder, within that of a method, that the runs are in; "": none.
      tuned: options of each method, by its folder. Teachers then have those of their student, as with recipes,
        and lie in its folder; otherwise methods share them.

    Raises:
      UserError: an error in one of the runs.
    """
    if not 1 <= seeds <= MOST["seeds"]:
        raise UserError(f"--seeds={seeds}; expected 1 to {MOST['seeds']}")
    runs = []
    for variant in variants.expand(methods, config_for, capacities, dataset.modalities):
        for i in range(seeds):
            config = replace(variant.config, (tuned or {}).get(variant.folder, {}))
            config.train.seed += i
            config.stream.seed += i
            if fold is not None:
                config.data.fold, part = fold, f"fold_{fold}"
            folder = workdir / variant.folder / part / f"seed_{config.train.seed}"
            setup = build(as_noted(config, folder), dataset=dataset)    # finds what does not fit
            config = setup.config       # with what its files of weights say
            repeat = config.train.seed if fold is None else fold
            within = f"{part}/" * bool(part)
            teachers = "" if tuned or variant.recipe else f"{workdir}/{{teacher}}/{within}seed_{{seed}}"
            runs.append(Planned(variant, config, repeat, setup.stream, folder, teachers))
            check_start(setup, folder)
    return runs


def claim(runs: Iterable[Planned]) -> None:
    """Makes the folders of planned runs, or checks that they are theirs."""
    # Existing folders are checked first: one may belong to another config, and then nothing is made.
    for run in sorted(runs, key=lambda run: not run.workdir.exists()):
        with claim_folder(run.workdir, run.config):
            pass
