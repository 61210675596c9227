"""UCF101: 101 actions, colour and optical flow (Soomro et al. 2012).

    visual/NAME/*.jpg  flow_u/NAME/*.jpg  flow_v/NAME/*.jpg  (or u/, v/)  CLASS/NAME.avi
    classInd.txt (`number Class`)  trainlist0K.txt (`CLASS/NAME.avi label`)  testlist0K.txt

K is 1, or that of the variants "split2" and "split3". Frames come from the videos (all of them)
where there is no folder `visual`; flow only from its folders: without them there is no flow. Folders
may also be called CLASS/NAME. The class is that of the path; a number behind it has to be the same.
"""
import pathlib
import re

from jaxmm.errors import UserError
from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import (Example, Layout, Modality, Skip, first_existing, list_folder,
                                       need, read_text, spelling)

LEAST_FLOW = 20         # images: ten of each direction
ALL = 0.0               # frames a second
OTHER_LIST = re.compile("(train|test)list0[123].txt")


def layout(source: pathlib.Path, options: Options) -> Layout:
    number = options.variant.removeprefix("split") or "1"
    lists = first_existing(source, ["ucfTrainTestlist"]) or source
    numbers = _classes(need(lists, ["classInd.txt"]))
    class_names = tuple(numbers[number] for number in sorted(numbers))
    frames = first_existing(source, ["visual"])
    videos = first_existing(source, ["UCF-101"]) or source
    flow = [first_existing(source, names) for names in (["flow_u", "u"], ["flow_v", "v"])]

    def in_folder(folder: pathlib.Path, path: str) -> str:
        name = path.removesuffix(".avi")
        short = name.rpartition("/")[2]
        return str(first_existing(folder, [name, short]) or folder / short)

    def sources(path: str) -> dict[str, Source]:
        visual = (Source(decode.folder, (in_folder(frames, path),)) if frames else
                  Source(decode.video, (str(videos / path), ALL)))
        both = (tuple(in_folder(folder, path) for folder in flow),) if all(flow) else None
        return {"visual": visual} | ({"flow": Source(decode.flow, both)} if both else {})

    entries, used = [], []
    for split in ("train", "test"):
        used.append(need(lists, [f"{split}list0{number}.txt"]))
        for line in _lines(used[-1]):
            path, _, said = line.partition(" ")
            label, key = path.rpartition("/")[0], path.removesuffix(".avi")
            given = numbers.get(int(said), said) if said.strip().isdecimal() else label
            if spelling(given) != spelling(label or given):
                entries.append(Skip(key, split, "label is not the class of the path", line))
            else:
                entries.append(Example(key, split, label or given, sources(path)))
    modalities = {"visual": Modality("frames")} | (
        {"flow": Modality("flow", LEAST_FLOW)} if all(flow) else {})
    # The lists of the other variants are not ignored, but not asked for.
    used += [path for path in list_folder(lists, suffixes=(".txt",)) if OTHER_LIST.fullmatch(path.name)]
    return Layout(modalities, class_names, entries, tuple(used))


def _classes(path: pathlib.Path) -> dict[int, str]:
    """The names of the classes by their numbers."""
    result = {}
    for line in _lines(path):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name.strip() or int(number) in result:
            raise UserError(f"{path}: {line!r} is not a line of the form `number Class`, each number once")
        result[int(number)] = name.strip()
    return result


def _lines(path: pathlib.Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
