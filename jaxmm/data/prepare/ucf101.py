"""UCF101: 101 actions, colour and optical flow (Soomro et al. 2012).

    visual/NAME/*.jpg  flow_u/NAME/*.jpg  flow_v/NAME/*.jpg  (or u/, v/)  CLASS/NAME.avi
    classInd.txt (`number Class`)  trainlist0K.txt (`CLASS/NAME.avi label`)  testlist0K.txt

K is 1, or that of the variants "split2" and "split3". Frames come from the videos (all of them)
where there is no folder `visual`; flow only from its folders: without them there is no flow.
"""
import pathlib

from jaxmm.data.prepare import decode
from jaxmm.data.prepare.decode import Options, Source
from jaxmm.data.prepare.layout import (Example, Layout, Modality, first_existing, need, read_text)

LEAST_FLOW = 20         # images: ten of each direction
ALL = 0.0               # frames a second


def layout(source: pathlib.Path, options: Options) -> Layout:
    number = options.variant.removeprefix("split") or "1"
    lists = first_existing(source, ["ucfTrainTestlist"]) or source
    class_names = tuple(line.split(maxsplit=1)[-1]
                        for line in _lines(need(lists, ["classInd.txt"])))
    frames = first_existing(source, ["visual"])
    videos = first_existing(source, ["UCF-101"]) or source
    flow = [first_existing(source, names) for names in (["flow_u", "u"], ["flow_v", "v"])]

    def sources(path: str, name: str) -> dict[str, Source]:
        visual = (Source(decode.folder, (str(frames / name),)) if frames else
                  Source(decode.video, (str(videos / path), ALL)))
        both = (tuple(str(folder / name) for folder in flow),) if all(flow) else None
        return {"visual": visual} | ({"flow": Source(decode.flow, both)} if both else {})

    entries = []
    for split in ("train", "test"):
        for line in _lines(need(lists, [f"{split}list0{number}.txt"])):
            path = line.split()[0]
            label, _, file = path.partition("/")
            name = file.removesuffix(".avi")
            entries.append(Example(name, split, label, sources(path, name)))
    modalities = {"visual": Modality("frames")} | (
        {"flow": Modality("flow", LEAST_FLOW)} if all(flow) else {})
    return Layout(modalities, class_names, entries)


def _lines(path: pathlib.Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
