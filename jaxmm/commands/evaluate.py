r"""Evaluates a trained model: on any split, with modalities missing or noisy. Changes no file.

    python -m launch.evaluate --workdir=runs/av_digits_mla
    python -m launch.evaluate --workdir=runs/av_digits_mla --drop=audio
    python -m launch.evaluate --workdir=runs/av_digits_mla --noise=audio:0.5,visual:1 --split=val
    python -m launch.evaluate --workdir=runs/mine --data=MOVED.npz --predictions=test.csv

Without options it evaluates what `python -m launch.train` leaves. Of a run on a stream of tasks it
also says the accuracy over the tasks of val or test.

Or it analyses the model, and writes what it finds as `analysis.md` with plots into the run folder:

    python -m launch.evaluate --workdir=runs/av_digits_mla --probe --gap --per_class --robustness \
        --reference=runs/av_digits_audio,runs/av_digits_visual

--probe says what a linear classifier reads from every encoder, along the checkpoints there are;
--gap how far apart the features of the modalities lie; --per_class on which classes fusion beats
the sum of the modalities; --robustness how accuracy falls with noise and missing modalities;
--utilization how much encoders that exchange what they see (`mmtm` and its like) use it. Runs
named by --reference are compared with: models of one modality each (of the method `unimodal`), and
in --per_class any other method.
"""
from absl import flags

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder; that of launch.train by default.",
    flag_values=FLAGS)
DATA = flags.DEFINE_string("data", "", "Where its data lie now; by default where they lay then.",
    flag_values=FLAGS)
STEP = flags.DEFINE_integer("step", None, "Checkpoint to use; the last by default.", flag_values=FLAGS)
SPLIT = flags.DEFINE_string("split", "test", "train, val or test.", flag_values=FLAGS)
DROP = flags.DEFINE_multi_string("drop", [], "Modalities to leave out: MODALITY,...", flag_values=FLAGS)
NOISE = flags.DEFINE_multi_string(
    "noise", [], "Noise to add, in standard deviations of the training data: MODALITY:SIGMA,...",
    flag_values=FLAGS)
PREDICTIONS = flags.DEFINE_string(
    "predictions", "", "File for the prediction of every example, .csv or .npz; see launch.predict.",
    flag_values=FLAGS)

ANALYSES = {
    "probe": flags.DEFINE_bool("probe", False, "Analyse what each encoder's features tell.", flag_values=FLAGS),
    "gap": flags.DEFINE_bool("gap", False, "Analyse how far apart modalities' features lie.", flag_values=FLAGS),
    "per_class": flags.DEFINE_bool("per_class", False, "Analyse the accuracy by class.", flag_values=FLAGS),
    "robustness": flags.DEFINE_bool("robustness", False, "Analyse noise and missing modalities.", flag_values=FLAGS),
    "utilization": flags.DEFINE_bool("utilization", False, "Analyse what encoders tell each other.",
                                     flag_values=FLAGS),
}
REFERENCE = flags.DEFINE_list("reference", [], "Run folders to compare the analyses with.", flag_values=FLAGS)

DEFAULT = "av_digits_mla"


def main() -> None:
    from jaxmm import escape
    from jaxmm.errors import UserError
    from jaxmm.experiments import evaluate, folders
    from jaxmm.report.analysis import FILE
    workdir = folders.workdir(WORKDIR.value, DEFAULT)
    if not WORKDIR.value and not workdir.exists():
        raise UserError(f"{workdir} does not exist; train first: python -m launch.train; "
                        "or name a run folder by --workdir")
    names = [name for name, flag in ANALYSES.items() if flag.value]
    if not names:
        if REFERENCE.value:
            raise UserError("--reference is for analyses; name one, such as --probe")
        print(evaluate.evaluate(workdir, STEP.value, SPLIT.value, DROP.value, NOISE.value, DATA.value,
                                PREDICTIONS.value))
        return
    if DROP.value or NOISE.value:
        raise UserError(f"--drop and --noise do not go with --{names[0]}, which looks at the model "
                        "as it is; --robustness shows both")
    if PREDICTIONS.value:
        raise UserError(f"--predictions does not go with --{names[0]}; ask for them alone")
    print(evaluate.analyse(workdir, STEP.value, SPLIT.value, names, REFERENCE.value, DATA.value))
    print(f"\n{escape.printable(workdir / FILE)} shows it with the plots.")
