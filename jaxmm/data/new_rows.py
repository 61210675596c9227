"""Rows without labels, for a trained model: read block by block, checked against what it was trained on.

They come from an `.npz` file with an array [N, ...] for each modality, a split of a prepared data set,
or the files that a table names. Any modality may be absent, from all rows or, by `present/MODALITY`, from some.
"""
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmm import files
from jaxmm.batch import Batch, make_batch, take
from jaxmm.config import DataConfig, FramesConfig, PreprocessConfig, TextConfig
from jaxmm.data import arrays, pipeline, text
from jaxmm.data.dataset import (SPLITS, Form, check_kind, check_scale, check_split, listed, reach, say,
                                say_scale)
from jaxmm.data.prepared import open_prepared
from jaxmm.data.spec import DataSpec
from jaxmm.errors import UserError, suggest

FORM = "an .npz file with an array [rows, ...] for each modality, as numpy.savez writes it"
RESERVED = ("label", "id")      # in an .npz file, beside the modalities

Block = tuple[Sequence, Batch]  # names of the rows, and the rows


def read_blocks(path: str, spec: DataSpec, config: DataConfig, size: int, split: str = "",
                ) -> Iterator[Block]:
    """The rows of a file or folder by blocks of at most `size`.

    The `id` of a row in the batch is its position; its name is what `id` says in an `.npz` file, or
    the key in a prepared data set, or else its position. Labels are not read.

    Args:
      path: of an `.npz` file, or a folder that `jaxmm prepare` made.
      spec: of the data that the model was trained on.
      config: how prepared data are read.
      size: rows at once.
      split: which to read, where there are several.

    Raises:
      UserError: it is neither of these; a modality is unknown to the model, or has another shape, type
        or scale than in training; a value is not finite; numbers of rows differ; or a row has no
        modality.
    """
    where = files.expand(path)
    return check_blocks(where, spec, _prepared(where, spec, config, size, split) if where.is_dir() else
                        _arrays(where, spec, size, split))


def array_blocks(where: str, inputs: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray],
                 spec: DataSpec, size: int) -> Iterator[Block]:
    """`read_blocks` of arrays that are in memory, [N, ...] by modality, and masks [N].

    Raises:
      UserError: as of `read_blocks`; `where` is what the rows are called.
    """
    headers = {name: arrays.Header(x.shape, False, x.dtype) for name, x in [*inputs.items(), *(
        (f"present/{m}", x) for m, x in present.items())]}
    count = _check_headers(where, headers, inputs, present, spec)

    def part(x):
        return [x[start:start + size] for start in range(0, count, size)]

    blocks = zip(part(range(count)), *map(part, [*inputs.values(), *present.values()]))
    return check_blocks(where, spec, (
        (names, dict(zip(inputs, found)), dict(zip(present, found[len(inputs):])))
        for names, *found in blocks))


def value_blocks(where: str, spec: DataSpec, config: DataConfig, modalities: Sequence[str],
                 blocks: Iterable[tuple[Sequence, Mapping[str, Sequence]]]) -> Iterator[Block]:
    """`read_blocks` of values by modality as records of a prepared data set hold them; None: none there.

    Args:
      where: what the rows are called in messages.
      spec: of the data that the model was trained on.
      config: how prepared data are read.
      modalities: of the rows.
      blocks: names of rows, and values.

    Raises:
      UserError: as for `read_blocks`.
    """
    _check_modalities(where, dict.fromkeys(modalities), spec)
    tokenizers = _tokenizers(spec, config, modalities)

    def as_array(m, names, values):
        if m in tokenizers:
            return text.tokenize(tokenizers[m], [value or "" for value in values])
        form, section = spec.forms[m], config.preprocess.get(m, PreprocessConfig())
        clip = section.crop_frames if isinstance(section, FramesConfig) else 0
        for name, value in zip(names, values):
            if value is not None and len(value) < clip:
                raise UserError(f"{where}: {m} of {name} has {len(value)} images, fewer than the {clip} of a clip of "
                                "this run; leave it out")
        rows = [value if value is None or not section.kind else
                pipeline.read_input({"inputs": {m: value}}, 0, m, section) for value in values]
        for row in rows:
            if row is not None:
                _check_header(f"{where}: {m}", arrays.Header((1, *row.shape), False, row.dtype), m, form)
        return np.stack([np.zeros(form.shape, form.dtype) if row is None else row for row in rows])

    return check_blocks(where, spec, (
        (names, {m: as_array(m, names, x) for m, x in values.items()},
         {m: np.array([value is not None for value in x]) for m, x in values.items()})
        for names, values in blocks))


