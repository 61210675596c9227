"""UPMC Food-101: photographs of dishes with the title of their page (Wang et al. 2015).

    images/{train,test}/CLASS/X.jpg  texts/{train,test}_titles.csv (image,text,class; val too)
    or {train,dev,test}.jsonl (id, label, text, img)

The lists of MLA's code have 62,970 titles for training and 22,714 for the test, those of other copies up to
68,000 for training.
"""
import pathlib

from jaxmm.prepare import decode, jsonl
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import (Example, Layout, first_existing, need, read_rows,
                                       sorted_labels)


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    entries, lists = jsonl.examples(source) or _titles(source)
    return Layout(jsonl.MODALITIES, sorted_labels(entries), entries, lists)


def _titles(source: pathlib.Path) -> tuple[list[Example], tuple[pathlib.Path, ...]]:
    entries = []
    lists = {split: need(source, [f"texts/{split}_titles.csv"]) for split in ("train", "test")}
    if path := first_existing(source, ["texts/val_titles.csv"]):
        lists["val"] = path
    for split, path in lists.items():
        for image, text, label, *_ in read_rows(path, ["image", "text", "class"]):
            file = source / "images" / split / label / image
            entries.append(Example(f"{split}/{label}/{pathlib.Path(image).stem}", split, label, {
                "text": Source(decode.given, (text,)),
                "visual": Source(decode.images, ((str(file),),))}))
    return entries, tuple(lists.values())
