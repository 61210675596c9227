"""Your own files, by a table: a CSV file with a row for each example.

    --source=FILE.csv, with the columns label, id, split, group and one for each modality

Modalities are the columns audio (sound), visual (image) and text, and any called NAME:KIND with one of
the kinds sound, image, video, frames (a folder of images), text (itself, or .txt files throughout) and
vector (.npy files, or .npz of one array). Paths begin in the folder of the CSV file, or with / or ~. An empty cell: the
example lacks the modality.

label is the name of a class, several names separated by |, or a number: names with a | in any row are
labels that hold or not, numbers that are not all whole are to be predicted, and all else are classes
(but not words among such numbers, nor numbers with a comma, which are refused).
--variant=classes, labels or numbers takes them as these whatever they look like; with labels, an empty
cell means that none holds. id names the example, by default its row. split is train, val or test;
without that column a fifth of the rows, drawn by a fixed seed with its share of every class, is test.
Rows of one group (a speaker, a patient) are then never divided. Text is UTF-8; , ; or a tab separates.
"""
import collections
import csv
import io
import math
import numbers
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmm import files
from jaxmm.data import folds
from jaxmm.data.dataset import RESERVED, by_number, listed
from jaxmm.errors import UserError, suggest
from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import UNLABELLED, WORDS, Example, Layout, Modality, count_name, spelling, split_name

COLUMNS = ("label", "id", "split", "group")
USUAL = {"audio": "sound", "visual": "image", "text": "text"}   # kinds of columns that name none
VARIANTS = ("classes", "labels", "numbers")
FPS = 1.0
TESTED = 5              # one row of so many is test, where the table has no splits


class Kind(NamedTuple):
    """How a column of paths is read."""
    stored: str                             # a key of `jaxmm.data.prepared.KINDS`
    source: Callable[[str], Source]


KINDS = {
    "sound": Kind("audio", lambda path: Source(decode.sound, (path,))),
    "image": Kind("frames", lambda path: Source(decode.images, ((path,),))),
    "video": Kind("frames", lambda path: Source(decode.video, (path, FPS))),
    "frames": Kind("frames", lambda path: Source(decode.folder, (path,))),
    "text": Kind("text", lambda path: Source(decode.text_file, (path,))),
    "vector": Kind("features", lambda path: Source(decode.array, (path,))),
}


class Table(NamedTuple):
    """A table of text."""
    where: str                              # what it is called in messages
    columns: tuple[str, ...]
    rows: list[tuple[str, list[str]]]       # (what the row is called in messages, its cells)


class Labels(NamedTuple):
    """The labels of all rows, as they are taken."""
    values: list[Any]                       # of `Example.label`
    array: np.ndarray                       # the same as a batch has them
    said: str                               # what they are taken as
    class_names: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def layout(source: pathlib.Path, options: Options) -> Layout:
    return make_layout(read(source), source.parent, options)._replace(lists=(source,))


def read(path: pathlib.Path) -> Table:
    """The table in a CSV file.

    Raises:
      UserError: it cannot be read, is not UTF-8, or has rows of other numbers of cells than its header.
    """
    content = files.read_bytes(path, most=2**30)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line} is not UTF-8 (byte 0x{content[error.start]:02x}); save the "
                        "file as UTF-8") from error
    rows = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        columns = [name.strip() for name in next(reader, [])]
        for row in reader:
            if not row:
                continue
            if len(row) != len(columns):
                raise UserError(f"{path}: line {reader.line_num} has {len(row)} cells, the first line "
                                f"{len(columns)}; quote cells that hold the separator")
            rows.append((f"line {reader.line_num}", [cell.strip() for cell in row]))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not CSV ({error}); see how it is quoted") from error
    return Table(str(path), tuple(columns), rows)


