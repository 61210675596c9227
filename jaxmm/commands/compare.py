r"""Trains several methods over several seeds and compares their heads, as table 1 of MLA does.

    jaxmm compare
    jaxmm compare --config=av_digits --methods=unimodal,concat,mla --seeds=3
    jaxmm compare --config=arrays --config.data.path=FILE.npz

and on a stream of tasks, as the main table of SAMM does:

    jaxmm compare --config=seq_av_digits --methods=joint,sgd,er,samm \
        --seeds=3 --capacities=100,200

and, on data without a test split (an .npz file with train/... alone, or a table without the column split), over
the folds of a cross-validation, in which every row is tested once:

    jaxmm compare --config=arrays --config.data.path=FILE.npz --folds=5

and with modalities missing, as table 2 of MLA does; or one of them, in training alone, as its figure 2 does:

    jaxmm compare --config=iemocap_features --methods=late,qmf,mla --seeds=3 \
        --missing_rates=0.1,0.3,0.5,0.7
    jaxmm compare --config=iemocap_features --methods=mla --missing_modality=audio \
        --missing_rates=0,0.3,0.6,0.9

and over the values of any one option, with a plot of the scores or, on a stream, of stability against plasticity:

    jaxmm compare --config=seq_av_digits --methods=er:audio,er,samm --seeds=3 \
        --vary=data.audio_rate=1000,2000,4000,8000

and with the options of every method chosen on validation data by the same number of trials, as a fair
comparison has it, with differences to one of the methods:

    jaxmm compare --methods=concat,late,mla --seeds=5 --baseline=concat \
        --tune="optimizer.learning_rate=0.02,0.05,0.1"

A method may be of some modalities alone and have options of its own: `er:audio`, `mla:audio&text`, `unimodal:audio`,
`samm+consistency=false`, `mla+projection=none+alpha=0.5`. `unimodal` trains one model for each
modality, `joint` is `sgd` on all tasks of a stream at once, `gdumb` the same on as many examples as a
memory has, all classes alike, and --capacities goes to the methods that have a memory.

Seed i of a comparison adds i to config.train.seed and, on a stream, to config.stream.seed: the order
of the tasks varies too, as in SAMM. Methods that start from trained models use runs of the same
comparison, which are trained first if needed. Those that take over weights (`ume`, `finetune`, ...)
use runs with their own seed; those that imitate (`umt`, `self_distill_...`) use runs with their
seed + 1000, as a student must not share its teacher's initial weights.

Every run has its own folder, WORKDIR/METHOD/seed_N, or WORKDIR/METHOD/missing_RATE/seed_N or
WORKDIR/METHOD/OPTION_VALUE/seed_N. The same command
resumes unfinished runs and reuses finished ones, so methods, seeds and rates can be added later. WORKDIR gets
the tables as Markdown and CSV, and plots.
"""
from absl import flags

FLAGS = flags.FlagValues()
METHODS = flags.DEFINE_list("methods", None, "Methods to compare: METHOD, METHOD:MODALITY&MODALITY, "
                            "METHOD+OPTION=VALUE; by default METHODS of the config file, or "
                            "unimodal,concat,late,mla.", flag_values=FLAGS)
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each, with the seeds config.train.seed + 0, 1...",
    flag_values=FLAGS)
FOLDS = flags.DEFINE_integer("folds", 0, "Cross-validation: divide data without a test split into so many "
    "parts, each of which is tested once; they take the place of seeds.", flag_values=FLAGS)
MISSING_RATES = flags.DEFINE_list("missing_rates", "", "Rates of missing modalities in [0, 1), with runs for "
    "each; config.data.missing_scheme says how they are meant.", flag_values=FLAGS)
MISSING_MODALITY = flags.DEFINE_string("missing_modality", "", "With --missing_rates: only this modality is "
    "missing, and only in training.", flag_values=FLAGS)
VARY = flags.DEFINE_string("vary", "", "One option over several values, with runs for each: OPTION=VALUE,VALUE.",
    flag_values=FLAGS)
TUNE = flags.DEFINE_string("tune", "", "Options to be chosen for each method on validation data: "
    "OPTION=VALUE,VALUE, several divided by ; of which all combinations are tried.", flag_values=FLAGS)
TUNE_SEEDS = flags.DEFINE_integer("tune_seeds", 1, "Trials of each setting of --tune.", flag_values=FLAGS)
TUNE_CAPACITY = flags.DEFINE_integer("tune_capacity", 0, "The one of --capacities that --tune chooses with, for "
    "all of them; otherwise each for itself.", flag_values=FLAGS)
BASELINE = flags.DEFINE_string("baseline", "", "Method that the others' differences are taken to, seed by seed.",
    flag_values=FLAGS)
PROBE = flags.DEFINE_bool("probe", False, "Also fit a linear probe to the features of every encoder.",
    flag_values=FLAGS)
CAPACITIES = flags.DEFINE_list("capacities", "", "Sizes of the memory of methods that have one.",
    flag_values=FLAGS)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder; runs/compare_DATA by default.", flag_values=FLAGS)
FIGURES = flags.DEFINE_string("figures", "", "Also draw figures for paper into WORKDIR/figures: pdf, svg, png.",
                              flag_values=FLAGS)
WIDTH = flags.DEFINE_string("width", "column", "Of these figures: column, or page.", flag_values=FLAGS)
CONFIG = "Config file; the methods come from --methods."


def main(chosen, command) -> None:
    from jaxmm.experiments import compare, missing, vary
    from jaxmm.report.plots import parse_page
    page = parse_page(FIGURES.value, WIDTH.value)
    others = {"folds": FOLDS.value, "probe": PROBE.value, "capacities": CAPACITIES.value, "tune": TUNE.value,
              "baseline": BASELINE.value}
    if VARY.value:
        vary.check_alone(others | {"missing_rates": MISSING_RATES.value, "missing_modality": MISSING_MODALITY.value})
        print(vary.compare(chosen, METHODS.value, VARY.value, SEEDS.value, WORKDIR.value, command, page))
        return
    if FLAGS["missing_rates"].present or MISSING_MODALITY.value:
        missing.check_alone(others, MISSING_RATES.value, MISSING_MODALITY.value)
        print(missing.compare(chosen, METHODS.value, MISSING_RATES.value, MISSING_MODALITY.value, SEEDS.value,
                              WORKDIR.value, command, page))
        return
    print(compare.compare(chosen, METHODS.value, SEEDS.value, WORKDIR.value, CAPACITIES.value, PROBE.value,
                          command, page, FOLDS.value, TUNE.value, TUNE_SEEDS.value, TUNE_CAPACITY.value,
                          BASELINE.value))
