r"""Turns released weights into .safetensors, the form in which encoders read them.

    jaxmm convert --weights=audio_model.21.pth --output=cav_mae.safetensors
    jaxmm convert --weights=m3ae_base.pkl --output=m3ae_base.safetensors

It takes what `torch.save` writes (.pth, .pt, .bin, of torch before 1.6 too), TorchScript archives, and pickles
of flax parameters, such as those of M3AE. Nothing that is in a file is executed: what is no array is left out,
and counted. Arrays keep their names, and their types but for bfloat16, which becomes float32. Files that end
in .safetensors or .npz are read as they are.
"""
from absl import flags

FLAGS = flags.FlagValues()
WEIGHTS = flags.DEFINE_string("weights", "", "The file as it was released.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "", "File to write: .safetensors.", flag_values=FLAGS)


def main() -> None:
    from jaxmm import escape, files
    from jaxmm.errors import UserError
    from jaxmm.experiments.convert import convert
    for flag in (WEIGHTS, OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name} is empty; expected --weights=FILE --output=FILE.safetensors")
    said = convert(files.expand(WEIGHTS.value), files.expand(OUTPUT.value))
    print("\n".join(map(escape.printable, said)))