def of_rows(rows: Any) -> Table:
    """The table in a pandas DataFrame, or in dictionaries by column; None and NaN are empty cells.

    Raises:
      UserError: rows of other columns than the first, or a cell that is neither text, path nor number.
    """
    rows = list(rows.to_dict("records") if hasattr(rows, "to_dict") else rows)
    columns = tuple(rows[0]) if rows else ()
    cells = []
    for number, row in enumerate(rows):
        if set(row) != set(columns):
            raise UserError(f"rows: row {number} has the columns {listed(sorted(map(str, row)))}; expected "
                            f"those of the first, {listed(columns)}")
        cells.append((f"row {number}", [_cell(f"rows: row {number}", name, row[name]) for name in columns]))
    return Table("rows", tuple(map(str, columns)), cells)


def make_layout(table: Table, folder: pathlib.Path, options: Options) -> Layout:
    """The examples of a table, whose paths begin in `folder`.

    Raises:
      UserError: whatever is wrong with it, in one line that names the row or the column.
    """
    modalities, cells = modalities_of(table, ["label"]), cells_of(table)
    ids = names_of(table)
    labels = read_labels(table, cells["label"], options.variant)
    groups = cells.get("group")
    if groups and "" in groups:
        raise UserError(f"{_row(table, groups.index(''))} has no group; give every row one")
    notes: dict[str, dict[str, Any]] = {}
    for key in ids:
        count_name(notes, f"labels taken as {labels.said}", key)
    if drawn := "split" not in cells:
        number = groups and np.unique(groups, return_inverse=True)[1]
        fold = folds.assign(table.where, labels.array, number, TESTED, 0, "give it the column split")
        splits = ["test" if i == 0 else "train" for i in fold]
        for key, split in zip(ids, splits):
            count_name(notes, f"drawn for {split} by seed 0, as the table has no splits", key)
    else:
        splits = [_split(table, row, word) for row, word in enumerate(cells["split"])]
        for group in _divided(groups or (), splits):
            count_name(notes, "group in several splits", group)
    sources = _sources(table, modalities, folder)
    for key, found in zip(ids, sources):
        for name, source in found.items():
            if source.read is decode.given:
                count_name(notes, f"{name}: the cell is the text", key)
    entries = [Example(*row) for row in zip(ids, splits, labels.values, sources)]
    return Layout({name: _modality(kind, options) for name, (_, kind) in modalities.items()},
                  labels.class_names, entries, notes=notes, outputs=labels.outputs,
                  multilabel=labels.array.dtype == bool, drawn=drawn, groups=dict(zip(ids, groups or ())))


def read_values(table: Table, folder: pathlib.Path, kinds: Mapping[str, str], options: Options, size: int,
                ) -> Iterator[tuple[list[str], dict[str, list]]]:
    """The names of at most `size` rows at once and, by modality, what their cells stand for; None if empty.

    Args:
      table: of rows to predict; its label is not read.
      folder: where paths begin.
      kinds: of the columns that the model was trained on, by modality.
      options: how files were decoded then.
      size: rows at once.

    Raises:
      UserError: something is wrong with the table, a column is of another kind, or a file is missing or
        broken, in one line that names the row.
    """
    modalities = modalities_of(table)
    for name, (column, kind) in modalities.items():
        if kind != kinds.get(name, kind):
            raise UserError(f"{table.where}: the column {column!r} is of the kind {kind}, in training {kinds[name]}; "
                            f"call it {name}:{kinds[name]}")
    ids, sources = names_of(table), _sources(table, modalities, folder)
    for start in range(0, len(ids), size):
        rows = range(start, min(start + size, len(ids)))
        yield ids[start:start + size], {name: [
            _load(f"{_row(table, row)}: {name}", sources[row].get(name), options) for row in rows]
            for name in modalities}


def _load(where: str, source: Source | None, options: Options) -> Any:
    """What a source holds; None without one."""
    try:
        return source and source.load(options)[0]
    except decode.Missing as why:
        raise UserError(f"{where}: {why} ({why.path}); give its path, or leave the cell empty if the row has "
                        "none") from why
    # Decoders of damaged files raise anything.
    except Exception as error:  # pylint: disable=broad-exception-caught
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{where} is broken ({', '.join(source.paths[:1])}: {said}); repair it, or leave the cell "
                        "empty") from error


