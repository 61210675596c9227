"""Loads data sets made by `jaxmm prepare` for training.

Sound, images and large sets of vectors are read when a batch needs them (see `Rows`); texts and small
sets of vectors are read into memory.
"""
import functools
import hashlib
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmm import extras
from jaxmm.batch import Batch, make_batch
from jaxmm.caches import cache_folder
from jaxmm.config import (PREPROCESS, DataConfig, FlowConfig, FramesConfig, MapConfig, PictureConfig,
                          PreprocessConfig, SpectrogramConfig, TextConfig)
from jaxmm.data import decode, folds, text
from jaxmm.data.dataset import SPLITS, Dataset, with_target
from jaxmm.data.feeding import is_streamed, read_all
from jaxmm.data.prepared import Prepared, Records, open_prepared
from jaxmm.data.rows import Rows, join
from jaxmm.data.spectrogram import write_arrays
from jaxmm.errors import UserError, as_typed, check_at_least, check_choice, suggest

cachetools = extras.Later("cachetools", "prepared data")

SECTIONS = {"audio": SpectrogramConfig, "frames": FramesConfig, "flow": FlowConfig, "map": MapConfig,
            "text": TextConfig, "features": PreprocessConfig}     # what each kind stored needs
DENSE_SECTIONS = SECTIONS | {"frames": PictureConfig}             # for a segmentation
FEW_BYTES = 2**28           # of the vectors of a modality in a split: more are read on demand
Vocabularies = Mapping[str, Sequence[str]]  # by modality, as `text.kept` has them
INDEX = 2                   # of what `read_index` keeps; increase it when that changes
CACHED_BYTES = 2**27        # of the records of each split, for the modalities that are read one after the other
RECORD_BYTES = 2**12        # that a record takes besides its inputs


def load(config: DataConfig, vocabularies: Vocabularies | None = None) -> Dataset:
    """The prepared data set in the folder `config.path`, read as `config.preprocess` says.

    Without a `val` split, `config.seed` draws one from train. `vocabularies` (by modality, as
    `text.kept` has them) replace those that the config names, or that would be built from train.

    Raises:
      UserError: there is no such data set, it has nothing to predict, or a modality lacks its
        section, or has one of another kind, or that is out of range.
    """
    return reader(config)(config, vocabularies)


def reader(config: DataConfig) -> Callable[..., Dataset]:
    """Opens the data set: what it returns is `assemble` of a config, which may be of any fold.

    Rows that are divided into folds are read here, once for all of them, unless they are streamed.
    """
    prepared = open_config(config)
    class_names_of(prepared, config.target)
    for split in ("train", "test"):
        if split not in prepared.splits and not (config.folds and split == "test"):
            raise UserError(f"{prepared.folder} has no {split} split; prepare one with both")
    check_sections(prepared, config.preprocess, config.target)
    parts = {split: read_index(prepared, split) for split in prepared.splits}
    if prepared.multilabel:
        parts = {split: part | {"label": part["label"].astype(bool)} for split, part in parts.items()}
    for split, part in parts.items():
        check_clips(prepared, split, part, config.preprocess)
    if config.folds:
        parts = read_values(prepared, parts, config)
    return functools.partial(assemble, prepared, parts)


def class_names_of(prepared: Prepared, target: str) -> tuple[str, ...]:
    """The names of what is predicted: classes of examples, or of the pixels of the map `target`, or outputs.

    Raises:
      UserError: there is nothing to predict, or the target is no map of classes.
    """
    maps = [m for m, info in prepared.modalities.items() if isinstance(info.get("classes"), list)]
    if target:
        if target not in maps:
            raise UserError(f"data.target={target!r} is no map of classes of {prepared.folder}"
                            + (suggest(target, maps) if maps else "; it has none"))
        return tuple(prepared.modalities[target]["classes"])
    if not (prepared.class_names or prepared.outputs):
        raise UserError(f"{prepared.folder}: {prepared.name} has no classes to learn, nor numbers to predict" + (
            f"; for a segmentation name its class maps: --config.data.target={maps[0]}" if maps else ""))
    return prepared.class_names or prepared.outputs


def read_values(prepared: Prepared, parts: Mapping[str, Mapping[str, np.ndarray]],
                config: DataConfig) -> dict[str, dict[str, np.ndarray]]:
    """The indices `parts` of all splits, with the values of what is read on demand if it is not streamed."""
    lazy = {}
    for split, part in parts.items():
        shared = Shared(prepared.splits[split])
        inputs = {m: _inputs(prepared, config, split, m, shared, part, {}) for m in prepared.modalities
                  if f"text/{m}" not in part}
        lazy[split] = {"label": part["label"], "inputs": {m: x for m, x in inputs.items() if isinstance(x, Rows)}}
    if is_streamed(lazy, config.placement):
        return dict(parts)
    return {split: part | {f"values/{m}": x for m, x in read_all(lazy[split])["inputs"].items()}
            for split, part in parts.items()}


