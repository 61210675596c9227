"""Kinetics-Sounds: 31 classes of Kinetics that can be heard and seen (Arandjelovic 2017).

    visual/ID/*.jpg  audio/ID.wav (or audio/ID.npy, filterbanks)  video/ID.mp4
    train.txt  test.txt  (or .csv; val too)

A line of a list is `ID LABEL`, where ID may end in .mp4, or `ytid,start,LABEL`; ID is then ytid or
ytid_start with six digits. Sound and frames come from videos where the other folders are missing.
"""
import pathlib

from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import (Example, Layout, Modality, Skip, clip_name, first_existing,
                                       list_folder, need, read_rows, read_text, sorted_labels,
                                       split_lists)

FPS = 1.0


def layout(source: pathlib.Path, options: Options) -> Layout:
    frames, audio = (first_existing(source, [name]) for name in ("visual", "audio"))
    video = need(source, ["video"]) if not (frames and audio) else None
    files = list_folder(audio or video, suffixes=(".wav", ".npy", ".mp4"))
    banks = bool(files) and all(file.suffix == ".npy" for file in files)
    names = {file.stem for file in files}

    def sources(name: str) -> dict[str, Source]:
        if not audio:
            sound = Source(decode.sound, (str(video / f"{name}.mp4"),))
        elif banks:
            sound = Source(decode.array, (str(audio / f"{name}.npy"),))
        else:
            sound = Source(decode.sound, (str(audio / f"{name}.wav"),))
        return {"audio": sound,
                "visual": (Source(decode.folder, (str(frames / name),)) if frames else
                           Source(decode.video, (str(video / f"{name}.mp4"), FPS)))}

    entries, lists = [], split_lists(source, [".txt", ".csv"])
    for split, path in lists.items():
        for row in _rows(path):
            try:
                full = clip_name(row[0], row[1]) if len(row) == 3 else row[0]
            except ValueError:
                entries.append(Skip(row[0], split, "start is no number", row[1]))
                continue
            name = full if full in names else row[0]
            entries.append(Example(name, split, row[-1], sources(name)))
    modalities = {"audio": Modality("features" if banks else "audio"),
                  "visual": Modality("frames", info={"fps": options.fps or FPS})}
    return Layout(modalities, sorted_labels(entries), entries, tuple(lists.values()))


def _rows(path: pathlib.Path) -> list[list[str]]:
    """[ID, label] or [ytid, start, label] of every line."""
    if path.suffix == ".csv":
        return [row[:3] for row in read_rows(path, ["id", "start", "label"])]
    rows = []
    for line in filter(None, map(str.strip, read_text(path).splitlines())):
        name, label = (line.split(maxsplit=1) + [""])[:2]
        rows.append([name.removesuffix(".mp4"), label.strip()])
    return rows
