"""Which runs a comparison makes, and where."""
import copy
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxmm.config import Config
from jaxmm.data.dataset import Dataset
from jaxmm.data.streams import Stream
from jaxmm.errors import UserError
from jaxmm.report import variants
from jaxmm.train.opened import check_start
from jaxmm.train.folder import claim_folder
from jaxmm.train.options import MOST
from jaxmm.train.setup import build


class Planned(NamedTuple):
    """A run to be made."""
    variant: variants.Variant
    config: Config              # of the variant, with the seed or fold of the run
    repeat: int                 # the seed, or the fold
    stream: Stream | None
    workdir: pathlib.Path
    teachers: str               # folders of the models that it starts from, by {teacher} and {seed}


def plan_runs(config_for: Callable[[str], Config], methods: Sequence[str], seeds: int,
              dataset: Dataset, workdir: pathlib.Path,
              capacities: Sequence[int] = (), fold: int | None = None) -> list[Planned]:
    """All runs of a comparison, checked, with their folders claimed.

    Of one `fold` of a cross-validation, which `dataset` then is, every run is made once.

    Raises:
      UserError: an error in one of the runs.
    """
    if not 1 <= seeds <= MOST["seeds"]:
        raise UserError(f"--seeds={seeds}; expected 1 to {MOST['seeds']}")
    runs = []
    for variant in variants.expand(methods, config_for, capacities, dataset.modalities):
        for i in range(seeds):
            config = copy.deepcopy(variant.config)
            config.train.seed += i
            config.stream.seed += i
            part = ""
            if fold is not None:
                config.data.fold, part = fold, f"fold_{fold}/"
            setup = build(config, dataset=dataset)      # finds what does not fit
            repeat = config.train.seed if fold is None else fold
            folder = f"{part}seed_{config.train.seed}"
            runs.append(Planned(variant, config, repeat, setup.stream, workdir / variant.folder / folder,
                                f"{workdir}/{{teacher}}/{part}seed_{{seed}}"))
            check_start(setup, runs[-1].workdir)
    # Existing folders are checked first: one may belong to another config, and then nothing is made.
    for run in sorted(runs, key=lambda run: not run.workdir.exists()):
        with claim_folder(run.workdir, run.config):
            pass
    return runs
