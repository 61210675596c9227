"""Turns a data set as users have it on disk into one that training reads fast.

    jaxmm prepare --dataset=cremad --describe_layout     # which files it needs
    jaxmm prepare --dataset=cremad --source=DIR --output=DIR
    jaxmm prepare --dataset=cremad --variant=speakers --source=DIR --output=DIR
    jaxmm prepare --dataset=vggsound --audio_rate=16000 --short_side=256 --source=DIR --output=DIR
    jaxmm prepare --dataset=table --source=FILE.csv --output=DIR     # your own files

Writes OUTPUT/NAME/VERSION: records that TFDS reads without TensorFlow, `summary.json`, and
`skipped.txt` with every example that was left out and why. The same command resumes a call that was
stopped.
"""
import os

from absl import flags

FLAGS = flags.FlagValues()
DATASET = flags.DEFINE_string("dataset", "", "Name of the data set, such as cremad; any other word shows the names.",
                              flag_values=FLAGS)
SOURCE = flags.DEFINE_string("source", "", "The folder with your files, or the CSV file of --dataset=table; it is "
                             "only read.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "", "The folder of prepared data sets.", flag_values=FLAGS)
VARIANT = flags.DEFINE_string("variant", "", "Another split or selection that the data set has; of a table, how "
                              "labels are taken: classes, labels or numbers.", flag_values=FLAGS)
AUDIO_RATE = flags.DEFINE_integer("audio_rate", 0, "Hz of stored sound; 0: as in the files.", flag_values=FLAGS)
FPS = flags.DEFINE_float("fps", 0, "Frames a second taken from video; 0: the data set's own.", flag_values=FLAGS)
SHORT_SIDE = flags.DEFINE_integer("short_side", 0, "Shrink frames to this shorter side in pixels; 0: keep them.",
                                  flag_values=FLAGS)
SPECTROGRAMS = flags.DEFINE_string("spectrograms_of", "", "Config file: store the spectrograms that it asks for, "
                                   "not sound.", flag_values=FLAGS)
ALLOW_MISSING = flags.DEFINE_bool("allow_missing", False, "Keep examples that lack some of the modalities.",
                                  flag_values=FLAGS)
ALLOW_BROKEN = flags.DEFINE_bool("allow_broken", False, "Continue with more than 5% of broken files.",
                                 flag_values=FLAGS)
ALLOW_SKIPPED = flags.DEFINE_float("allow_skipped", 0.05, "Share of the examples that may be left out because files "
                                   "are not there, listed twice, without a known label, and so on.",
                                   flag_values=FLAGS)
WORKERS = flags.DEFINE_integer("workers", 0, "Processes that decode; 0: one for each core.", flag_values=FLAGS)
DESCRIBE = flags.DEFINE_bool("describe_layout", False, "Show which files the data set needs, and do nothing else.",
                             flag_values=FLAGS)
PROGRESS = flags.DEFINE_bool("progress", True, "Show a bar.", flag_values=FLAGS)


def main() -> None:
    from jaxmm.errors import UserError
    from jaxmm.experiments import prepare
    if DESCRIBE.value:
        print(prepare.describe_layout(DATASET.value))
        return
    for flag in (DATASET, SOURCE, OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name} is empty; expected --dataset=NAME --source=DIR --output=DIR")
    options = prepare.options(AUDIO_RATE.value, FPS.value, SHORT_SIDE.value, VARIANT.value)
    print(prepare.prepare(
        DATASET.value, SOURCE.value, OUTPUT.value, options, spectrograms_of=SPECTROGRAMS.value,
        allow_missing=ALLOW_MISSING.value, allow_broken=ALLOW_BROKEN.value,
        allow_skipped=ALLOW_SKIPPED.value, workers=WORKERS.value or os.cpu_count() or 1,
        progress=PROGRESS.value))