def assemble(prepared: Prepared, parts: Mapping[str, Mapping[str, np.ndarray]], config: DataConfig,
             vocabularies: Vocabularies | None = None) -> Dataset:
    """The data set of the splits with the indices `parts`; see `load`."""
    tested = _tested(prepared, parts, config)
    tokenizers = {}
    for m, section in config.preprocess.items():
        if isinstance(section, TextConfig):
            train = [t for split, part in parts.items()
                     for t, p, held in zip(texts(part, m), part[f"present/{m}"], tested[split]) if p and not held]
            tokenizers[m] = text.make_tokenizer(section, train, (vocabularies or {}).get(m))
    splits = {split: read_split(prepared, config, split, parts[split], tokenizers)
              for split in prepared.splits}
    where = str(prepared.folder)
    if config.folds:
        splits = folds.cut(where, join([*splits.values()]), np.concatenate([*tested.values()]),
                           prepared.groups(splits), config)
    elif "val" not in splits:
        splits |= folds.hold_out(where, splits["train"], prepared.groups(["train"]), config)
    # The benchmark is known by the name of its data set.
    name = prepared.name.removesuffix("_mmcl")
    return Dataset(name, {s: splits[s] for s in SPLITS}, class_names_of(prepared, config.target),
                   {m: text.num_tokens(tokenizer) for m, tokenizer in tokenizers.items()},
                   {m: text.kept(tokenizer) for m, tokenizer in tokenizers.items()}, _files(prepared),
                   target=config.target)


def _files(prepared: Prepared) -> dict[str, Any]:
    """How the files of a table were read; {} for other data sets, and where spectrograms are stored."""
    columns = {m: info["column"] for m, info in prepared.modalities.items() if "column" in info}
    if len(columns) < len(prepared.modalities):
        return {}
    return {"columns": columns, "options": prepared.summary["options"]}


def _tested(prepared: Prepared, parts: Mapping[str, Mapping[str, np.ndarray]],
            config: DataConfig) -> dict[str, np.ndarray]:
    """By split that is there, which rows [N] are tested and so are not to be known in training.

    Raises:
      UserError: folds are asked for, and the data have a test split of their own.
    """
    if not config.folds:
        return {split: np.full(len(part["label"]), split != "train") for split, part in parts.items()}
    if not prepared.drawn and set(prepared.splits) != {"train"}:
        raise UserError(f"data.folds={config.folds}: {prepared.folder} has the splits "
                        f"{', '.join(prepared.splits)}; folds are for a table without the column split")
    fold = folds.assign(str(prepared.folder), np.concatenate([part["label"] for part in parts.values()]),
                        prepared.groups(parts), config.folds, config.seed)
    ends = np.cumsum([len(part["label"]) for part in parts.values()])[:-1]
    return dict(zip(parts, np.split(fold == config.fold, ends)))


def open_config(config: DataConfig) -> Prepared:
    """The prepared data set that the config names, if it is of its name.

    Raises:
      UserError: there is none, or it is another one.
    """
    if not config.path:
        raise UserError(f"data.path is empty; name the folder that {as_typed('prepare')} made: "
                        f"--config.data.path=DIR/{config.name}")
    prepared = open_prepared(config.path)
    if config.name != "prepared" and not prepared.name.startswith(config.name):
        raise UserError(f"{prepared.folder} holds {prepared.name}; expected {config.name}, or a "
                        "variant of it: name another --config.data.path")
    return prepared


def read_split(prepared: Prepared, config: DataConfig, split: str, part: Mapping[str, np.ndarray],
               tokenizers: Mapping[str, Any]) -> Batch:
    """The split with the index `part`; sound, images and large sets of vectors are read on demand."""
    shared = Shared(prepared.splits[split])
    inputs = {m: _inputs(prepared, config, split, m, shared, part, tokenizers)
              for m in sorted(prepared.modalities)}
    present = {m: part[f"present/{m}"] for m in inputs}
    label = np.zeros_like(part["label"]) if config.target else part["label"]
    return with_target(make_batch(inputs, label, present=present), config.target)


