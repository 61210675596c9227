r"""Evaluates a trained model: on any split, with modalities missing or noisy. Changes no file.

    jaxmm evaluate --workdir=runs/av_digits_mla
    jaxmm evaluate --workdir=runs/av_digits_mla --drop=audio
    jaxmm evaluate --workdir=runs/av_digits_mla --noise=audio:0.5,visual:1 --split=val
    jaxmm evaluate --workdir=runs/mine --data=MOVED.npz --predictions=test.csv

Without options it evaluates the run of `jaxmm train`. For a run on a stream of tasks it also shows the
accuracy over the tasks of val or test.

Or it analyses the model, and writes the results as `analysis.md` with plots into the run folder:

    jaxmm evaluate --workdir=runs/av_digits_mla --probe --gap --per_class --robustness \
        --reference=runs/av_digits_audio,runs/av_digits_visual

--probe shows what a linear classifier reads from every encoder, at each checkpoint; --gap how far apart
the features of the modalities are; --per_class on which classes fusion beats the sum of the modalities;
--robustness how accuracy falls with noise and missing modalities; --utilization how much encoders that
exchange information (`mmtm` and similar methods) use it; --contribution what each modality gives to the
predictions, and whether they interact. Runs named by --reference are compared with
the model: models of one modality each (method `unimodal`), and for --per_class any other method.
"""
from absl import flags

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder; that of `jaxmm train` by default.", flag_values=FLAGS)
DATA = flags.DEFINE_string(
    "data", "", "Path of its data, if they have moved since training.", flag_values=FLAGS)
STEP = flags.DEFINE_integer("step", None, "Checkpoint to use; the last by default.", flag_values=FLAGS)
SPLIT = flags.DEFINE_string("split", "test", "train, val or test.", flag_values=FLAGS)
DROP = flags.DEFINE_multi_string("drop", [], "Modalities to leave out: MODALITY,...", flag_values=FLAGS)
NOISE = flags.DEFINE_multi_string("noise", [], "Noise to add, in standard deviations of the training data: "
                                  "MODALITY:SIGMA,...", flag_values=FLAGS)
PREDICTIONS = flags.DEFINE_string("predictions", "", "File for the prediction of every example, .csv or "
                                  ".npz; see `jaxmm predict`.", flag_values=FLAGS)
ANALYSES = {name: flags.DEFINE_bool(name, False, f"Analyse {what}.", flag_values=FLAGS) for name, what in {
    "probe": "what each encoder's features tell", "gap": "how far apart modalities' features lie",
    "per_class": "the accuracy by class", "robustness": "noise and missing modalities",
    "utilization": "what encoders tell each other", "contribution": "what each modality gives"}.items()}
BASELINE = flags.DEFINE_string("baseline", "method", "What --contribution puts for an absent modality: what the "
                               "method does without it, zero, the mean feature, or permute, that of other examples.",
                               flag_values=FLAGS)
VALUE = flags.DEFINE_string("value", "correct", "What --contribution divides: correct, prob or nll.",
                            flag_values=FLAGS)
CLUSTERS = flags.DEFINE_integer("clusters", 0, "Clusters of features for the information decomposition of "
                                "--contribution, in place of the readouts' classes.", flag_values=FLAGS)
PERMUTATIONS = flags.DEFINE_integer(
    "permutations", 64, "Orders of the modalities that the Shapley values of --contribution are means over where "
    "there are more than ten, of which exact ones would take too long; even.", flag_values=FLAGS)
REFERENCE = flags.DEFINE_list("reference", [], "Run folders to compare the analyses with.", flag_values=FLAGS)


def main() -> None:
    from jaxmm.experiments import evaluate, folders
    from jaxmm.evaluate.measure import Options
    names = [name for name, flag in ANALYSES.items() if flag.value]
    options = Options(BASELINE.value, VALUE.value, CLUSTERS.value, PERMUTATIONS.value)
    evaluate.check_together(names, [*DROP.value, *NOISE.value], PREDICTIONS.value, REFERENCE.value, options)
    workdir = folders.trained(WORKDIR.value, "av_digits_mla")
    if names:
        print(evaluate.analyse(workdir, STEP.value, SPLIT.value, names, REFERENCE.value, DATA.value, options))
    else:
        print(evaluate.evaluate(workdir, STEP.value, SPLIT.value, DROP.value, NOISE.value, DATA.value,
                                PREDICTIONS.value))
