r"""Writes a trained model for programs without jaxmm, from the run folder alone.

    jaxmm export --workdir=runs/mine --format=stablehlo
    jaxmm export --workdir=runs/mine --format=safetensors --output=DIR

stablehlo: `model.stablehlo`, a program for CPU, CUDA and TPU that `jax.export.deserialize` reads, and
`export.json`, which says what goes in and comes out. In go rows as `predict` takes them (of texts, token
ids) and masks of which modalities each row has, any number of rows; out come logits by head (of a
regression, values), with preprocessing, normalisation and parameters inside. What `predict` checks of
rows, such as their scale, the program does not. It runs anywhere, with convolutions in the form that is
fast on the kind of machine that exports.

safetensors: `model.safetensors`, parameters and batch statistics by name, with config.json and model.json
as metadata. What a method has beside them, such as temperatures of fusion, is not in it.
"""
from absl import flags

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder.", flag_values=FLAGS)
FORMAT = flags.DEFINE_string("format", "stablehlo", "stablehlo or safetensors.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "", "Folder to write to; WORKDIR/export by default.", flag_values=FLAGS)
STEP = flags.DEFINE_integer("step", None, "Checkpoint to use; the last by default.", flag_values=FLAGS)


def main() -> None:
    import jax
    from jaxmm import files
    from jaxmm.errors import UserError
    from jaxmm.experiments import folders
    from jaxmm.experiments.export import check, export
    from jaxmm.train.restore import restore
    if not WORKDIR.value:
        raise UserError("--workdir is missing; see --help")
    folders.check_local("--output", OUTPUT.value)
    workdir = folders.workdir(WORKDIR.value, "")
    output = files.expand(OUTPUT.value) if OUTPUT.value else workdir / "export"
    check(output, FORMAT.value)
    run = restore(workdir, STEP.value, data=None, devices=jax.local_devices()[:1])
    print(export(run, output, FORMAT.value))
