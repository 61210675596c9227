"""The examples of a data set and the lists that name them, before any example is decoded."""
import collections
import csv
import io
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxmm.errors import UserError
from jaxmm.prepare.decode import Source, check_in_place, decode_text, existing


WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "dev": "val",
         "validate": "val", "validation": "val", "test": "test", "testing": "test"}
# Names of the list files of a split: train, train_list, trainlist01, training-split, ...
ANY_WORD = "|".join(sorted(WORDS, key=len, reverse=True))
LIST_NAME = re.compile(rf"({ANY_WORD})([ _-]?(list|split|set|data|files|labels|annotations))?"
                       r"([ _-]?0*1)?", re.I)
LIKE_A_LIST = re.compile(rf"({ANY_WORD})(list|set|split)?(?![a-z])", re.I)
LISTS = (".csv", ".txt", ".tsv", ".json", ".jsonl", ".lst")     # what list files end in
UNLABELLED = ("", "nan", "null")
FIRST = 10      # names given for every reason


class Example(NamedTuple):
    """One example, still in the user's files."""
    key: str                        # its name, as the list has it, or else its path
    split: str                      # "train", "val" or "test"
    label: str | tuple[float, ...] | None   # name of its class, or numbers to predict; None where there
                                    # is neither in a data set
    sources: dict[str, Source]      # by modality; those that it may have


class Skip(NamedTuple):
    """An example that is left out, and why."""
    key: str
    split: str
    reason: str                     # the same words for all examples of a kind, as reasons are counted
    detail: str = ""
    broken: bool = False            # a file is damaged, rather than absent
    meant: bool = False             # left out by the rules of the data set


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
    lists: tuple[pathlib.Path, ...] = ()    # files that were read for it
    notes: dict[str, dict[str, Any]] = {}   # what was not taken as it stands there, see `count_name`
    outputs: tuple[str, ...] = ()   # names of the numbers to predict, in place of classes
    multilabel: bool = False        # these are 0 or 1: labels that hold or not
    drawn: bool = False             # the splits, which the user's files do not have
    groups: dict[str, str] = {}     # by key, if there are any: no group is divided when rows are drawn


def read_text(path: pathlib.Path) -> str:
    """The text of a list file, in UTF-8 (byte order mark or not) or Windows-1252."""
    try:
        if path.exists() and not path.is_file():     # a pipe would be waited for
            raise ValueError("no regular file")
        content = path.read_bytes()
        check_in_place(content[:200].lstrip())
        return decode_text(content)[0]
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
    wanted = [name.lower() for name in columns]
    header, order = [name.lower() for name in rows[0]] if rows else [], None
    if set(wanted) <= set(header):          # in any order, with others between them
        order = [header.index(name) for name in wanted]
        order += [i for i in range(len(header)) if i not in order]
    first = 1 if order or header[:1] == wanted[:1] else 0
    least = max(order[:len(wanted)]) + 1 if order else len(wanted)
    for number, row in enumerate(rows[first:], first + 1):
        if len(row) < least:
            raise UserError(f"{path}: row {number} has {len(row)} values; expected "
                            f"{', '.join(columns)}")
    if not order:
        return rows[first:]
    return [[row[i] for i in order if i < len(row)] + row[len(order):] for row in rows[first:]]


