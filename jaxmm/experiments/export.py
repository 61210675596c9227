"""A trained model in a file for programs without jaxmm: what it computes, or its parameters."""
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors

from jaxmm import escape, extras, files, provenance
from jaxmm.batch import Logits
from jaxmm.config import scalar_options
from jaxmm.data.spec import to_json
from jaxmm.data.transform import on_host
from jaxmm.errors import UserError, check_choice
from jaxmm.report.tables import sort_heads
from jaxmm.task import not_for_maps
from jaxmm.train.checkpoints import flatten
from jaxmm.train.options import to_dict
from jaxmm.train.setup import Run, Setup

PLATFORMS = ("cpu", "cuda", "tpu")
DESCRIPTION = "export.json"
Predict = Callable[[Mapping[str, chex.Array], Mapping[str, chex.Array]], Logits]


def check(folder: pathlib.Path, form: str) -> None:
    """Raises UserError for an unknown form, one whose package is missing, and a folder that is a file."""
    check_choice("--format", form, WRITERS)
    if form == "stablehlo":
        extras.need("flatbuffers", "--format=stablehlo", "export")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output={folder} is a file; name a folder")


def export(run: Run, folder: pathlib.Path, form: str) -> str:
    """Writes `model.FORM` into the folder, which is made if needed; returns what was done, in lines.

    Args:
      run: restored, on one device.
      folder: to write to.
      form: "stablehlo" or "safetensors".

    Raises:
      UserError: see `check` and `program`.
      WriteError: a file could not be written.
    """
    check(folder, form)
    content, description, notes = WRITERS[form](run)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"model.{form}"
    files.write(path, content)
    if description:
        description |= {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()}
        files.write(folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")
    return "\n".join(map(escape.printable, [
        f"{run.setup.config.method.name} on {run.setup.spec.name}, step {_step(run)} -> {path} "
        f"({len(content) / 2**20:.1f} MiB)", *notes]))


def program(run: Run) -> tuple[jax.export.Exported, dict[str, jax.ShapeDtypeStruct]]:
    """What the run predicts, as a program for any number of rows, and its inputs by modality.

    It is called with inputs [B, ...], as the data set has them, and masks bool [B], both by modality:
    those that the model uses. It returns what `predict_split` does, [B, K] by head; that of a head
    whose modality a row lacks means nothing. Preprocessing, normalisation and parameters are inside.

    Raises:
      UserError: numbers of a modality are normalised in more than 64 bits.
    """
    setup = run.setup
    not_for_maps(setup.task, "a program that predicts", "give --format=safetensors")
    rows, = jax.export.symbolic_shape("rows")
    used = [m for m in setup.spec.modalities if m in run.state.params]
    inputs = {m: jax.ShapeDtypeStruct((rows, *setup.spec.forms[m].shape), setup.spec.forms[m].dtype)
              for m in used}
    present = {m: jax.ShapeDtypeStruct((rows,), bool) for m in used}
    wide = {m: norm for m, norm in on_host(setup.spec.forms, setup.spec.norms,
                                           setup.config.data.preprocess).items() if m in used}
    for m, (mean, _) in wide.items():
        if mean.dtype != np.float64:
            raise UserError(f"{m} is {setup.spec.forms[m].dtype}, whose numbers are normalised in more than "
                            "64 bits, which programs do not have; train on smaller numbers to export the model")
    narrow = inputs | {m: jax.ShapeDtypeStruct(inputs[m].shape, np.float32) for m in wide}
    exported = _export(_predict(setup, run.state), narrow, present)
    if wide:
        def normalised(inputs, present):    # as `jaxmm.data.transform.normalise` does
            inputs = inputs | {m: ((inputs[m].astype(mean.dtype) - mean) / std).astype(jnp.float32)
                               for m, (mean, std) in wide.items()}
            return exported.call(inputs, present)

        with jax.enable_x64(True):      # for these lines alone: it changes types elsewhere
            return _export(normalised, inputs, present), inputs
    return exported, inputs


def _export(fn: Predict, inputs, present) -> jax.export.Exported:
    return jax.export.export(jax.jit(fn), platforms=PLATFORMS)(inputs, present)


def _predict(setup: Setup, state) -> Predict:
    method = setup.make_method(None, scalar_options(setup.config))
    state = setup.programs.fetch(state)
    dtype, shape = setup.spec.label

    def predict(inputs, present):
        rows = next(iter(present.values())).shape[0]
        # A compiler that knows the numbers computes with them beforehand, and rounds otherwise.
        params, batch_stats = jax.lax.optimization_barrier((state.params, state.batch_stats))
        return method.predict(state._replace(params=params, batch_stats=batch_stats), {
            "inputs": inputs, "present": present, "label": jnp.zeros((rows, *shape), dtype),
            "id": jnp.zeros(rows, jnp.int32)})

    return predict


def _stablehlo(run: Run) -> tuple[bytes, dict[str, Any], list[str]]:
    """The serialized program, what to know of it, and what to say."""
    exported, inputs = program(run)
    spec, task = run.setup.spec, run.setup.task
    heads = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    texts = [m for m in inputs if m in spec.num_tokens]
    description = {
        "method": run.setup.config.method.name, "data": spec.name, "step": _step(run),
        "task": task.name, "names": list(task.names),
        "inputs": {m: {"shape": list(spec.forms[m].shape), "dtype": x.dtype.name}
                   | ({"tokens": spec.num_tokens[m], "vocabulary": list(spec.vocabularies.get(m, ()))}
                      if m in texts else {}) for m, x in inputs.items()},
        "outputs": {head: list(heads[head].shape[1:]) for head in sort_heads(heads, sorted(inputs))},
        "platforms": list(exported.platforms), "made_by": provenance.describe()}
    return bytes(exported.serialize()), description, [
        f"{m}: token ids go in, as the vocabulary in {DESCRIPTION} has them; texts need a tokenizer" for m in texts]


def _safetensors(run: Run) -> tuple[bytes, None, list[str]]:
    """Parameters, batch statistics and experts by path, with `model.json` and `config.json` as metadata."""
    state = run.setup.programs.fetch(run.state)
    # In C order, whatever order they have: the format knows no other.
    arrays = {name: np.array(x, order="C") for name, x in flatten(
        {"params": state.params, "batch_stats": state.batch_stats, "experts": state.experts}).items()}
    metadata = {"model": json.dumps(to_json(run.setup.spec)), "config": json.dumps(to_dict(run.setup.config)),
                "made_by": json.dumps(provenance.describe()), "step": str(_step(run))}
    return safetensors.save(arrays, metadata), None, []


def _step(run: Run) -> int:
    return int(run.setup.programs.fetch(run.state).step)


WRITERS = {"stablehlo": _stablehlo, "safetensors": _safetensors}
