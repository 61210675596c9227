"""CMU-MOSI and CMU-MOSEI: sentiment of people who review films (Zadeh et al. 2016, 2018).

    one .npz file with {train,valid,test}/{vision,text,audio,labels,id}

Published archives are pickles: save their arrays with numpy.savez. Labels are sentiment from -3 to
3 (with six emotions behind it, or alone), which is what is to be predicted, of neutral clips too.

--variant=binary: its sign is the class, negative or positive, and clips of sentiment 0 are left out.
Labels that are all 0 or 1 are the classes themselves.
"""
import pathlib

import numpy as np

from jaxmm.errors import UserError
from jaxmm.prepare import archive
from jaxmm.prepare.decode import Options
from jaxmm.prepare.layout import UNLABELLED, Example, Layout, Skip, count_name, spelling

CLASS_NAMES = ("negative", "positive")
OUTPUTS = ("sentiment",)
EMOTIONS = 6            # numbers behind the sentiment in some archives of MOSEI


def layout(source: pathlib.Path, options: Options) -> Layout:
    modalities, rows = archive.read(source)
    sentiments = [_sentiment(row.label) for row in rows]
    finite = np.array([x for x in sentiments if np.isfinite(x)])
    signs = bool(np.isin(finite, (0, 1)).all())
    if not signs and len(finite) and (finite.min() >= 0 or np.abs(finite).max() > 3.5):
        raise UserError(f"{source}: labels from {finite.min():g} to {finite.max():g}; expected sentiment "
                        "from -3 to 3 or, with --variant=binary, 0 for negative and 1 for positive")
    if options.variant == "binary":
        return _binary(modalities, rows, sentiments, signs)
    if signs and len(finite):
        raise UserError(f"{source}: all labels are 0 or 1, which is not a scale of sentiment from -3 to 3; "
                        "--variant=binary takes them as negative and positive")
    entries = [Example(key, split, (sentiment,), sources) if np.isfinite(sentiment) else
               _unlabelled(key, split, label)
               for (key, split, label, sources), sentiment in zip(rows, sentiments)]
    return Layout(modalities, (), entries, outputs=OUTPUTS)


def _binary(modalities, rows, sentiments, signs: bool) -> Layout:
    """The sign of the sentiment as class; of `signs`, the label itself."""
    entries, notes = [], {}
    for (key, split, label, sources), sentiment in zip(rows, sentiments):
        if sentiment == 0 and not signs:
            entries.append(Skip(key, split, "neutral: sentiment 0", meant=True))
            continue
        if signs and np.isfinite(sentiment):
            count_name(notes, "label 0 or 1, taken as negative or positive", key)
        name = CLASS_NAMES[int(sentiment > 0)] if np.isfinite(sentiment) else str(label)
        entries.append(Example(key, split, name, sources))
    return Layout(modalities, CLASS_NAMES, entries, notes=notes)


def _unlabelled(key: str, split: str, label) -> Skip:
    if spelling(str(label)) in UNLABELLED:
        return Skip(key, split, "no label")
    return Skip(key, split, "unknown label", repr(str(label)))


def _sentiment(label) -> float:
    """The sentiment of a label, NaN if it has none."""
    values = np.ravel(label)
    try:
        return float(values[0]) if len(values) in (1, 1 + EMOTIONS) else np.nan
    except ValueError:
        return np.nan
