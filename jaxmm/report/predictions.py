"""One prediction for each row, as a CSV or an `.npz` file: by head, with probabilities and weights."""
import csv
import io
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np

from jaxmm import escape, files
from jaxmm.batch import Logits
from jaxmm.errors import UserError
from jaxmm.report.tables import sort_heads
from jaxmm.task import Task

Columns = dict[str, np.ndarray]     # [B] or, for each output, [B, K], by name
Add = Callable[[Sequence, Columns], None]   # (names of rows, their columns)
SUFFIXES = (".csv", ".npz")
PREDICTED = {"classification": "class", "multilabel": "labels", "regression": "value"}    # by task


def describe(task: Task, outputs: Logits, present: Mapping[str, np.ndarray], weights: Logits,
             probabilities: bool) -> Columns:
    """The predictions of the heads for some rows, by HEAD/NAME.

    For classification they are `class` (number, -1 if the row lacks the head's modality) and `entropy`
    (nats); for multilabel `labels`, bool; for regression `value`. `probability` is in [0, 1]; `weight` is
    the head's weight in the fusion at test time. Numbers of a head without its modality are NaN.

    Args:
      task: of the outputs.
      outputs: [B, K] by head.
      present: bool [B] by modality.
      weights: [B] by head.
      probabilities: whether to give them.
    """
    columns = {}
    for head in sort_heads(outputs, sorted(present)):
        z = np.asarray(outputs[head], np.float32)
        there = present.get(head, np.ones(len(z), bool))
        found = {}
        if task.name == "classification":
            log_p = np.asarray(jax.nn.log_softmax(jnp.asarray(z)))
            found["class"] = np.where(there, z.argmax(1), -1).astype(np.int32)
            p = np.exp(log_p)
            found["entropy"] = -np.sum(p * np.where(p > 0, log_p, 0), axis=1)
        elif task.name == "multilabel":
            p = np.asarray(jax.nn.sigmoid(jnp.asarray(z)))
            found["labels"] = (z > 0) & there[:, None]
        else:
            found["value"] = z
        if probabilities and task.name != "regression":
            found["probability"] = p
        if head in weights:
            found["weight"] = np.asarray(weights[head], np.float32)
        for name, x in found.items():
            if x.dtype.kind == "f":
                x = np.where(there.reshape(-1, *[1] * (x.ndim - 1)), x, np.float32(np.nan))
            columns[f"{head}/{name}"] = x
    return columns


@contextmanager
def open_table(path: pathlib.Path, names: Sequence[str] = ()) -> Iterator[Add]:
    """Gives add(ids, columns), which appends rows to a file that appears, whole, when the context ends.

    In CSV, classes and labels are written by `names`, numbers as the shortest text that reads back as
    the same float32, and missing values are empty. An `.npz` file has the arrays, with `id` and `names`.

    Raises:
      UserError: the file has another suffix, or no folder to lie in.
    """
    check_path("--output", path, SUFFIXES)
    if path.suffix == ".npz":
        ids = []
        with open_arrays(path) as add_arrays:
            def add(rows, columns):
                ids.extend(rows)
                add_arrays(columns)

            yield add
            add_arrays({"id": np.array(ids)} | ({"names": np.array(names, str)} if names else {}))
        return
    with files.open_whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
        writer, header = csv.writer(text, lineterminator="\n"), []

        def add(rows, columns):
            expanded = dict(column for name, x in columns.items() for column in _expand(name, x, names))
            if not header:
                header.extend(expanded)
                writer.writerow(map(escape.cell, ["id", *header]))
            for row, *values in zip(rows, *(expanded[name] for name in header), strict=True):
                writer.writerow([escape.cell(row), *values])

        yield add
        text.flush()
        text.detach()


def _expand(name: str, x: np.ndarray, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The columns of a CSV file that an array makes, as text."""
    if name.endswith("/class"):
        yield name, ["" if c < 0 else escape.cell(names[c]) for c in x]
    elif name.endswith("/labels"):
        yield name, [escape.cell("; ".join(n for n, on in zip(names, row) if on)) for row in x]
    else:
        parts = [(name, x)] if x.ndim == 1 else [(f"{name}/{n}", x[:, k]) for k, n in enumerate(names)]
        for name, values in parts:
            yield name, ["" if np.isnan(v) else str(v) for v in values]


@contextmanager
def open_arrays(path: pathlib.Path) -> Iterator[Callable[[Mapping[str, np.ndarray]], None]]:
    """Gives add(arrays), which appends rows to arrays on disk; at the end `path` is an `.npz` of them.

    The file is written as a whole, or not at all.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        parts = {}      # by name: file, type and shape of a row, number of rows

        def add(new):
            for name, x in new.items():
                if name not in parts:
                    parts[name] = [open(pathlib.Path(folder, str(len(parts))), "w+b"), x.dtype,
                                   x.shape[1:], 0]
                parts[name][0].write(np.ascontiguousarray(x, parts[name][1]).tobytes())
                parts[name][3] += len(x)

        try:
            yield add
            with files.open_whole(path) as file, zipfile.ZipFile(file, "w") as archive:
                for name, (part, dtype, shape, rows) in parts.items():
                    part.seek(0)
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                        np.lib.format.write_array_header_1_0(stream, {
                            "descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
                            "shape": (rows, *shape)})
                        shutil.copyfileobj(part, stream)
        finally:
            for part, *_ in parts.values():
                part.close()


def check_path(option: str, path: pathlib.Path, suffixes: Sequence[str]) -> None:
    """Raises UserError unless a file of one of these kinds can be made there."""
    if path.suffix not in suffixes:
        raise UserError(f"{option}={path}; expected a file that ends in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise UserError(f"{option}={path}: there is no folder {path.parent}; make it, or name another")
    if path.is_dir():
        raise UserError(f"{option}={path} is a folder; name a file")
