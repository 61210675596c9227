"""CMU-MOSI and CMU-MOSEI: sentiment of people who review films (Zadeh et al. 2016, 2018).

    one .npz file with {train,valid,test}/{vision,text,audio,labels,id}

Published archives are pickles: save their arrays with numpy.savez. Labels are sentiment from -3 to
3 (with six emotions behind it, or alone); its sign is the class, and examples of sentiment 0 are
left out. Labels that are all 0 or 1 are the classes themselves.
"""
import pathlib

import numpy as np

from jaxmm.errors import UserError
from jaxmm.prepare import archive
from jaxmm.prepare.decode import Options
from jaxmm.prepare.layout import Example, Layout, Skip, count_name

CLASS_NAMES = ("negative", "positive")
EMOTIONS = 6            # numbers behind the sentiment in some archives of MOSEI


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    modalities, rows = archive.read(source)
    entries, notes = [], {}
    sentiments = [_sentiment(row.label) for row in rows]
    finite = np.array([x for x in sentiments if np.isfinite(x)])
    binary = bool(np.isin(finite, (0, 1)).all())
    if not binary and len(finite) and (finite.min() >= 0 or np.abs(finite).max() > 3.5):
        raise UserError(f"{source}: labels from {finite.min():g} to {finite.max():g}; expected sentiment "
                        "from -3 to 3, or 0 for negative and 1 for positive")
    for (key, split, label, sources), sentiment in zip(rows, sentiments):
        if sentiment == 0 and not binary:
            entries.append(Skip(key, split, "neutral: sentiment 0", meant=True))
            continue
        if binary and np.isfinite(sentiment):
            count_name(notes, "label 0 or 1, taken as negative or positive", key)
        name = CLASS_NAMES[int(sentiment > 0)] if np.isfinite(sentiment) else str(label)
        entries.append(Example(key, split, name, sources))
    return Layout(modalities, CLASS_NAMES, entries, notes=notes)


def _sentiment(label) -> float:
    """The sentiment of a label, NaN where it is none."""
    values = np.ravel(label)
    try:
        return float(values[0]) if len(values) in (1, 1 + EMOTIONS) else np.nan
    except ValueError:
        return np.nan
