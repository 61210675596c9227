r"""Computes the features of a data set through its encoders once, for methods to train on in seconds.

    jaxmm encode --config=mvsa --config.data.path=data/mvsa --config.encoders.text.name=bert \
        --config.encoders.text.weights=minilm.safetensors --output=mvsa_features
    jaxmm encode --workdir=runs/mine --output=mine_features      # the encoders of a trained run

OUTPUT gets an .npz file with the features of every split, in the form that the data set `arrays` reads, with
labels, names of classes and masks of missing modalities, and `encode.json`, which says of what they were
made. What it prints at the end trains on them, with encoders `identity`. Nothing is augmented, and no
parameter changes: it is what encoders that are frozen would compute in every epoch.
"""
from absl import flags

FLAGS = flags.FlagValues()
OUTPUT = flags.DEFINE_string("output", "", "Folder to write to, which is not there yet.", flag_values=FLAGS)
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder whose encoders to use, in place of those of a config.",
                              flag_values=FLAGS)
STEP = flags.DEFINE_integer("step", None, "With --workdir: checkpoint to use; the last by default.",
                            flag_values=FLAGS)
DATA = flags.DEFINE_string("data", "", "With --workdir: path of its data, if they have moved since training.",
                           flag_values=FLAGS)
PROGRESS = flags.DEFINE_bool("progress", True, "Show a bar.", flag_values=FLAGS)
CONFIG = "Config file; its method does not matter."


def main(chosen, command) -> None:
    from jaxmm import escape, files
    from jaxmm.errors import UserError
    from jaxmm.experiments import encode, folders
    del command
    if not OUTPUT.value:
        raise UserError("--output is missing; name a new folder")
    folders.check_local("--output", OUTPUT.value)
    output = files.expand(OUTPUT.value)
    encode.check_output(output)
    if WORKDIR.value:
        run, origin = encode.trained(chosen, WORKDIR.value, STEP.value, DATA.value)
    elif DATA.value or STEP.value is not None:
        raise UserError("--data and --step go with --workdir; of a config, --config.data.path is the data")
    else:
        run, origin = encode.untrained(chosen.config), {}
    print("\n".join(map(escape.printable, encode.encode(run, output, origin, PROGRESS.value))))
