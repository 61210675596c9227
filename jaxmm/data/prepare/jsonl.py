"""Pictures with text, listed in JSON lines: {train,dev,test}.jsonl with id, label, text, img."""
import pathlib

from jaxmm.data.prepare import decode
from jaxmm.data.prepare.decode import Source
from jaxmm.data.prepare.layout import (Example, Modality, first_existing, read_jsonl,
                                       split_lists)

MODALITIES = {"text": Modality("text"), "visual": Modality("frames")}
FIELDS = ("id", "label", "text", "img")
FOLDERS = ("", "images/", "data/")      # where the path of a picture may start


def examples(source: pathlib.Path) -> list[Example]:
    """What the lists have; nothing where there is no train.jsonl."""
    if not (source / "train.jsonl").exists():
        return []
    entries = []
    for split, path in split_lists(source, [".jsonl"]).items():
        for row in read_jsonl(path, FIELDS):
            # JSON may hold halves of characters, which no file can.
            key, label, text, image = (str(row[field]).encode(errors="replace").decode()
                                       for field in FIELDS)
            file = (first_existing(source, [f"{folder}{image}" for folder in FOLDERS])
                    or source / image)
            entries.append(Example(key, split, label, {
                "text": Source(decode.given, (text,)),
                "visual": Source(decode.images, ((str(file),),))}))
    return entries
