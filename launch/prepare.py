"""Turns a data set as users have it on disk into one that training reads fast.

    python -m launch.prepare --dataset=cremad --describe_layout     # which files it needs
    python -m launch.prepare --dataset=cremad --source=DIR --output=DIR
    python -m launch.prepare --dataset=cremad --variant=speakers --source=DIR --output=DIR
    python -m launch.prepare --dataset=vggsound --audio_rate=16000 --short_side=256 \\
        --source=DIR --output=DIR

Writes OUTPUT/NAME/VERSION: records that TFDS reads without TensorFlow, `summary.json`, and
`skipped.txt` with every example that was left out and why. A call that was stopped goes on where
it was when the same command is given again.
"""
import os
import pathlib

import jax
from absl import flags

from jaxmm import escape
from jaxmm.data.prepare import BUILDERS, run
from jaxmm.data.prepare.decode import Options
from jaxmm.data.prepare.shards import Stopped
from jaxmm.errors import UserError, check_at_least
from jaxmm.train.signals import Preempted, stop_signals
from launch import app

DATASET = flags.DEFINE_string("dataset", "", f"One of {', '.join(BUILDERS)}.")
SOURCE = flags.DEFINE_string("source", "", "The folder with your files; it is only read.")
OUTPUT = flags.DEFINE_string("output", "", "The folder of prepared data sets.")
VARIANT = flags.DEFINE_string("variant", "", "Another split or selection that the data set has.")
AUDIO_RATE = flags.DEFINE_integer("audio_rate", 0, "Hz of stored sound; 0: as in the files.")
FPS = flags.DEFINE_float("fps", 0, "Frames a second taken from video; 0: the data set's own.")
SHORT_SIDE = flags.DEFINE_integer("short_side", 0,
                                  "Shrink frames to this shorter side in pixels; 0: keep them.")
SPECTROGRAMS = flags.DEFINE_string(
    "spectrograms_of", "", "Config file: store the spectrograms that it asks for, not sound.")
ALLOW_MISSING = flags.DEFINE_bool("allow_missing", False,
                                  "Keep examples that lack some of the modalities.")
ALLOW_BROKEN = flags.DEFINE_bool("allow_broken", False,
                                 f"Go on with more than {run.BROKEN_SHARE:.0%} of broken files.")
ALLOW_SKIPPED = flags.DEFINE_float(
    "allow_skipped", run.SKIPPED_SHARE, "Share of the examples that may be left out because files are "
    "not there, listed twice, without a known label, and so on.")
WORKERS = flags.DEFINE_integer("workers", 0, "Processes that decode; 0: one for each core.")
DESCRIBE = flags.DEFINE_bool("describe_layout", False,
                             "Show which files the data set needs, and do nothing else.")
PROGRESS = flags.DEFINE_bool("progress", True, "Show a bar.")


def main() -> None:
    if DESCRIBE.value:
        print(run.describe_layout(DATASET.value))
        return
    for flag in (DATASET, SOURCE, OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name} is empty; expected --dataset=NAME --source=DIR "
                            "--output=DIR")
    app.check_local("--output", OUTPUT.value)
    for flag in (AUDIO_RATE, FPS, SHORT_SIDE, ALLOW_SKIPPED, WORKERS):
        check_at_least(f"--{flag.name}", flag.value, 0)
    for flag, most in ((AUDIO_RATE, 10**6), (FPS, 1000), (SHORT_SIDE, 10**5), (ALLOW_SKIPPED, 1),
                       (WORKERS, 1024)):
        if flag.value > most:
            raise UserError(f"--{flag.name}={flag.value}; expected at most {most}")
    options = Options(AUDIO_RATE.value, FPS.value, SHORT_SIDE.value, VARIANT.value)
    sections = None
    if SPECTROGRAMS.value:
        sections = app.load_config("--spectrograms_of", SPECTROGRAMS.value).data.preprocess
    jax.config.update("jax_platforms", "cpu")       # spectrograms need no accelerator
    try:
        with stop_signals() as stopped:
            summary = run.prepare(
                DATASET.value, SOURCE.value, OUTPUT.value, options, sections=sections,
                allow_missing=ALLOW_MISSING.value, allow_broken=ALLOW_BROKEN.value,
                allow_skipped=ALLOW_SKIPPED.value,
                workers=WORKERS.value or os.cpu_count() or 1, progress=PROGRESS.value,
                stopped=stopped)
    except Stopped:
        raise Preempted("stopped; the same command goes on with what is left") from None
    folder = pathlib.Path(OUTPUT.value) / summary["name"] / summary["version"]
    for line in run.describe(summary, folder).split("\n"):      # which has names of files
        print(escape.printable(line))


if __name__ == "__main__":
    app.run(main)