def _inputs(prepared, config, split, modality, records, part, tokenizers):
    """The inputs of one modality: an array, or rows to be read."""
    section = config.preprocess.get(modality, PreprocessConfig())
    info = prepared.modalities[modality]
    if isinstance(section, TextConfig):
        return text.tokenize(tokenizers[modality], texts(part, modality))
    if f"values/{modality}" in part:
        return part[f"values/{modality}"]
    checksum = zlib.crc32(repr((_identity(prepared, split), modality, section)).encode())
    if info["kind"] == "features":
        shape = tuple(info["shape"] if "spectrogram" in info else part[f"shape/{modality}"])
        read = functools.partial(read_stored, modality=modality, shape=shape)
        return Rows(records, read, shape, np.float32, checksum)
    if modality == config.target:
        read = functools.partial(read_classes, modality=modality, section=section)
        return Rows(records, read, (section.height, section.width), np.int16, checksum)
    read = functools.partial(read_input, modality=modality, section=section)
    if isinstance(section, MapConfig):
        return Rows(records, read, (section.height, section.width), np.uint16, checksum)
    if isinstance(section, PictureConfig):
        return Rows(records, read, (section.height, section.width, 3), np.uint8, checksum)
    if isinstance(section, SpectrogramConfig):
        return Rows(records, read, decode.sound_shape(section), np.int16, checksum)
    return Rows(records, read, decode.frames_shape(section), np.uint8, checksum)


def read_input(record: Mapping[str, Any], position: int, modality: str,
               section: PreprocessConfig) -> np.ndarray:
    """Sound or images of one record, decoded to their shape."""
    del position
    decoders = {"spectrogram": decode.sound, "frames": decode.frames, "flow": decode.flow,
                "picture": decode.picture, "map": decode.pixel_map}
    return decoders[section.kind](record["inputs"][modality], section)


def read_classes(record: Mapping[str, Any], position: int, modality: str, section: MapConfig) -> np.ndarray:
    """The class numbers of one record."""
    del position
    return decode.class_map(record["inputs"][modality], section)


def read_stored(record: Mapping[str, Any], position: int, modality: str,
                shape: tuple[int, ...]) -> np.ndarray:
    """Numbers as they are stored in one record, zeros where it has none."""
    del position
    value = record["inputs"][modality]
    return value if value.size else np.zeros(shape, np.float32)


class Shared(Sequence):
    """Records that several modalities are read from: the last ones stay in memory, up to `CACHED_BYTES`."""

    def __init__(self, records: Records):
        self.records = records
        cache = cachetools.LRUCache(CACHED_BYTES, lambda record: RECORD_BYTES + num_bytes(record["inputs"].values()))
        self._read = cachetools.cached(cache, lock=threading.Lock())(records.__getitem__)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._read(index)

    def __reduce__(self):       # another process has a cache of its own
        return Shared, (self.records,)


def num_bytes(values: Iterable[Any]) -> int:
    """The bytes that the inputs of a record take: arrays, texts, files, and lists of these."""
    def size(value):
        if isinstance(value, np.ndarray):
            return value.nbytes
        return len(value) if isinstance(value, (bytes, str)) else num_bytes(value) if isinstance(
            value, Sequence) else 0

    return sum(map(size, values))


def read_index(prepared: Prepared, split: str) -> dict[str, np.ndarray]:
    """The small parts of the records of a split: labels, masks, texts, vectors.

    `label` int32 [N] (float32 [N, K] of numbers to predict), `present/{m}` bool [N], `text/{m}` uint8 (see `texts`),
    `count/{m}` int32 [N] of the images of each row, and of vectors `values/{m}` float32 [N, ...] or, where they are
    more than FEW_BYTES, `shape/{m}` of one row.
    Reading all records takes half a millisecond for each, so that the result is kept in the cache
    folder.
    """
    identity = _identity(prepared, split)
    path = cache_folder() / f"index_{hashlib.sha256(repr((INDEX, identity)).encode()).hexdigest()[:32]}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        pass                                                # absent or damaged
    label, present = [], {m: [] for m in prepared.modalities}
    kinds = {m: info["kind"] for m, info in prepared.modalities.items()
             if "spectrogram" not in info}      # whose shape is known, and which are many
    found = {m: [] for m, kind in kinds.items() if kind in ("text", "features")}
    shapes = {m: set() for m, kind in kinds.items() if kind == "features"}
    counts = {m: [] for m, kind in kinds.items() if kind == "frames"}
    for record in prepared.splits[split]:
        label.append(record["label"])
        for m in present:
            present[m].append(record["present"][m])
        for m in counts:
            counts[m].append(len(record["inputs"][m]))
        for m in shapes:
            value = record["inputs"][m]
            shapes[m] |= {value.shape} if value.size else set()
            if 4 * value.size * len(label) > FEW_BYTES:
                found.pop(m, None)
        for m in found:
            found[m].append(record["inputs"][m])
    result = {"label": np.array(label, np.float32 if prepared.outputs else np.int32)}
    result |= {f"present/{m}": np.array(p, bool) for m, p in present.items()}
    result |= {f"count/{m}": np.array(count, np.int32) for m, count in counts.items()}
    for m in shapes:
        shape = _one_shape(prepared, split, m, shapes[m])
        if m in found:
            zero = np.zeros(shape, np.float32)
            result[f"values/{m}"] = np.stack([x if x.size else zero for x in found.pop(m)])
        else:
            result[f"shape/{m}"] = np.array(shape)
    for m, values in found.items():
        joined = "\0".join(value.replace("\0", " ") for value in values)
        result[f"text/{m}"] = np.frombuffer(joined.encode(), np.uint8)
    try:
        write_arrays(path, **result)
    except OSError:
        pass                                                # no cache then
    return result


