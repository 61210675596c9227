"""Pictures with text, listed in JSON lines: {train,dev,test}.jsonl with id, label, text, img.

A label is a string or a number, or a list with one of them; null stands for a missing value.
"""
import json
import pathlib
from typing import Any

from jaxmm.errors import UserError
from jaxmm.prepare import decode
from jaxmm.prepare.decode import Source
from jaxmm.prepare.layout import (Example, Modality, first_existing, list_folder, read_jsonl,
                                       split_lists, split_of)

MODALITIES = {"text": Modality("text"), "visual": Modality("frames")}
FIELDS = ("id", "label", "text", "img")
FOLDERS = ("", "images/", "data/")      # where the path of a picture may start


def examples(source: pathlib.Path) -> tuple[list[Example], tuple[pathlib.Path, ...]] | None:
    """(The examples of the lists, the lists), or None if there is no list for training."""
    if not any(split_of(path.stem) == "train" for path in list_folder(source, suffixes=[".jsonl"])):
        return None
    entries, lists = [], split_lists(source, [".jsonl"])
    for split, path in lists.items():
        for number, row in enumerate(read_jsonl(path, FIELDS), 1):
            row["label"] = plain_label(f"{path}: example {number}", row["label"])
            # JSON may hold halves of surrogate pairs, which cannot be written to a file.
            key, label, text, image = (str("" if row[field] is None else row[field])
                                       .encode(errors="replace").decode() for field in FIELDS)
            file = (first_existing(source, [f"{folder}{image}" for folder in FOLDERS])
                    or source / image)
            sources = {"text": Source(decode.given, (text,)),
                       "visual": Source(decode.images, ((str(file),),))}
            entries.append(Example(key, split, label, {
                m: sources[m] for m, field in (("text", "text"), ("visual", "img"))
                if row[field] is not None}))
    return entries, tuple(lists.values())


def plain_label(where: str, label: Any) -> str:
    """A label of JSON as the name of a class, "" for none.

    Raises:
      UserError: it is a list of several labels, or of a type that cannot be a class name.
    """
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if label is None or label == []:
        return ""
    if isinstance(label, (list, dict)):
        raise UserError(f"{where}: the label is {json.dumps(label)[:60]}; expected one class name or "
                        "number for every example")
    return json.dumps(label) if isinstance(label, bool) else str(label)
