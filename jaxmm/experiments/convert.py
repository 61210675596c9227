"""Released weights in the form in which encoders read them."""
import pathlib
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save_file

from jaxmm import files
from jaxmm.data.dataset import listed
from jaxmm.data.prepared import checksum
from jaxmm.errors import UserError, WriteError, of
from jaxmm.pretrained import foreign, names
from jaxmm.report.predictions import check_path

SUFFIX = ".safetensors"
READ_AS_IT_IS = (SUFFIX, ".npz")


def convert(weights: pathlib.Path, output: pathlib.Path) -> list[str]:
    """Writes the arrays of `weights` to `output`, whole or not at all; returns what was done, in lines.

    Raises:
      UserError: `output` is no new .safetensors file, or see `jaxmm.pretrained.foreign.read`.
      WriteError: it could not be written.
    """
    check_path("--output", output, (SUFFIX,))
    files.check_new("--output", output, "another file")
    if weights.suffix in READ_AS_IT_IS:
        raise UserError(f"--weights={weights} needs no conversion: encoders read it as it is, by "
                        "--config.encoders.MODALITY.weights=FILE")
    with of("--weights"):
        found = foreign.read(weights)
    wide = [name for name, x in found.weights.items() if x.dtype.name == "bfloat16"]
    # The format knows one order, and one of bytes.
    arrays = {name: np.asarray(x, np.float32 if name in wide else x.dtype.newbyteorder("="), order="C")
              for name, x in found.weights.items()}
    model = describe(arrays)
    save(output, arrays, {"made_of": weights.name, "sha256": checksum(weights)})
    where = f", weights at {found.where}" if found.where else ""
    said = [f"{weights} ({found.form}{where}): {len(arrays)} arrays, {sum(x.size for x in arrays.values()):,} "
            f"numbers -> {output} ({output.stat().st_size / 2**20:.1f} MiB)", model]
    if wide:
        said.append(f"{len(wide)} arrays of bfloat16 are float32 now, which holds the same numbers")
    if found.arrays_left or found.objects_left:
        objects = [f"{count} {name}" for name, count in found.objects_left.items()]
        said.append(f"left out: {found.arrays_left} arrays that are no weights; "
                    f"{sum(found.objects_left.values())} objects{': ' * bool(objects)}{listed(objects)}")
    return said


def describe(arrays: Mapping[str, np.ndarray]) -> str:
    """Which model has arrays of these names, and how many of them its encoders read."""
    model = names.detect(arrays)
    if not model:
        return f"the names are those of no model that is known here: {listed(list(arrays))}"
    used = names.used_names(arrays)
    return f"{model}: encoders read {len(used)} of the {len(arrays)} names"


def save(path: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a .safetensors file, whole or not at all; see `files.open_whole`."""
    with files.open_whole(path) as file:
        try:
            save_file(dict(arrays), file.name, dict(metadata))
        except Exception as error:      # the package has a class of its own, also for a full disk
            raise WriteError(f"{path} could not be written ({error})") from error
