"""NYU Depth v2: rooms in colour and depth, with the class of every pixel (Silberman et al. 2012).

    {train,test}/{rgb,depth_raw,labels_40}/NNNN.png

There is nothing to classify: the label of every record is -1, and the modality "segments" holds
the class of each pixel, 1 to 40, or 0 where it has none.
"""
import pathlib

from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import Example, Layout, Modality, list_folder, need

NUM_CLASSES = 40


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    entries = []
    for split in ("train", "test"):
        folder = need(source, [split])
        for file in list_folder(need(folder, ["rgb"]), suffixes=decode.IMAGES):
            entries.append(Example(f"{split}_{file.stem}", split, None, {
                "rgb": Source(decode.images, ((str(file),),)),
                "depth": Source(decode.png, (str(folder / "depth_raw" / f"{file.stem}.png"),)),
                "segments": Source(decode.png, (str(folder / "labels_40" / f"{file.stem}.png"),)),
            }))
    modalities = {"rgb": Modality("frames"), "depth": Modality("map"),
                  "segments": Modality("map", info={"classes": NUM_CLASSES})}
    return Layout(modalities, (), entries)