def read_jsonl(path: pathlib.Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file.

    Raises:
      UserError: it cannot be read, or a line is not an object with these fields.
    """
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is not JSON ({error}); expected one object a "
                            "line") from error
        if not isinstance(row, dict) or not set(fields) <= set(row):
            raise UserError(f"{path}: line {number} lacks one of {', '.join(fields)}")
        rows.append(row)
    return rows


def list_folder(path: pathlib.Path, *, folders: bool = False,
                suffixes: Iterable[str] = ()) -> list[pathlib.Path]:
    """The content of a folder, sorted by name: its folders, or its files that end in `suffixes`.

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
    """The first of the files or folders `names` that exists in `source`, with its ending in any case."""
    found = (existing(str(source / name)) for name in names)
    return next((pathlib.Path(path) for path in found if path), None)


def need(source: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
    """Like `first_existing`, but one must exist.

    Raises:
      UserError: none exists.
    """
    found = first_existing(source, names)
    if found is None:
        raise UserError(f"{source} has no {' or '.join(names)}; expected the files that "
                        "--describe_layout shows")
    return found


def split_name(word: str) -> str | None:
    """Our name of the split that a list or folder calls `word`."""
    return WORDS.get(word.strip().lower())


def split_of(stem: str) -> str | None:
    """The split whose list a file with this stem is, by the usual names."""
    match = LIST_NAME.fullmatch(stem)
    return match and WORDS[match[1].lower()]


def split_lists(source: pathlib.Path, suffixes: Sequence[str]) -> dict[str, pathlib.Path]:
    """The list files of the splits: train and test, and val if it is there.

    Files called train, val and test are taken before those with other usual names, such as
    train_list and trainlist01, and earlier `suffixes` before later ones.

    Raises:
      UserError: train or test is missing.
    """
    found: dict[str, list] = {"train": [], "val": [], "test": []}
    for path in list_folder(source, suffixes=suffixes):
        if split := split_of(path.stem):
            rank = path.stem.lower() != split, suffixes.index(path.suffix.lower()), path.name
            found[split].append((rank, path))
    for split in ("train", "test"):
        if not found[split]:
            need(source, [split + suffix for suffix in suffixes])
    return {split: min(paths)[1] for split, paths in found.items() if paths}


def ignored_lists(source: pathlib.Path, used: Iterable[pathlib.Path]) -> list[str]:
    """Files in the folder that have the name of a list of a split, but are not used."""
    names = {path.name for path in used}
    return [path.name for path in list_folder(source, suffixes=LISTS)
            if LIKE_A_LIST.match(path.stem) and path.name not in names]


def unlisted(layout: Layout) -> dict[str, Any]:
    """The number of files, or folders of frames, next to listed ones that no list names; and the first."""
    used: dict[str, set[str]] = {}
    for entry in layout.entries if layout.lists else ():
        for source in entry.sources.values() if isinstance(entry, Example) else ():
            for path in source.paths:
                folder, name = os.path.split(path)
                used.setdefault(folder, set()).add(name.lower())
    skipped = {entry.key.lower() for entry in layout.entries if isinstance(entry, Skip)}
    found: dict[str, dict[str, Any]] = {"unlisted": {"count": 0, "first": []}}
    for folder, names in sorted(used.items()):
        endings = {os.path.splitext(name)[1] for name in names}
        others = [name for name in (os.listdir(folder) if os.path.isdir(folder) else ())
                  if name.lower() not in names and os.path.splitext(name)[1].lower() in endings
                  and os.path.splitext(name)[0].lower() not in skipped and not name.startswith(".")]
        for name in sorted(others):
            count_name(found, "unlisted", os.path.join(folder, name))
    return found["unlisted"]


def spelling(label: str) -> str:
    """A key for labels, the same if they differ only in capitals, spaces or underscores, or as 1 and 1.0."""
    if re.fullmatch(r"[+-]?\d{1,18}(\.0*)?", label):
        return str(int(label.partition(".")[0]))
    return " ".join(label.replace("_", " ").split()).casefold()


def sorted_labels(entries: Iterable[Example | Skip]) -> tuple[str, ...]:
    """Class names, sorted as numbers or alphabetically, for data sets without a fixed list.

    Of names that differ only in `spelling` the most frequent one is taken.
    """
    counts = collections.Counter(e.label for e in entries if isinstance(e, Example))
    names: dict[str, str] = {}
    for label in sorted(counts):
        if spelling(label) not in UNLABELLED:
            other = names.setdefault(spelling(label), label)
            names[spelling(label)] = max(other, label, key=counts.__getitem__)
    try:
        if len(names) > 2 and min(map(float, set(names) - {"-1"})) >= 0:
            names.pop("-1", None)           # with class numbers it means no class
        return tuple(sorted(names.values(), key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(sorted(names.values()))


def clip_name(ytid: str, start: str) -> str:
    """The name of a clip of a video: its id and the second at which it starts, in six digits.

    Raises:
      ValueError: `start` is not a number of seconds.
    """
    seconds = float(start)
    if not 0 <= seconds < 1e6:
        raise ValueError(f"a clip cannot start at {start} s")
    return f"{ytid}_{int(seconds):06d}"


def count_name(counts: dict[str, dict[str, Any]], what: str, name: str) -> None:
    """Counts one more case of `what`, with the first few names."""
    entry = counts.setdefault(what, {"count": 0, "first": []})
    entry["count"] += 1
    entry["first"] = (entry["first"] + [name])[:FIRST]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

