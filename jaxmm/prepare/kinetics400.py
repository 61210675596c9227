"""Kinetics-400: 400 human actions in clips of ten seconds (Kay et al. 2017).

    train/CLASS/*.mp4  val/CLASS/*.mp4
    or train.csv, val.csv (label,youtube_id,time_start,time_end,split)
    with ID.mp4 or ID_{start:06d}_{end:06d}.mp4 in SPLIT/CLASS/, SPLIT/ or the folder itself

The published validation clips are the test split, as those of the published test set have no
labels that anyone can get. Sound and all frames (30 a second) come from the videos.
"""
import pathlib

from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import (Example, Layout, Modality, Skip, first_existing, list_folder,
                                       need, read_rows, sorted_labels, split_name)

FPS = 30.0
VIDEOS = (".mp4", ".mkv", ".webm", ".avi")


def layout(source: pathlib.Path, options: Options) -> Layout:
    lists = tuple(list_folder(source, suffixes=(".csv",)))
    entries = [entry for path in lists for entry in _listed(source, path)] or _in_folders(source)
    if not any(entry.split == "test" for entry in entries):
        entries = [e._replace(split="test") if e.split == "val" else e for e in entries]
    modalities = {"audio": Modality("audio"),
                  "visual": Modality("frames", info={"fps": options.fps or FPS})}
    return Layout(modalities, sorted_labels(entries), entries, lists)


def _in_folders(source: pathlib.Path) -> list[Example]:
    """The examples in the folders SPLIT/CLASS."""
    need(source, ["train"])
    return [_example(file, split, folder.name, f"{split}/{folder.name}/{file.stem}")
            for split_folder in list_folder(source, folders=True)
            if (split := split_name(split_folder.name))
            for folder in list_folder(split_folder, folders=True)
            for file in list_folder(folder, suffixes=VIDEOS)]


def _listed(source: pathlib.Path, path: pathlib.Path) -> list[Example | Skip]:
    """The examples of one list, wherever their videos are."""
    entries = []
    for label, ytid, start, end, word, *_ in read_rows(
            path, ["label", "youtube_id", "time_start", "time_end", "split"]):
        split = split_name(word)
        if split is None:
            entries.append(Skip(ytid, word, "unknown split"))
            continue
        names = [ytid]
        if start.isdecimal() and end.isdecimal():
            names.insert(0, f"{ytid}_{int(start):06d}_{int(end):06d}")
        folders = [f"{f}/{c}" for f in (path.stem, word, split) for c in (f"{label}/", "")] + [""]
        files = [f"{folder}{name}.mp4" for folder in folders for name in names]
        file = first_existing(source, files) or source / files[0]
        entries.append(_example(file, split, label, names[0]))
    return entries


def _example(file: pathlib.Path, split: str, label: str, key: str) -> Example:
    return Example(key, split, label, {
        "audio": Source(decode.sound, (str(file),)),
        "visual": Source(decode.video, (str(file), FPS))})