def read_labels(table: Table, cells: Sequence[str], variant: str) -> Labels:
    """The labels in the cells, as classes, labels that hold or not, or numbers; see above.

    Raises:
      UserError: a cell is empty, or is not what `variant` says.
    """
    for row, cell in enumerate(cells):
        if spelling(cell) in UNLABELLED and variant != "labels":
            raise UserError(f"{_row(table, row)} has no label; remove such rows, or label them")
    values = [_number(cell) for cell in cells]
    if variant == "numbers" or not variant and None not in values and not all(map(float.is_integer, values)):
        if None in values:
            row = values.index(None)
            raise UserError(f"{_row(table, row)} has the label {cells[row]!r}; expected a number such as "
                            "-1.5, within the range of float32")
        return Labels([(value,) for value in values], np.array(values, np.float32)[:, None],
                      f"numbers from {min(values):g} to {max(values):g}", outputs=("label",))
    if variant == "labels" or not variant and any("|" in cell for cell in cells):
        return _several(table, cells)
    if not variant:
        _check_words(table, cells, values)
    names = tuple(sorted(set(cells), key=by_number))
    place = {name: i for i, name in enumerate(names)}
    return Labels(list(cells), np.array([place[cell] for cell in cells], np.int32),
                  f"one of {len(names)} classes: {listed(names)}", class_names=names)


def _check_words(table: Table, cells: Sequence[str], values: Sequence[float | None]) -> None:
    """Raises UserError for names of classes that seem to be numbers which cannot be read."""
    broken = any(value is not None and not value.is_integer() for value in values)
    for row, (cell, value) in enumerate(zip(cells, values)):
        if value is None and (broken or re.fullmatch(r"[+-]?\d+,\d+", cell)):
            remedy = "fix it" if broken else "write numbers with a point, as 1.5"
            raise UserError(f"{_row(table, row)} has the label {cell!r}{', where others are numbers' * broken}; "
                            f"{remedy}, or pass --variant=classes if labels are names of classes")


def _several(table: Table, cells: Sequence[str]) -> Labels:
    """Labels of which any number hold."""
    held = [[name.strip() for name in cell.split("|")] if cell else [] for cell in cells]
    for row, names in enumerate(held):
        if "" in names or len(set(names)) < len(names):
            raise UserError(f"{_row(table, row)} has the label {cells[row]!r}; expected names separated by |, "
                            "none empty and none twice")
    outputs = tuple(sorted(set().union(*held), key=by_number))
    if not outputs:
        raise UserError(f"{table.where}: no label holds in any row; expected names separated by |")
    array = np.array([[name in names for name in outputs] for names in held])
    return Labels([tuple(map(float, row)) for row in array], array,
                  f"any of {len(outputs)} labels: {listed(outputs)}", outputs=outputs)


def cells_of(table: Table) -> dict[str, list[str]]:
    """The cells of every column, by its name."""
    return {name: [row[i] for _, row in table.rows] for i, name in enumerate(table.columns)}


def names_of(table: Table) -> list[str]:
    """What the rows are called: their ids or, without such a column, their places in the table.

    Raises:
      UserError: there are no rows, or an id is empty or given twice.
    """
    if not table.rows:
        raise UserError(f"{table.where} has no rows; expected one for each example")
    ids = cells_of(table).get("id") or [called for called, _ in table.rows]
    _check_ids(table, ids)
    return ids


def _sources(table: Table, modalities: Mapping[str, tuple[str, str]], folder: pathlib.Path,
             ) -> list[dict[str, Source]]:
    """Where the modalities of every row lie, those that it has."""
    sources, cells = [{} for _ in table.rows], cells_of(table)
    for name, (column, kind) in modalities.items():
        given = kind == "text" and not _holds_files(table, column, cells[column])
        for found, cell in zip(sources, cells[column]):
            if cell:
                found[name] = (Source(decode.given, (cell,)) if given else
                               KINDS[kind].source(_path(folder, cell)))
    return sources


