"""Features that others have computed: one .npz file with an array for every split and modality.

Arrays are called SPLIT/NAME, or SPLIT_NAME, with NAME one of audio, vision (or visual), text,
labels (or label) and, optionally, id; the first axis is the example.
"""
import pathlib
from typing import NamedTuple

import numpy as np

from jaxmm.errors import UserError
from jaxmm.prepare import decode
from jaxmm.prepare.decode import Source
from jaxmm.prepare.layout import Modality, list_folder, split_name

MODALITIES = {"audio": "audio", "vision": "visual", "visual": "visual", "text": "text"}


class Row(NamedTuple):
    """One example of an archive."""
    key: str
    split: str
    label: np.ndarray
    sources: dict[str, Source]


def read(source: pathlib.Path) -> tuple[dict[str, Modality], list[Row]]:
    """The modalities and the examples of the only .npz file in the folder."""
    path = _find(source)
    try:
        with np.load(path, allow_pickle=False) as file:
            shapes = {name: len(file[name]) for name in file.files}
            labels = {name: np.asarray(file[name]) for name in file.files
                      if _parts(name)[1] in ("label", "labels", "id")}
    except Exception as error:      # damaged archives raise all sorts
        raise UserError(f"{path}: cannot be read as .npz without pickled objects ({error}); "
                        "save plain arrays with numpy.savez") from error
    splits: dict[str, dict[str, str]] = {}
    for name in shapes:
        split, part = _parts(name)
        if split and part in (*MODALITIES, "label", "labels", "id"):
            splits.setdefault(split, {})[part.removesuffix("s")] = name
    rows = []
    for split, names in splits.items():
        found = {MODALITIES[part]: name for part, name in names.items() if part in MODALITIES}
        if "label" not in names or not found:
            raise UserError(f"{path}: {split} has {', '.join(names.values())}; expected labels and "
                            "at least one of audio, vision, text")
        sizes = {name: shapes[name] for name in names.values()}
        if len(set(sizes.values())) > 1:
            raise UserError(f"{path}: {split} has arrays of different lengths, {sizes}")
        for row, label in enumerate(labels[names["label"]]):
            key = f"{split}_{row:06d}"
            if "id" in names:
                key = "_".join(_word(x) for x in np.ravel(labels[names["id"]][row]))
            rows.append(Row(key, split, label, {
                m: Source(decode.array_row, (str(path), name, row)) for m, name in found.items()}))
    modalities = {m: Modality("features") for m in MODALITIES.values()
                  if any(m in row.sources for row in rows)}
    return modalities, rows


def _find(source: pathlib.Path) -> pathlib.Path:
    files = list_folder(source, suffixes=(".npz",))
    if len(files) == 1:
        return files[0]
    pickles = list_folder(source, suffixes=(".pkl", ".pickle"))
    if pickles and not files:
        raise UserError(f"{pickles[0]} is a pickle, which may run any program when it is loaded; "
                        "where you trust it, save its arrays with numpy.savez as SPLIT/NAME")
    raise UserError(f"{source} has {len(files)} .npz files; expected one, with arrays SPLIT/NAME")


def _parts(name: str) -> tuple[str | None, str]:
    """("train", "audio") of train/audio."""
    split, _, part = name.partition("/" if "/" in name else "_")
    return split_name(split), part


def _word(x) -> str:
    return x.decode(errors="replace") if isinstance(x, bytes) else str(x)
