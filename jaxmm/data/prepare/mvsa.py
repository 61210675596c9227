"""MVSA-Single: the sentiment of tweets with a picture (Niu et al. 2016).

    data/N.jpg  data/N.txt  labelResult.txt (`ID<tab>text,image`)
    or {train,dev,test}.jsonl (id, label, text, img)

`labelResult.txt` has a label for the text and one for the picture: the same is the label of the
tweet, neutral gives way to the other, and tweets with opposite labels are left out. There is no
published split of it: 60% are train, 20% val and 20% test, of every label.
"""
import pathlib

import numpy as np

from jaxmm.data.prepare import decode, jsonl
from jaxmm.data.prepare.decode import Options, Source
from jaxmm.data.prepare.layout import Example, Layout, Skip, need, read_rows

CLASS_NAMES = ("positive", "neutral", "negative")
SHARES = {"train": 0.6, "val": 0.8, "test": 1.0}        # where each split ends


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    return Layout(jsonl.MODALITIES, CLASS_NAMES, jsonl.examples(source) or _tweets(source))


def joint_label(text: str, image: str) -> str | None:
    """The label of a tweet, or None if text and picture have opposite ones."""
    if text == image or image == "neutral":
        return text
    return image if text == "neutral" else None


def _tweets(source: pathlib.Path) -> list[Example | Skip]:
    rows = read_rows(need(source, ["labelResult.txt"]), ["ID", "text,image"], delimiter="\t")
    labels, entries = {}, []
    for name, both, *_ in rows:
        label = joint_label(*(both.split(",") + [""])[:2])
        if label is None:
            entries.append(Skip(name, "", "text and image have opposite labels", both))
        elif name in labels:
            entries.append(Skip(name, "", "duplicate", "" if labels[name] == label else
                                f"kept as {labels[name]}"))
        else:
            labels[name] = label
    for name, split in _draw_splits(labels).items():
        entries.append(Example(name, split, labels[name], {
            "text": Source(decode.text_file, (str(source / "data" / f"{name}.txt"),)),
            "visual": Source(decode.images, ((str(source / "data" / f"{name}.jpg"),),))}))
    return entries


def _draw_splits(labels: dict[str, str]) -> dict[str, str]:
    """The split of every tweet, with equal shares of all labels."""
    rng, splits = np.random.default_rng(0), {}
    for label in sorted(set(labels.values())):
        names = sorted(name for name in labels if labels[name] == label)
        for place, i in enumerate(rng.permutation(len(names))):
            share = (place + 0.5) / len(names)
            splits[names[i]] = next(split for split, end in SHARES.items() if share < end)
    return splits