def modalities_of(table: Table, needed: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    """(column, kind) by modality of a table that has the columns `needed`."""
    twice = next((name for name, n in collections.Counter(table.columns).items() if n > 1), None)
    if twice is not None:
        raise UserError(f"{table.where} has two columns {twice!r}; rename or remove one")
    found: dict[str, tuple[str, str]] = {}
    for column in table.columns:
        name, _, kind = column.partition(":")
        kind = kind or USUAL.get(name, "")
        if column in COLUMNS:
            continue
        if kind not in KINDS:
            raise UserError(f"{table.where}: unknown column {column!r}" + suggest(
                column, [*COLUMNS, *USUAL], f"NAME:KIND with a kind of {', '.join(KINDS)}, or one of"))
        if not name.isidentifier() or name in RESERVED or name in COLUMNS or name in found:
            raise UserError(f"{table.where}: the column {column!r} cannot be a modality called {name!r}; "
                            "expected letters, digits and _, and a name that is not taken")
        found[name] = column, kind
    if not found or set(needed).difference(table.columns):
        expected = " and ".join([*needed, f"at least one modality: {', '.join(USUAL)} or NAME:KIND"])
        raise UserError(f"{table.where} has the columns {', '.join(table.columns) or 'none'}; expected {expected}")
    return found


def _modality(kind: str, options: Options) -> Modality:
    info = {"column": kind} | ({"fps": options.fps or FPS} if kind == "video" else {})
    return Modality(KINDS[kind].stored, info=info)


def _check_ids(table: Table, ids: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for row, key in enumerate(ids):
        if not key:
            raise UserError(f"{_row(table, row)} has no id; give every row one, or leave out the column")
        if key in first:
            raise UserError(f"{_row(table, row)} has the id {key!r}, as {table.rows[first[key]][0]} has; "
                            "give every row one of its own")
        first[key] = row


def _split(table: Table, row: int, word: str) -> str:
    split = split_name(word)
    if split is None:
        raise UserError(f"{_row(table, row)} has the split {word!r}; expected one of {', '.join(WORDS)}")
    return split


def _divided(groups: Iterable[str], splits: Iterable[str]) -> list[str]:
    """The groups that are in several splits."""
    pairs = collections.Counter(group for group, _ in set(zip(groups, splits)))
    return sorted(group for group, n in pairs.items() if n > 1)


def _holds_files(table: Table, column: str, cells: Sequence[str]) -> bool:
    """Whether a column of texts names files; some cells that do and others that do not are refused."""
    named = [cell.lower().endswith(".txt") for cell in cells if cell]
    if any(named) and not all(named):
        row = next(row for row, cell in enumerate(cells) if cell and not cell.lower().endswith(".txt"))
        raise UserError(f"{_row(table, row)}: {column} is {cells[row][:40]!r}, and in other rows a .txt file; "
                        "put all texts into files, or all into the table")
    return any(named)


def _path(folder: pathlib.Path, cell: str) -> str:
    return os.path.abspath(folder / files.expand(cell))


def _delimiter(text: str) -> str:
    """What separates the cells of the first line."""
    try:
        return csv.Sniffer().sniff(text.partition("\n")[0].strip(), ",;\t").delimiter
    except csv.Error:
        return ","


def _cell(where: str, column: Any, value: Any) -> str:
    missing = value is None or type(value).__name__ in ("NAType", "NaTType")
    if missing or isinstance(value, numbers.Real) and math.isnan(value):
        return ""
    if not isinstance(value, (str, os.PathLike, numbers.Real, np.bool_)):
        raise UserError(f"{where} has {type(value).__name__} as {column}; expected text, a path or a number")
    return str(value).strip()


def _number(cell: str) -> float | None:
    """The number that a cell holds, or None."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", cell, re.I | re.A):
        return None
    value = float(cell)
    return value if abs(value) <= float(np.finfo(np.float32).max) else None


def _row(table: Table, row: int) -> str:
    return f"{table.where}: {table.rows[row][0]}"
