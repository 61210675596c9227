r"""Trains several methods over several seeds and compares their heads, as table 1 of MLA does.

    python -m launch.compare
    python -m launch.compare --config=configs/av_digits.py --methods=unimodal,concat,mla --seeds=3
    python -m launch.compare --config=configs/arrays.py --config.data.path=FILE.npz

and on a stream of tasks, as the main table of SAMM does:

    python -m launch.compare --config=configs/seq_av_digits.py --methods=joint,sgd,er,samm \
        --seeds=3 --capacities=100,200

A method may be of one modality alone and have options of its own: `er:audio`, `unimodal:audio`,
`samm+consistency=false`, `mla+projection=none+alpha=0.5`. `unimodal` trains one model for each
modality, `joint` is `sgd` on all tasks of a stream at once, and --capacities goes to the methods
that have a memory.

Seed i of a comparison adds i to config.train.seed and, on a stream, to config.stream.seed: the
order in which tasks come is one of the things that vary, as in SAMM. Methods that start from
trained models (`umt`, `ume`, `finetune`, ...) use those of the same comparison and seed, which are
trained first if they are not there.

Every run has a folder of its own, WORKDIR/METHOD/seed_N; the same command again resumes what was
cut short and reuses what is finished, so methods and seeds can be added later. WORKDIR gets the
tables as Markdown and CSV, and plots.
"""
import copy
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from absl import flags

from jaxmm import data
from jaxmm.config import Config
from jaxmm.data.dataset import Dataset
from jaxmm.data.streams import Stream, make_stream
from jaxmm.errors import UserError

from jaxmm.report import comparison, continual, published, variants
from jaxmm.report.analysis import probe_run
from jaxmm.report.tables import percent, sort_heads
from jaxmm.train.loop import train
from jaxmm.train.runs import claim_folder
from jaxmm.train.setup import build, check_counts
from launch import app

METHODS = flags.DEFINE_list("methods", None, "Methods to compare: METHOD, METHOD:MODALITY, "
                            "METHOD+OPTION=VALUE; by default METHODS of the config file, or "
                            "unimodal,concat,late,mla.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each, with the seeds config.train.seed + 0, 1...")
PROBE = flags.DEFINE_bool("probe", False, "Also fit a linear probe to the features of every encoder.")
CAPACITIES = flags.DEFINE_list("capacities", "", "Sizes of the memory of methods that have one.")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder; runs/compare_DATA by default.")
app.define_config("Config file; the methods come from --methods.")


class Planned(NamedTuple):
    """A run to be made."""
    variant: variants.Variant
    config: Config              # of the variant, with the seed of the run
    stream: Stream | None
    workdir: pathlib.Path
    teachers: str               # folders of the models that it starts from, by {teacher}


def main() -> None:
    config = flags.FLAGS.config
    workdir = app.workdir_flag(WORKDIR.value, f"compare_{app.data_name(config)}")
    check_counts(config)
    dataset = data.load(config.data)
    methods = METHODS.value
    if methods is None:
        methods = app.default_methods() or ["unimodal", "concat", "late", "mla"]
    runs = plan_runs(app.config_for, methods, SEEDS.value, dataset, workdir,
                     parse_capacities(CAPACITIES.value))
    results = list(make_runs(runs, dataset, probe=PROBE.value))
    values = published.find([run.variant for run in runs], dataset)
    if config.stream.kind:
        dataset, _ = make_stream(config.stream, dataset)
    command = shlex.join(["python", "-m", "launch.compare", *sys.argv[1:]])
    print("\n" + comparison.write(results, dataset, workdir, command, config.stream.kind, values))
    print(f"{workdir / 'report.md'} shows it with the plots.")


def parse_capacities(values: Sequence[str]) -> list[int]:
    """Sizes named by --capacities."""
    if not all(value.strip().isdecimal() for value in values):
        raise UserError(f"--capacities={','.join(values)}; expected numbers of examples, such as "
                        "100,200")
    return [int(value) for value in values]


def plan_runs(config_for: Callable[[str], Config], methods: Sequence[str], seeds: int,
              dataset: Dataset, workdir: pathlib.Path,
              capacities: Sequence[int] = ()) -> list[Planned]:
    """All runs, found fit to be made, with their folders claimed.

    Raises:
      UserError: whatever would stop one of the runs.
    """
    if seeds < 1:
        raise UserError(f"--seeds={seeds}; expected at least 1")
    runs = []
    for variant in variants.expand(methods, config_for, capacities, dataset.modalities):
        for i in range(seeds):
            config = copy.deepcopy(variant.config)
            config.train.seed += i
            config.stream.seed += i
            setup = build(config, dataset=dataset)      # finds what does not fit
            folder = f"seed_{config.train.seed}"
            runs.append(Planned(variant, config, setup.stream, workdir / variant.folder / folder,
                                f"{workdir}/{{teacher}}/{folder}"))
    # What is there already comes first: it may belong to another config, and nothing is made then.
    for run in sorted(runs, key=lambda run: not run.workdir.exists()):
        with claim_folder(run.workdir, run.config):
            pass
    return runs


def make_runs(runs: Sequence[Planned], dataset: Dataset, *, probe: bool = False,
              progress: bool = True) -> Iterator[comparison.Result]:
    """Trains, resumes or reuses every run, and says the test accuracies of each when it is done.

    With `probe` the scores of a modality get the accuracy of a linear probe of its encoder.
    """
    for i, run in enumerate(runs):
        start = time.perf_counter()
        trained = train(run.config, run.workdir, dataset=dataset, progress=progress,
                        teachers=run.teachers)
        result = comparison.read_result(run.variant, run.config.train.seed, trained.history)
        if probe:
            result = comparison.with_probes(result, probe_run(trained))
        metric = continual.headline(run.config.stream.kind) if run.stream else "accuracy"
        accuracies = ", ".join(f"{head} {percent(result.scores[head][metric])}"
                               for head in sort_heads(result.scores, dataset.modalities))
        print(f"[{i + 1}/{len(runs)}] {run.workdir}: {accuracies} "
              f"({time.perf_counter() - start:.0f} s)", flush=True)
        yield result


if __name__ == "__main__":
    app.run(main)
