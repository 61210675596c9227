"""Features of a data set through its encoders, as arrays to train on."""
import contextlib
import copy
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmm import escape, files, provenance
from jaxmm.config import Config, EncoderConfig, StreamConfig
from jaxmm.data.prepared import checksum
from jaxmm.errors import UserError, as_typed
from jaxmm.experiments import configs, folders
from jaxmm.methods import method_config
from jaxmm.report.predictions import open_arrays
from jaxmm.task import not_for_maps
from jaxmm.train.predictions import split_features
from jaxmm.train.restore import restore
from jaxmm.train.setup import Run, build, init_state
from jaxmm.train.weights import named

DESCRIPTION = "encode.json"
LABELS = {"classification": "", "multilabel": ",labels", "regression": ",numbers"}      # of the config arrays


def check_output(output: pathlib.Path) -> None:
    """Raises UserError if there is something already."""
    files.check_new("--output", output, "a new folder")


def untrained(config: Config, devices: Sequence[jax.Device] | None = None) -> Run:
    """A run of the encoders of a config, with the weights that it names, before the first step.

    Its method is one that takes any encoders and any labels, as none is trained. For `devices` see `build`.
    """
    if config.data.folds:
        raise UserError(f"data.folds={config.data.folds}: features are written once, for one division into train and "
                        "test; leave it out, and give the data a test split")
    config = copy.deepcopy(config)
    config.method, config.stream = method_config("late"), StreamConfig()
    setup = build(config, devices=devices)
    state = named(setup, setup.programs.fetch(init_state(setup)))
    return Run(setup, setup.programs.place(state), [])


def trained(chosen: configs.Chosen, workdir: str, step: int | None, data: str) -> tuple[Run, dict[str, Any]]:
    """The run of a folder, and what is to be noted of it.

    Raises:
      UserError: a config was chosen beside it, or see `jaxmm.train.restore.restore`.
    """
    if chosen.path != configs.DEFAULT or chosen.overrides:
        raise UserError("--config does not go with --workdir, whose run has a config; leave one of them out")
    folder = folders.workdir(workdir, "")
    run = restore(folder, step, data=data)
    return run, {"workdir": str(folder), "method": run.setup.config.method.name,
                 "step": int(run.setup.programs.fetch(run.state).step)}


def encode(run: Run, output: pathlib.Path, origin: Mapping[str, Any], progress: bool = True) -> list[str]:
    """Writes the features of all splits into a new folder, whole or not at all; returns what was done, in lines.

    The folder gets an .npz file in the form of `jaxmm.data.arrays`: of every modality that the run has the
    features [N, s], 0 where a row lacks it, with masks, labels and the names of classes. `encode.json`
    beside it says of what they were made. Nothing is augmented. Rows without any of the modalities are left
    out.

    Args:
      run: with its data.
      output: the folder.
      origin: of the run, to be noted.
      progress: whether to show a bar for each split.

    Raises:
      UserError: there is something at `output`, the data are gone, or a feature is not finite.
    """
    check_output(output)
    not_for_maps(run.setup.task, "a file of features", "train on the data as they are")
    setup, dataset = run.setup, run.setup.dataset
    dataset.splits["train"]     # raises where the data are gone
    said, rows, sizes = [], {}, {}
    with new_folder(output) as folder:
        path = folder / f"{dataset.name}.npz"
        with open_arrays(path) as add:
            for split, batch in dataset.splits.items():
                features = split_features(setup, run.state, batch, split if progress else "")
                present = {m: batch["present"][m] for m in features}
                kept = np.any(list(present.values()), axis=0)
                for m, x in features.items():
                    wrong = present[m] & ~np.isfinite(x).all(axis=1)
                    if wrong.any():
                        raise UserError(f"{split}/{m} has features that are not finite (NaN or infinite) in "
                                        f"{wrong.sum()} rows, the first row {np.argmax(wrong)}; repair the "
                                        "weights, or compute in float32")
                add({f"{split}/{m}": np.where(present[m][:, None], x, 0)[kept] for m, x in features.items()})
                add({f"{split}/present/{m}": x[kept] for m, x in present.items() if not x[kept].all()})
                add({f"{split}/label": batch["label"][kept]})
                sizes = {m: x.shape[1] for m, x in features.items()}
                rows[split] = int(kept.sum())
                if not kept.all():
                    said.append(f"{(~kept).sum()} of {len(kept)} rows of {split} have none of "
                                f"{', '.join(features)} and are left out")
            names = "class_names" if setup.task.name == "classification" else "label_names"
            add({names: np.array(dataset.class_names, str)})
        encoders = {m: setup.config.encoders.get(m, EncoderConfig()) for m in sizes}
        description = {
            "file": path.name, "sha256": checksum(path), "data": dataset.name, "checksums": setup.checksums,
            "rows": rows, "features": sizes, **origin,
            "encoders": {m: dataclasses.asdict(c) for m, c in encoders.items()}, "made_by": provenance.describe()}
        files.write(folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")
    random = [m for m, c in encoders.items() if not c.weights and jax.tree.leaves(run.state.params[m])]
    if random and not origin and not setup.config.train.init_from:
        said.append(f"{' and '.join(random)}: no weights are named, so the features are those of random "
                    "parameters; --config.encoders.MODALITY.weights=FILE names some")
    data = output / path.name
    options = [f"--config=arrays:late{LABELS[setup.task.name]}", f"--config.data.path={data}",
               *(f"--config.encoders.{m}.name=identity" for m in sizes)]
    shown = ", ".join(f"{m} {size}" for m, size in sizes.items())
    return [f"{dataset.name}, {', '.join(f'{n} rows of {split}' for split, n in rows.items())}; features: "
            f"{shown} -> {data} ({data.stat().st_size / 2**20:.1f} MiB)", *said, "To train on them:",
            f"  {as_typed('train')} {escape.command(options)}"]


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill within the context; it appears at `path` when that ends well."""
    part = path.with_name(f"{path.name}.part")
    files.remove(part)          # left by a killed process
    part.mkdir(parents=True)
    try:
        yield part
        part.replace(path)
    finally:
        files.remove(part)