def _tokenizers(spec: DataSpec, config: DataConfig, modalities: Iterable[str]) -> dict[str, Any]:
    """The tokenizers of those that are texts, with the vocabularies of the run."""
    sections = {m: config.preprocess[m] for m in modalities if m in config.preprocess}
    return {m: text.make_tokenizer(section, (), spec.vocabularies[m]) for m, section in sections.items()
            if isinstance(section, TextConfig)}


def check_blocks(where: pathlib.Path | str, spec: DataSpec, blocks: Iterable[tuple]) -> Iterator[Block]:
    """The blocks (names, inputs, present) as batches, checked against what the model was trained on.

    Raises:
      UserError: what is said of `read_blocks`.
    """
    unknown = {m: form._replace(most=np.nan) for m, form in spec.forms.items()}
    reached, start = {}, 0
    for names, inputs, present in blocks:
        rows = len(names)
        for m, mask in present.items():
            if mask.ndim != 1 or not np.isin(mask, (0, 1)).all():
                raise UserError(f"{where}: present/{m} is {mask.dtype} with {mask.ndim} axes; expected True "
                                "or False of shape [rows]: True where the row has the modality")
        inputs = {m: fit(f"{where}: {m}", x, spec.forms[m], start, present.get(m))
                  for m, x in inputs.items()}
        lacking = {m: np.zeros((rows, *form.shape), form.dtype)
                   for m, form in spec.forms.items() if m not in inputs}
        batch = make_batch(inputs | lacking, np.zeros(rows, np.int32), ids=np.arange(start, start + rows),
                           present=dict(present) | {m: np.zeros(rows, bool) for m in lacking},
                           where=str(where))
        dtype, shape = spec.label
        check_split(str(where), batch, unknown, start)      # scale is that of all rows, below
        for m, x in inputs.items():
            most, whole = reach(x, batch["present"][m])
            before = reached.get(m, (0.0, True))
            reached[m] = max(before[0], most), before[1] and whole
            check_scale(f"{where}: {m}", reached[m], f"train/{m} of the run", spec.forms[m])
        yield names, batch | {"label": np.zeros((rows, *shape), dtype)}
        start += rows
    for m, found in reached.items():
        say_scale(f"{where}: {m}", found, f"train/{m} of the run", spec.forms[m])


def fit(where: str, x: np.ndarray, form: Form, first: int = 0, present: np.ndarray | None = None,
        ) -> np.ndarray:
    """Integers in the type of the training data; floats wider than that type in float32.

    Args:
      where: what the rows are called in messages.
      x: rows [B, ...].
      form: what was trained on.
      first: number of the first row, for messages.
      present: bool [B]; other rows may hold anything.

    Raises:
      UserError: that type does not hold a number.
    """
    if x.dtype == form.dtype or x.dtype.kind == "f" and (
            x.dtype.itemsize <= 4 or form.dtype.itemsize > 4):
        return x
    dtype = np.dtype(np.float32) if x.dtype.kind == "f" else form.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        result = x.astype(dtype)
    wrong = (np.isfinite(x) & ~np.isfinite(result)) if dtype.kind == "f" else result != x
    if present is not None:
        wrong[~present.astype(bool)] = False
    if wrong.any():
        at = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise UserError(f"{where} has the value {x[at]} in row {first + at[0]}, which {dtype} does not hold; "
                        f"the model was trained on {form.dtype}: give the same type and scale")
    return result


def _arrays(path: pathlib.Path, spec: DataSpec, size: int, split: str):
    """(names, inputs, present) of the rows of an `.npz` file, by blocks."""
    with arrays.open_file(path, FORM) as (file, members):
        prefix = _prefix(path, members, split)
        found = {name.removeprefix(prefix): member for name, member in members.items()
                 if name.startswith(prefix) and name not in arrays.NAMES}
        inputs = {m: member for m, member in found.items()
                  if m not in RESERVED and not m.startswith("present/")
                  and (m != "group" or m in spec.forms)}     # groups of rows, or a modality
        masks = {m.removeprefix("present/"): member for m, member in found.items()
                 if m.startswith("present/")}
        if "label" in found:
            say(f"{path}: {prefix}label is not read")
        headers = {name: _header(file, found[name]) for name in found if name != "label"}
        count = _check_headers(path, headers, inputs, masks, spec, prefix)
        first = next(iter(inputs))
        if "id" in headers and (len(headers["id"].shape) != 1 or headers["id"].dtype.kind not in "iuU"):
            raise UserError(f"{path}: {prefix}id is {headers['id'].dtype} of shape {headers['id'].shape}; "
                            "expected numbers or text of shape [rows]")
        readers = {name: arrays.read_rows(file, found[name], size) for name in headers}
        for start in range(0, count, size):
            part = {name: next(reader) for name, reader in readers.items()}
            rows = len(part[first])
            names = part["id"].tolist() if "id" in part else range(start, start + rows)
            yield names, {m: part[m] for m in inputs}, {m: part[f"present/{m}"] for m in masks}
        for reader in readers.values():
            next(reader, None)      # to their ends, where checksums are compared


