"""ModelNet40: shapes of 40 classes, each seen from twelve sides (Wu et al. 2015, Su et al. 2015).

    CLASS/{train,test}/NAME.obj.shaded_vNNN.png (or NAME_NNN.png, or .jpg), NNN from 001 to 012

The modalities are two of the views: front is view 1, rear view 7. There are 9843 shapes to train on and
2468 to test on.
"""
import pathlib
import re

from jaxmm.errors import UserError
from jaxmm.prepare import decode
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import Example, Layout, Modality, list_folder

NAME = re.compile(r"(.+?)(?:\.obj\.shaded_v|_)(\d+)")
VIEWS = {"front": 1, "rear": 7}


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    classes = [folder for folder in list_folder(source, folders=True)
               if (folder / "train").is_dir() or (folder / "test").is_dir()]
    entries = []
    for folder in classes:
        for split in ("train", "test"):
            part = folder / split
            files = list_folder(part, suffixes=decode.IMAGES) if part.is_dir() else []
            shapes: dict[str, dict[int, pathlib.Path]] = {}
            for file in files:
                found = NAME.fullmatch(file.stem)
                if not found:
                    raise UserError(f"{file}: no view of a shape; expected NAME.obj.shaded_vNNN.png or "
                                    "NAME_NNN.png: remove it or rename it")
                views, view = shapes.setdefault(found[1], {}), int(found[2])
                if view in views:
                    raise UserError(f"{file}: view {view} of {found[1]} is there twice, the other one is "
                                    f"{views[view].name}; remove one of them")
                views[view] = file
            for name, views in shapes.items():
                sources = {m: Source(decode.images, ((str(views[view]),),))
                           for m, view in VIEWS.items() if view in views}
                entries.append(Example(f"{folder.name}/{split}/{name}", split, folder.name, sources))
    modalities = {m: Modality("frames") for m in VIEWS}
    return Layout(modalities, tuple(folder.name for folder in classes), entries)
