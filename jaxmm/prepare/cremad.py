"""CREMA-D: 91 actors say twelve sentences in six emotions (Cao et al. 2014).

    AudioWAV/ID.wav  VideoFlash/ID.flv  Image-{fps:02d}-FPS/ID/*.jpg  train.csv  test.csv
    (or .txt; val.csv too)

ID is ACTOR_SENTENCE_EMOTION_LEVEL. Sound comes from the wav files or else the videos, frames from
a folder of images or else the videos. The published split (ID,EMOTION in the two lists) has the
same actors in train and test. The variant "speakers" needs no list: 73 actors are train, 9 val and
9 test.
"""
import pathlib
from collections.abc import Mapping

import numpy as np

from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import (Example, Layout, Modality, first_existing, list_folder, need,
                                       read_rows, split_lists)

CLASS_NAMES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
FPS = 1.0
HELD_OUT = 0.1          # share of the actors in val, and in test, of the variant "speakers"


def layout(source: pathlib.Path, options: Options) -> Layout:
    lists = {} if options.variant else split_lists(source, [".csv", ".txt"])
    rows = speaker_split(source) if options.variant else listed_split(lists)
    sound = first_existing(source, ["AudioWAV"])
    fps = options.fps or FPS
    frames = first_existing(source, [f"Image-{fps:02.0f}-FPS"])
    video = source / "VideoFlash" if sound and frames else need(source, ["VideoFlash"])

    def sources(name: str) -> dict[str, Source]:
        flv = str(video / f"{name}.flv")
        return {"audio": Source(decode.sound, (str(sound / f"{name}.wav") if sound else flv,)),
                "visual": (Source(decode.folder, (str(frames / name),)) if frames else
                           Source(decode.video, (flv, FPS)))}

    entries = [Example(name, split, label, sources(name)) for name, split, label in rows]
    modalities = {"audio": Modality("audio"), "visual": Modality("frames", info={"fps": fps})}
    return Layout(modalities, CLASS_NAMES, entries, tuple(lists.values()))


def listed_split(lists: Mapping[str, pathlib.Path]) -> list[tuple[str, str, str]]:
    """(ID, split, emotion) of the list of every split."""
    return [(row[0], split, row[1]) for split, path in lists.items()
            for row in read_rows(path, ["ID", "LABEL"])]


def speaker_split(source: pathlib.Path) -> list[tuple[str, str, str]]:
    """(ID, split, emotion) of all clips in the folder; every actor is in one split only."""
    folder = need(source, ["AudioWAV", "VideoFlash"])
    names = [file.stem for file in list_folder(folder, suffixes=(".wav", ".flv"))]
    actors = sorted({name.partition("_")[0] for name in names})
    order = np.random.default_rng(0).permutation(len(actors))
    held_out = max(round(HELD_OUT * len(actors)), 1)
    split = {actors[a]: "test" if i < held_out else "val" if i < 2 * held_out else "train"
             for i, a in enumerate(order)}
    return [(name, split[name.partition("_")[0]], (name.split("_") + 3 * [""])[2])
            for name in sorted(set(names))]
