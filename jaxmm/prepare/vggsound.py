"""VGGSound: 309 classes of ten-second clips (Chen et al. 2020).

    vggsound.csv (ytid,start,label,split)  audio/NAME.wav  images/Image-{fps:02d}-FPS/NAME.mp4/*.jpg
    NAME.mp4 (or video/NAME.mp4)

NAME is ytid_start with six digits; folders of frames may also be called NAME or ytid_start. Sound
and frames come from the videos where the other folders are missing. Clips of fewer than four
frames are skipped.

The variant "mmcl" is the benchmark of arXiv 2405.02766: 100 classes, 20 of each of five
super-categories (`vggsound_mmcl.csv`). Of the clips of a class that are there, in the order of the
published split (test first) and then of the list, the first 50 are its test clips and the next 500
at most its training clips.
"""
import collections
import pathlib

from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import (Example, Layout, Modality, Skip, clip_name, first_existing,
                                       list_folder, need, read_rows, sorted_labels, split_name)

FPS = 1.0
LEAST_FRAMES = 4
MMCL_CLASSES = pathlib.Path(__file__).with_name("vggsound_mmcl.csv")
MMCL_TEST, MMCL_TRAIN = 50, 500     # clips of a class


def layout(source: pathlib.Path, options: Options) -> Layout:
    fps = options.fps or FPS
    audio = first_existing(source, ["audio"])
    images = first_existing(source, [f"images/Image-{fps:02.0f}-FPS"])
    found = {path.name for path in list_folder(images, folders=True)} if images else set()
    videos = first_existing(source, ["video"]) or source

    def sources(ytid: str, start: str, name: str) -> dict[str, Source]:
        video = str(videos / f"{name}.mp4")
        folder = next((n for n in (f"{name}.mp4", name, f"{ytid}_{start}") if n in found), name)
        return {"audio": Source(decode.sound, (str(audio / f"{name}.wav") if audio else video,)),
                "visual": (Source(decode.folder, (str(images / folder),)) if images else
                           Source(decode.video, (video, FPS)))}

    entries = []
    path = need(source, ["vggsound.csv"])
    for ytid, start, label, word, *_ in read_rows(path, ["ytid", "start", "label", "split"]):
        split = split_name(word)
        try:
            name = clip_name(ytid, start)
        except ValueError:
            entries.append(Skip(ytid, split or word, "start is no number", start))
            continue
        if split is None:
            entries.append(Skip(name, word, "unknown split"))
        else:
            entries.append(Example(name, split, label, sources(ytid, start, name)))
    class_names = sorted_labels(entries)
    if options.variant == "mmcl":
        class_names = tuple(sorted(row[0] for row in read_rows(MMCL_CLASSES, ["class", "coarse"])))
        entries = select_mmcl(entries, class_names)
    modalities = {"audio": Modality("audio"),
                  "visual": Modality("frames", LEAST_FRAMES, {"fps": fps})}
    return Layout(modalities, class_names, entries, (path,))


def select_mmcl(entries: list[Example | Skip], class_names: tuple[str, ...],
                ) -> list[Example | Skip]:
    """The clips of the benchmark, in its splits; `entries` in the order of the list."""
    clips = [e for e in entries if isinstance(e, Example) and e.label in class_names]
    taken, chosen = collections.Counter(), []
    for clip in sorted(clips, key=lambda e: e.split):       # keeps the order within a split
        gone = [path for source in clip.sources.values() for path in source.paths
                if not decode.existing(path)]
        if gone:
            chosen.append(Skip(clip.key, clip.split, "files missing", gone[0]))
            continue
        rank = taken[clip.label]
        taken[clip.label] += 1
        if rank < MMCL_TEST + MMCL_TRAIN:
            chosen.append(clip._replace(split="test" if rank < MMCL_TEST else "train"))
        else:
            chosen.append(Skip(clip.key, clip.split, "more than the benchmark has of its class",
                               meant=True))
    return chosen
