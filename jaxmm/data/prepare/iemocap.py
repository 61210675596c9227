"""IEMOCAP: ten actors in dialogue, four emotions (Busso et al. 2008).

    train.csv, test.csv (clip,transcript,label; val or dev too)  audio/ID.wav  visual/ID/*.jpg
    or one .npz file with {train,test}/{audio,visual,text,label}

The lists may also be .txt with ` [split|sign] ` between the values. ID is the name of the clip
without its ending. Excitement counts as happiness; other emotions are skipped. Labels of the
archive are names, or numbers in the order of CLASS_NAMES.
"""
import pathlib

import numpy as np

from jaxmm.data.prepare import archive, decode
from jaxmm.data.prepare.decode import Options, Source
from jaxmm.data.prepare.layout import (Example, Layout, Modality, Skip, first_existing, list_folder,
                                       read_rows, read_text, split_lists)

CLASS_NAMES = ("ang", "hap", "neu", "sad")
SEPARATOR = " [split|sign] "


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    if not first_existing(source, ["audio", "visual"]) and list_folder(
            source, suffixes=(".npz", ".pkl", ".pickle")):
        modalities, rows = archive.read(source)
        entries = [Example(row.key, row.split, _emotion(row.label), row.sources) for row in rows]
        return Layout(modalities, CLASS_NAMES, entries)
    entries = []
    for split, path in split_lists(source, [".csv", ".txt"]).items():
        for row in _rows(path):
            if len(row) != 3:
                entries.append(Skip(row[0], split, "line is not: clip, transcript, label"))
                continue
            clip, transcript, label = row
            name = pathlib.Path(clip).stem
            entries.append(Example(name, split, _emotion(label), {
                "audio": Source(decode.sound, (str(source / "audio" / f"{name}.wav"),)),
                "text": Source(decode.given, (transcript,)),
                "visual": Source(decode.folder, (str(source / "visual" / name),))}))
    modalities = {"audio": Modality("audio"), "text": Modality("text"),
                  "visual": Modality("frames")}
    return Layout(modalities, CLASS_NAMES, entries)


def _emotion(label) -> str:
    """The name of the class, or of another emotion."""
    if not isinstance(label, str):
        label = label.item() if np.size(label) == 1 else str(label)
    if label in range(len(CLASS_NAMES)):
        return CLASS_NAMES[int(label)]
    word = label.decode(errors="replace") if isinstance(label, bytes) else str(label)
    short = word.strip().lower()[:3]
    return "hap" if short == "exc" else short if short in CLASS_NAMES else word


def _rows(path: pathlib.Path) -> list[list[str]]:
    if path.suffix == ".csv":
        return [row[:3] for row in read_rows(path, ["clip", "transcript", "label"])]
    lines = filter(None, map(str.strip, read_text(path).splitlines()))
    return [[value.strip() for value in line.split(SEPARATOR)] for line in lines]