def _check_headers(where: pathlib.Path | str, headers: Mapping[str, arrays.Header], inputs: Collection[str],
                   present: Collection[str], spec: DataSpec, prefix: str = "") -> int:
    """How many rows there are, if all arrays have as many, and modalities are those of the model.

    Args:
      where: what the rows are called in messages.
      headers: of all arrays by name.
      inputs: the modalities.
      present: modalities with masks.
      spec: of the data that the model was trained on.
      prefix: of the names in a file.
    """
    _check_modalities(where, inputs, spec)
    for m in present:
        if m not in inputs:
            raise UserError(f"{where}: {prefix}present/{m} names no modality; expected one of {', '.join(inputs)}")
    rows = {name: header.shape[0] if header.shape else 0 for name, header in headers.items()}
    first = next(iter(inputs))
    for name, found in rows.items():
        if found != rows[first]:
            raise UserError(f"{where}: {prefix}{name} has {found} rows, {prefix}{first} has {rows[first]}; every "
                            "array needs one row for each example")
    if not rows[first]:
        raise UserError(f"{where}: {prefix}{first} has no rows; expected at least one example")
    for m in inputs:
        _check_header(f"{where}: {m}", headers[m], m, spec.forms[m])
    return rows[first]


def _header(file, member) -> arrays.Header:
    with file.open(member) as stream:
        return arrays.read_header(file, member, stream)


def _check_header(where: str, header: arrays.Header, modality: str, form: Form) -> None:
    if header.dtype.kind not in "buif":
        raise UserError(f"{where} is {header.dtype}; expected numbers")
    if header.shape[1:] != form.shape:
        raise UserError(f"{where} has rows of shape {header.shape[1:]}; the model was trained on rows of "
                        f"shape {form.shape}")
    check_kind(where, header.dtype, f"train/{modality} of the run", form.dtype)


def _check_modalities(path: pathlib.Path | str, found: Collection[str], spec: DataSpec) -> None:
    for m in found:
        if m not in spec.forms:
            raise UserError(f"{path}: {m!r} is not a modality of the model{suggest(m, spec.modalities)}")
    if not found:
        raise UserError(f"{path} has no modality of the model; expected one of "
                        f"{', '.join(spec.modalities)}")


def _prefix(path: pathlib.Path, names: Mapping, split: str) -> str:
    """What the names of the arrays to read begin with: "" or, in the form for training, a split."""
    splits = [s for s in SPLITS if any(name.startswith(f"{s}/") for name in names)]
    chosen = _one_split(path, splits, split) if splits or split else ""
    return f"{chosen}/" if chosen else ""


def _one_split(path: pathlib.Path, splits: Sequence[str], split: str) -> str:
    """The split to read, of those there are."""
    if split and split not in splits:
        raise UserError(f"{path} has no split {split!r}; found {', '.join(splits) or 'none'}")
    if not split and len(splits) != 1:
        raise UserError(f"{path} has the splits {listed(splits)}; name one by --split")
    return split or splits[0]


def _prepared(folder: pathlib.Path, spec: DataSpec, config: DataConfig, size: int, split: str):
    """(names, inputs, present) of the rows of a prepared data set, by blocks."""
    prepared = open_prepared(folder)
    _check_modalities(folder, prepared.modalities, spec)
    split = _one_split(folder, list(prepared.splits), split)
    sections = {m: s for m, s in config.preprocess.items() if m in prepared.modalities}
    pipeline.check_sections(prepared, sections)
    tokenizers = _tokenizers(spec, config, sections)
    batch = pipeline.read_split(prepared, config, split, pipeline.read_index(prepared, split), tokenizers)
    records = prepared.splits[split]
    for m, x in batch["inputs"].items():
        _check_header(f"{folder}: {m}", arrays.Header(x.shape, False, x.dtype), m, spec.forms[m])
    for start in range(0, len(records), size):
        index = np.arange(start, min(start + size, len(records)))
        part = take(batch, index)
        yield [records[int(i)]["key"] for i in index], part["inputs"], part["present"]
