"""UPMC Food-101: photographs of dishes with the title of their page (Wang et al. 2015).

    images/{train,test}/CLASS/X.jpg  texts/{train,test}_titles.csv (image,text,class)
    or {train,dev,test}.jsonl (id, label, text, img)
"""
import pathlib

from jaxmm.data.prepare import decode, jsonl
from jaxmm.data.prepare.decode import Options, Source
from jaxmm.data.prepare.layout import Example, Layout, need, read_rows, sorted_labels


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    entries = jsonl.examples(source) or _titles(source)
    return Layout(jsonl.MODALITIES, sorted_labels(entries), entries)


def _titles(source: pathlib.Path) -> list[Example]:
    entries = []
    for split in ("train", "test"):
        path = need(source, [f"texts/{split}_titles.csv"])
        for image, text, label, *_ in read_rows(path, ["image", "text", "class"]):
            file = source / "images" / split / label / image
            entries.append(Example(pathlib.Path(image).stem, split, label, {
                "text": Source(decode.given, (text,)),
                "visual": Source(decode.images, ((str(file),),))}))
    return entries
