"""IEMOCAP: ten actors in dialogue, four emotions (Busso et al. 2008).

    train.csv, test.csv (clip,transcript,label; val or dev too)  audio/ID.wav  visual/ID/*.jpg
    or one .npz file with {train,test}/{audio,visual,text,label}

The lists may also be .txt with ` [split|sign] ` between the values. ID is the clip without its
ending, or the last part of it where there is no such file. Excitement counts as happiness; other
emotions are skipped. Labels of the archive are names, or numbers in the order of CLASS_NAMES. The
images of MLA are crops of the face, 256 x 256; faces are not looked for here.
"""
import pathlib

import numpy as np

from jaxmm.prepare import archive, decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import (Example, Layout, Modality, Skip, first_existing, list_folder,
                                       read_rows, read_text, split_lists)

CLASS_NAMES = ("ang", "hap", "neu", "sad")
OTHERS = ("fru", "fea", "sur", "dis", "oth", "xxx")     # xxx: the annotators did not agree
ENDINGS = (".wav", ".mp4", ".avi", ".mkv", ".webm", ".mov")
SEPARATOR = " [split|sign] "


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    if not first_existing(source, ["audio", "visual"]) and list_folder(
            source, suffixes=(".npz", ".pkl", ".pickle")):
        modalities, rows = archive.read(source)
        entries = [_example(row.key, row.split, row.label, row.sources) for row in rows]
        return Layout(modalities, CLASS_NAMES, entries)
    entries, lists = [], split_lists(source, [".csv", ".txt"])
    for split, path in lists.items():
        for row in _rows(path):
            if len(row) != 3:
                entries.append(Skip(row[0], split, "line is not: clip, transcript, label"))
                continue
            clip, transcript, label = row
            path = pathlib.PurePosixPath(clip)
            name = str(path.with_suffix("") if path.suffix.lower() in ENDINGS else path).lstrip("/")
            short = pathlib.PurePosixPath(name).name
            sound = first_existing(source / "audio", [f"{name}.wav", f"{short}.wav"])
            frames = first_existing(source / "visual", [name, short])
            entries.append(_example(name, split, label, {
                "audio": Source(decode.sound, (str(sound or source / "audio" / f"{name}.wav"),)),
                "text": Source(decode.given, (transcript,)),
                "visual": Source(decode.folder, (str(frames or source / "visual" / name),))}))
    modalities = {"audio": Modality("audio"), "text": Modality("text"),
                  "visual": Modality("frames")}
    return Layout(modalities, CLASS_NAMES, entries, tuple(lists.values()))


def _example(key: str, split: str, label, sources: dict[str, Source]) -> Example | Skip:
    """An example, or a skip if its emotion is not one of the four."""
    name = _emotion(label)
    if name.strip().lower()[:3] in OTHERS:
        return Skip(key, split, "another emotion", name, meant=True)
    return Example(key, split, name, sources)


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
