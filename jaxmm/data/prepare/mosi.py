"""CMU-MOSI and CMU-MOSEI: sentiment of people who review films (Zadeh et al. 2016, 2018).

    one .npz file with {train,valid,test}/{vision,text,audio,labels,id}

Published archives are pickles: save their arrays with numpy.savez. Labels are sentiment from -3 to
3; its sign is the class, and examples of sentiment 0 are left out.
"""
import pathlib

import numpy as np

from jaxmm.data.prepare import archive
from jaxmm.data.prepare.decode import Options
from jaxmm.data.prepare.layout import Example, Layout, Skip

CLASS_NAMES = ("negative", "positive")


def layout(source: pathlib.Path, options: Options) -> Layout:
    del options
    modalities, rows = archive.read(source)
    entries = []
    for key, split, label, sources in rows:
        try:
            sentiment = float(np.ravel(label)[0])
        except (IndexError, ValueError):
            sentiment = np.nan
        if sentiment == 0:
            entries.append(Skip(key, split, "neutral: sentiment 0"))
        else:
            name = CLASS_NAMES[int(sentiment > 0)] if np.isfinite(sentiment) else str(label)
            entries.append(Example(key, split, name, sources))
    return Layout(modalities, CLASS_NAMES, entries)
