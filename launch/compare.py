"""Trains several methods over several seeds and compares their heads, as table 1 of MLA does.

    python -m launch.compare
    python -m launch.compare --config=configs/av_digits.py --methods=unimodal,concat,mla --seeds=3
    python -m launch.compare --config=configs/arrays.py --config.data.path=FILE.npz

Every run has a folder of its own, WORKDIR/METHOD/seed_N; the same command again resumes what was
cut short and reuses what is finished, so methods and seeds can be added later. `unimodal` trains
one model for each modality. WORKDIR gets the table as Markdown, CSV and a plot.
"""
import copy
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
from absl import flags

from jaxmm import data
from jaxmm.config import Config
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError
from jaxmm.report import comparison
from jaxmm.report.run_report import final_scores
from jaxmm.report.tables import percent, sort_heads
from jaxmm.train.loop import build, init_state, train
from jaxmm.train.runs import claim_folder
from launch import app

METHODS = flags.DEFINE_list("methods", "unimodal,concat,late,mla", "Methods to compare.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each, with the seeds config.train.seed + 0, 1...")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder; runs/compare_DATA by default.")
app.define_config("Config file; the methods come from --methods.")


class Planned(NamedTuple):
    """A run to be made."""
    method: str
    config: Config
    workdir: pathlib.Path


def main() -> None:
    config = flags.FLAGS.config
    workdir = app.workdir_flag(WORKDIR.value, f"compare_{config.data.name}")
    dataset = data.load(config.data)
    runs = plan_runs(app.config_for, METHODS.value, SEEDS.value, dataset, workdir)
    results = list(make_runs(runs, dataset))
    command = shlex.join(["python", "-m", "launch.compare", *sys.argv[1:]])
    print("\n" + comparison.write(results, dataset, workdir, command))
    print(f"{workdir / 'report.md'} shows it with the plot.")


def plan_runs(config_for: Callable[[str], Config], methods: Sequence[str], seeds: int,
              dataset: Dataset, workdir: pathlib.Path) -> list[Planned]:
    """All runs, found fit to be made, with their folders claimed.

    Raises:
      UserError: whatever would stop one of the runs.
    """
    if seeds < 1:
        raise UserError(f"--seeds={seeds}; expected at least 1")
    runs = []
    for method in dict.fromkeys(methods):
        for name, config in _variants(method, config_for(method), dataset.modalities):
            setup = build(config, dataset=dataset)
            jax.eval_shape(lambda setup=setup: init_state(setup))   # finds shapes that do not fit
            for seed in range(config.train.seed, config.train.seed + seeds):
                config = copy.deepcopy(config)
                config.train.seed = seed
                runs.append(Planned(method, config, workdir / name / f"seed_{seed}"))
    if not runs:
        raise UserError("--methods is empty; name the methods to compare")
    # What is there already comes first: it may belong to another config, and nothing is made then.
    for run in sorted(runs, key=lambda run: not run.workdir.exists()):
        claim_folder(run.workdir, run.config)
    return runs


def _variants(method: str, config: Config,
              modalities: Sequence[str]) -> Iterator[tuple[str, Config]]:
    """(folder name, config) of the runs that make one row of the table."""
    if config.method.name != method:
        raise UserError(f"config.method.name={config.method.name}: "
                        "here --methods names the methods")
    if method != "unimodal":
        yield method, config
        return
    for modality in [config.method.modality] if config.method.modality else modalities:
        config = copy.deepcopy(config)
        config.method.modality = modality
        yield f"{method}_{modality}", config


def make_runs(runs: Sequence[Planned], dataset: Dataset, *,
              progress: bool = True) -> Iterator[comparison.Result]:
    """Trains, resumes or reuses every run, and says the test accuracies of each when it is done."""
    for i, run in enumerate(runs):
        start = time.perf_counter()
        history = train(run.config, run.workdir, dataset=dataset, progress=progress).history
        scores = final_scores(history, "test")
        if run.method == "unimodal":    # nothing is fused, and its runs share a row
            scores = {m: scores[m] for m in dataset.modalities if m in scores}
        accuracies = ", ".join(f"{head} {percent(scores[head]['accuracy'])}"
                               for head in sort_heads(scores, dataset.modalities))
        print(f"[{i + 1}/{len(runs)}] {run.workdir}: {accuracies} "
              f"({time.perf_counter() - start:.0f} s)", flush=True)
        yield comparison.Result(run.method, run.config.train.seed, scores)


if __name__ == "__main__":
    app.run(main)
