"""What a data set consists of, and the lists that say so, before any example is decoded."""
import csv
import io
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxmm.data.prepare.decode import Source, decode_text
from jaxmm.errors import UserError


class Example(NamedTuple):
    """One example, still in the user's files."""
    key: str                        # its name, unique in the data set
    split: str                      # "train", "val" or "test"
    label: str | None               # name of its class; None in a data set without classes
    sources: dict[str, Source]      # by modality; those that it may have


class Skip(NamedTuple):
    """An example that is left out, and why."""
    key: str
    split: str
    reason: str                     # the same words for all examples of a kind: they are counted
    detail: str = ""
    broken: bool = False            # a file is damaged, rather than absent or unwanted


class Modality(NamedTuple):
    """What holds for one modality of all examples."""
    kind: str                       # a key of `jaxmm.data.prepared.KINDS`
    least: int = 1                  # frames that an example needs
    info: dict[str, Any] = {}       # facts for the reader, such as "fps"


class Layout(NamedTuple):
    """A data set as found on disk: what a builder returns."""
    modalities: dict[str, Modality]
    class_names: tuple[str, ...]    # by class number
    entries: list[Example | Skip]   # in any order that does not depend on directory listings


def read_text(path: pathlib.Path) -> str:
    """The text of a list file, in UTF-8 (byte order mark or not) or Windows-1252."""
    try:
        return decode_text(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {_reason(error)}; expected a text file") from error


def read_rows(path: pathlib.Path, columns: Sequence[str], delimiter: str = ",") -> list[list[str]]:
    """The rows of a CSV file, without the header if its first row holds the names of `columns`.

    Raises:
      UserError: it cannot be read, or a row has fewer values than there are columns.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_text(path)), delimiter=delimiter,
                               quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL))
    except csv.Error as error:
        raise UserError(f"cannot read {path}: {error}; expected columns "
                        f"{', '.join(columns)}") from error
    rows = [[value.strip() for value in row] for row in rows]
    rows = [row for row in rows if any(row)]
    if rows and rows[0][0].lower() == columns[0].lower():
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if len(row) < len(columns):
            raise UserError(f"{path}: row {number} has {len(row)} values; expected "
                            f"{', '.join(columns)}")
    return rows


def read_jsonl(path: pathlib.Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file.

    Raises:
      UserError: it cannot be read, or a line is no object with these fields.
    """
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is no JSON ({error}); expected one object a "
                            "line") from error
        if not isinstance(row, dict) or not set(fields) <= set(row):
            raise UserError(f"{path}: line {number} lacks one of {', '.join(fields)}")
        rows.append(row)
    return rows


def list_folder(path: pathlib.Path, *, folders: bool = False,
                suffixes: Iterable[str] = ()) -> list[pathlib.Path]:
    """What a folder holds, sorted by name: its folders, or its files that end in `suffixes`.

    Raises:
      UserError: it cannot be read, or a name in it is not UTF-8.
    """
    try:
        with os.scandir(path) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and (
                e.is_dir() if folders else pathlib.Path(e.name).suffix.lower() in set(suffixes))]
        "".join(names).encode()
    except OSError as error:
        raise UserError(f"cannot read the folder {path}: {_reason(error)}") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{path} holds a name that is not UTF-8; rename the files with "
                        "convmv -f latin1 -t utf8") from error
    return [path / name for name in sorted(names)]


def first_existing(source: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
    """The first of the files or folders `names` of `source` that is there."""
    return next((source / name for name in names if os.path.exists(source / name)), None)


def need(source: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
    """Like `first_existing`, but one has to be there.

    Raises:
      UserError: none is.
    """
    found = first_existing(source, names)
    if found is None:
        raise UserError(f"{source} has no {' or '.join(names)}; expected the files that "
                        "--describe_layout shows")
    return found


def split_name(word: str) -> str | None:
    """Our name of the split that a list or folder calls `word`."""
    return {"train": "train", "training": "train", "val": "val", "valid": "val", "dev": "val",
            "validate": "val", "validation": "val", "test": "test", "testing": "test",
            }.get(word.strip().lower())


def split_lists(source: pathlib.Path, suffixes: Sequence[str]) -> dict[str, pathlib.Path]:
    """The list files of the splits: train and test, and val (or dev) if it is there.

    Raises:
      UserError: one is missing.
    """
    lists = {split: need(source, [split + suffix for suffix in suffixes])
             for split in ("train", "test")}
    val = first_existing(source, [name + suffix for name in ("val", "dev") for suffix in suffixes])
    return lists | ({"val": val} if val else {})


def sorted_labels(entries: Iterable[Example | Skip]) -> tuple[str, ...]:
    """Class names in alphabetical order, where a data set has no order of its own."""
    return tuple(sorted({e.label for e in entries if isinstance(e, Example)}))


def clip_name(ytid: str, start: str) -> str:
    """The name of a clip of a video: its id and the second at which it starts, in six digits.

    Raises:
      ValueError: `start` is no number of seconds.
    """
    seconds = float(start)
    if not 0 <= seconds < 1e6:
        raise ValueError(f"a clip cannot start at {start} s")
    return f"{ytid}_{int(seconds):06d}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