def check_clips(prepared: Prepared, split: str, part: Mapping[str, np.ndarray],
                sections: Mapping[str, PreprocessConfig]) -> None:
    """Raises UserError for a row with fewer images than the clips that are cut out of it."""
    for m, section in sections.items():
        if f"count/{m}" not in part or not isinstance(section, FramesConfig) or not section.crop_frames:
            continue
        short = part[f"present/{m}"] & (part[f"count/{m}"] < section.crop_frames)
        if short.any():
            row = int(np.argmax(short))
            raise UserError(f"{prepared.folder}: {m} of {prepared.splits[split][row]['key']} ({split}) has "
                            f"{part[f'count/{m}'][row]} images, fewer than the {section.crop_frames} of a clip, as have "
                            f"{short.sum()} of {len(short)} rows; lower --config.data.preprocess.{m}.crop_frames, or "
                            "prepare the data without them, or with more frames a second (--fps)")


def texts(index: Mapping[str, np.ndarray], modality: str) -> list[str]:
    """The texts of one modality, in the order of the records."""
    return index[f"text/{modality}"].tobytes().decode().split("\0")


def _one_shape(prepared: Prepared, split: str, modality: str, shapes: set) -> tuple[int, ...]:
    """The shape that all vectors of a modality have."""
    if len(shapes) != 1:
        raise UserError(f"{prepared.folder}: {split}/{modality} has values of the shapes "
                        f"{sorted(shapes)}; expected one shape: cut or fill them up, and prepare "
                        "the data set again")
    return shapes.pop()


def _identity(prepared: Prepared, split: str) -> list:
    """What identifies the records of a split."""
    return sorted((name, shard["sha256"]) for name, shard in prepared.summary["shards"].items()
                  if f"-{split}.array_record" in name)


def check_sections(prepared: Prepared, sections: Mapping[str, PreprocessConfig], target: str = "") -> None:
    """Raises UserError unless every modality has the section that its kind needs, and no other.

    `target` is the map of classes of a segmentation, "" for other tasks.
    """
    for m in sections:
        check_choice("data.preprocess", m, prepared.modalities)
    for m, info in prepared.modalities.items():
        section = sections.get(m, PreprocessConfig())
        needed = (DENSE_SECTIONS if target else SECTIONS)[info["kind"]]
        if "spectrogram" in info and isinstance(section, SpectrogramConfig):
            needed = SpectrogramConfig
            stored = {"kaldi": False} | info["spectrogram"]     # an option that came later
            found = [f"{name} was {value}, is {getattr(section, name, 'no option')}" for name, value
                     in stored.items() if value != getattr(section, name, None)]
            if found:
                raise UserError(f"data.preprocess.{m}: {prepared.folder} holds spectrograms made "
                                f"otherwise: {'; '.join(found)}; prepare it again, or take these")
        if type(section) is not needed:
            kinds = {cls: kind for kind, cls in PREPROCESS.items()}
            raise UserError(f"data.preprocess.{m}.kind={section.kind!r}: {prepared.name} holds {m} "
                            f"as {info['kind']}; expected {kinds.get(needed)!r}" + (
                                f": name the folder behind the method, --config=table:METHOD,{prepared.folder}"
                                if prepared.name.startswith("table") else ""))
        if isinstance(section, (PictureConfig, MapConfig)):
            for name in ("height", "width"):
                check_at_least(f"data.preprocess.{m}.{name}", getattr(section, name), 1)
        if isinstance(section, FramesConfig):
            decode.check_frames(f"data.preprocess.{m}", section)
        if isinstance(section, SpectrogramConfig):
            decode.check_sound(f"data.preprocess.{m}", section)
