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
trained models use runs of the same comparison, which are trained first if they are not there: those
that take weights over (`ume`, `finetune`, ...) of their own seed, those that imitate (`umt`,
`self_distill_...`) of their seed + 1000, as a student must not start where its teacher did.

Every run has a folder of its own, WORKDIR/METHOD/seed_N; the same command again resumes what was
cut short and reuses what is finished, so methods and seeds can be added later. WORKDIR gets the
tables as Markdown and CSV, and plots.
"""
import itertools
import sys
import time
from collections.abc import Iterator, Sequence

from absl import flags

from jaxmm import data, escape
from jaxmm.data.dataset import Dataset
from jaxmm.data.streams import make_stream
from jaxmm.errors import UserError

from jaxmm.report import comparison, published
from jaxmm.report.analysis import probe_run
from jaxmm.train.loop import train_many
from jaxmm.train.setup import Run, check_counts
from launch import app
from launch.planning import Planned, plan_runs
from launch.series import check_any_finished

METHODS = flags.DEFINE_list("methods", None, "Methods to compare: METHOD, METHOD:MODALITY, "
                            "METHOD+OPTION=VALUE; by default METHODS of the config file, or "
                            "unimodal,concat,late,mla.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each, with the seeds config.train.seed + 0, 1...")
PROBE = flags.DEFINE_bool("probe", False, "Also fit a linear probe to the features of every encoder.")
CAPACITIES = flags.DEFINE_list("capacities", "", "Sizes of the memory of methods that have one.")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder; runs/compare_DATA by default.")
app.define_config("Config file; the methods come from --methods.")


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
    check_any_finished([not result.diverged for result in results], workdir)
    values = published.find([run.variant for run in runs], dataset)
    if config.stream.kind:
        dataset, _ = make_stream(config.stream, dataset)
    command = escape.command(["python", "-m", "launch.compare", *sys.argv[1:]])
    print("\n" + comparison.write(results, dataset, workdir, command, config.stream.kind, values))
    print(f"{escape.printable(workdir / 'report.md')} shows it with the plots.")


def parse_capacities(values: Sequence[str]) -> list[int]:
    """Sizes named by --capacities."""
    if not all(value.strip().isdecimal() for value in values):
        raise UserError(f"--capacities={','.join(values)}; expected numbers of examples, such as "
                        "100,200")
    return [int(value) for value in values]


def make_runs(runs: Sequence[Planned], dataset: Dataset, *, probe: bool = False,
              progress: bool = True) -> Iterator[comparison.Result]:
    """Trains, resumes or reuses every run, and says the test scores of each when it is done.

    One that diverges is marked, and the others go on.
    With `probe` the scores of a modality get the accuracy of a linear probe of its encoder.
    """
    start = time.perf_counter()
    for i, (run, trained) in enumerate(_train_all(runs, dataset, progress)):
        if isinstance(trained, FloatingPointError):
            print(f"[{i + 1}/{len(runs)}] diverged: {trained}", flush=True)
            yield comparison.read_result(run.variant, run.config.train.seed, None)
            start = time.perf_counter()
            continue
        result = comparison.read_result(run.variant, run.config.train.seed, trained.history,
                                        trained.changed)
        if probe:
            result = comparison.with_probes(result, probe_run(trained))
        scores = comparison.shown(result, dataset, run.config.stream.kind)
        print(f"[{i + 1}/{len(runs)}] {escape.printable(run.workdir)}: {scores} "
              f"({time.perf_counter() - start:.0f} s)", flush=True)
        yield result
        start = time.perf_counter()


def _train_all(runs, dataset, progress) -> Iterator[tuple[Planned, Run | FloatingPointError]]:
    """The runs as they are done; the seeds of a model at once where one program can."""
    for _, seeds in itertools.groupby(runs, key=lambda run: run.variant.folder):
        seeds = list(seeds)
        trained = train_many([run.config for run in seeds], [run.workdir for run in seeds],
                             dataset=dataset, progress=progress,
                             teachers=[run.teachers for run in seeds])
        yield from zip(seeds, trained)


if __name__ == "__main__":
    app.run(main)
