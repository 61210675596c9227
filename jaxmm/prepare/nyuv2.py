"""NYU Depth v2: rooms in colour and depth, with the class of every pixel (Silberman et al. 2012).

    {train,test}/{rgb,depth,labels_40}/NNNN.png

Depth is in mm, 16 bits, with holes filled; --variant=depth_raw takes the folder depth_raw, in which
they are 0. Labels are numbers from 1 to 40, 0 where a pixel has no class: the modality "segments",
which is what is learned (`--config.data.target=segments`). There are 795 and 654 rooms, of 640 x 480
pixels. Maps of another size than their picture, of other classes or of none at all are left out.
"""
import pathlib

from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import Example, Layout, Modality, list_folder, need

CLASS_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes",
    "ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard",
    "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture",
    "otherprop")
VARIANTS = ("depth_raw",)


def layout(source: pathlib.Path, options: Options) -> Layout:
    entries = []
    for split in ("train", "test"):
        folder = need(source, [split])
        for file in list_folder(need(folder, ["rgb"]), suffixes=decode.IMAGES):
            def beside(name, classes, folder=folder, file=file):
                return Source(decode.pixel_map, ((str(folder / name / f"{file.stem}.png"), str(file)), classes))

            entries.append(Example(f"{split}_{file.stem}", split, None, {
                "rgb": Source(decode.images, ((str(file),),)),
                "depth": beside(options.variant or "depth", 0),
                "segments": beside("labels_40", len(CLASS_NAMES)),
            }))
    modalities = {"rgb": Modality("frames"), "depth": Modality("map"),
                  "segments": Modality("map", info={"classes": list(CLASS_NAMES)})}
    return Layout(modalities, (), entries)
