"""MVSA-Single: the sentiment of tweets with a picture (Niu et al. 2016).

    data/N.jpg  data/N.txt  labelResult.txt (`ID<tab>text,image`)
    or {train,dev,test}.jsonl (id, label, text, img)

`labelResult.txt` (or `labelResultAll.txt`) has a label for the text and one for the picture: the same
is the label of the tweet, neutral gives way to the other, and tweets with opposite labels are left
out. Several pairs are the votes of annotators: of the texts and of the pictures the label that most
of them give counts, and tweets without one are left out. There is no published split: 60% are train,
20% val and 20% test, of every label.
"""
import collections
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxmm.prepare import decode, jsonl
from jaxmm.prepare.decode import Options, Source
from jaxmm.prepare.layout import Example, Layout, Skip, need, read_rows, spelling

CLASS_NAMES = ("positive", "neutral", "negative")
SHARES = {"train": 0.6, "val": 0.8, "test": 1.0}        # where each split ends


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    entries, lists = jsonl.examples(source) or _tweets(source)
    return Layout(jsonl.MODALITIES, CLASS_NAMES, entries, lists)


def joint_label(text: str, image: str) -> str | None:
    """The label of a tweet, or None if text and picture have opposite ones."""
    if text == image or image == "neutral":
        return text
    return image if text == "neutral" else None


def majority(votes: Sequence[str]) -> str | None:
    """What more than half of the annotators say."""
    label, count = collections.Counter(votes).most_common(1)[0]
    return label if 2 * count > len(votes) else None


def _tweets(source: pathlib.Path) -> tuple[list[Example | Skip], tuple[pathlib.Path, ...]]:
    path = need(source, ["labelResult.txt", "labelResultAll.txt"])
    labels, entries = {}, []
    for name, *votes in read_rows(path, ["ID", "text,image"], delimiter="\t"):
        said = " ".join(votes)
        votes = [[spelling(word) for word in (vote.split(",") + [""])[:2]] for vote in votes if vote]
        text, image = (majority([vote[i] for vote in votes]) for i in (0, 1))
        if text is None or image is None:
            entries.append(Skip(name, "", "the annotators do not agree", said, meant=True))
            continue
        label = joint_label(text, image)
        if label is None:
            entries.append(Skip(name, "", "text and image have opposite labels", said,
                                meant={text, image} <= {*CLASS_NAMES}))
        elif name in labels:
            same = labels[name] == label
            entries.append(Skip(name, "", "duplicate" if same else "duplicate with another label", "" if same
                                else f"kept as {labels[name]}"))
        else:
            labels[name] = label
    for name, split in _draw_splits(labels).items():
        entries.append(Example(name, split, labels[name], {
            "text": Source(decode.text_file, (str(source / "data" / f"{name}.txt"),)),
            "visual": Source(decode.images, ((str(source / "data" / f"{name}.jpg"),),))}))
    return entries, (path,)


def _draw_splits(labels: dict[str, str]) -> dict[str, str]:
    """The split of every tweet, with equal shares of all labels."""
    rng, splits = np.random.default_rng(0), {}
    for label in sorted(set(labels.values())):
        names = sorted(name for name in labels if labels[name] == label)
        for place, i in enumerate(rng.permutation(len(names))):
            share = (place + 0.5) / len(names)
            splits[names[i]] = next(split for split, end in SHARES.items() if share < end)
    return splits
