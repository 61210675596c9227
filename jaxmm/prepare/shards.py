"""One shard of a prepared data set: decoded, written, reported. Runs in any process."""
import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxmm import extras, files
from jaxmm.config import SpectrogramConfig
from jaxmm.data.prepared import Sound, checksum, pack, tfds_features
from jaxmm.errors import WriteError
from jaxmm.prepare import spectrograms
from jaxmm.prepare.decode import Missing, Options, existing
from jaxmm.prepare.layout import Example, Modality, Skip, count_name


class Stopped(Exception):
    """The work was asked to stop; the shards that are done are kept."""


class Shard(NamedTuple):
    """Consecutive examples of one split."""
    file: str                               # name in the folder of the data set
    examples: tuple[tuple[int, Example], ...]   # with their ids


class Work(NamedTuple):
    """What all shards of a data set have in common."""
    folder: str
    modalities: dict[str, Modality]
    class_names: tuple[str, ...]
    options: Options
    allow_missing: bool                     # keep examples that lack a modality
    spectrograms: dict[str, SpectrogramConfig]  # stored in place of the sound of these modalities
    outputs: tuple[str, ...] = ()           # names of the numbers to predict, in place of classes


def write_shard(work: Work, shard: Shard,
                stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Decodes the examples, writes those that can be used, and returns a report, also written to disk.

    At any moment the shard is absent or whole, and its report exists only if the shard does.

    Raises:
      Stopped: `stopped()` said so before an example.
      WriteError: the shard could not be written.
    """
    # TFDS has no public function for writing one shard; both imports are slow.
    array_record = extras.need("array_record.python.array_record_module", "preparing data")
    serializers = extras.need("tensorflow_datasets.core.example_serializer", "preparing data")
    features = tfds_features({m: {"kind": x.kind} for m, x in work.modalities.items()},
                             len(work.outputs))
    serializer = serializers.ExampleSerializer(features.get_serialized_info())
    path = pathlib.Path(work.folder) / shard.file
    part = path.with_name(f"{path.name}.part")
    labels, present, notes = collections.Counter(), collections.Counter(), {}
    rates, skipped, contents, size, seconds = set(), [], {}, 0, {}
    before = state(shard)       # files that change meanwhile are read again by the next call
    try:
        writer = array_record.ArrayRecordWriter(str(part), "group_size:1,uncompressed")
        for number, example in shard.examples:
            if stopped():
                raise Stopped
            values = decode(work, example)
            if isinstance(values, Skip):
                skipped.append(values)
                continue
            record = make_record(work, number, example, values)
            encoded = serializer.get_tf_example(features.encode_example(record))
            data = encoded.SerializeToString(deterministic=True)
            writer.write(data)
            size += len(data)
            labels["numbers" if work.outputs else record["label"]] += 1
            present.update(m for m, (value, _) in values.items() if value is not None)
            for m, (value, _) in values.items():
                if isinstance(value, Sound):
                    rates.add((m, value.rate))
                    seconds[m] = max(seconds.get(m, 0.0), len(value.samples) / value.rate)
            contents[example.key] = content(values)
            for m, (_, said) in values.items():
                for note in said:
                    count_name(notes, f"{m}: {note}", example.key)
        writer.close()
        os.replace(part, path)
    except (OSError, RuntimeError) as error:        # the writer raises the latter on a full disk
        raise WriteError(f"{path} could not be written ({error})") from error
    report = {"examples": sum(labels.values()), "bytes": size, "size": path.stat().st_size,
              "sha256": checksum(path), "labels": labels, "present": present,
              "rates": sorted(rates), "seconds": seconds, "notes": notes, "skipped": skipped,
              "contents": contents,
              "sources": before}
    write_json(report_path(work.folder, shard.file), report)
    return load_report(work.folder, shard.file)


def state(shard: Shard) -> str:
    """A hash of names, sizes and times of all files that the examples are made of."""
    key = hashlib.sha256()
    for _, example in shard.examples:
        for _, source in sorted(example.sources.items()):
            key.update(repr([(path, _stamp(path)) for path in source.paths]).encode())
    return key.hexdigest()


def _stamp(path: str) -> Any:
    """Size and time of a file, of all files of a folder; None if it is not there."""
    try:
        stat = os.stat(existing(path) or path)
        if not os.path.isdir(path):
            return stat.st_size, stat.st_mtime_ns
        with os.scandir(path) as entries:
            return sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries)
    except OSError:
        return None


def absent(work: Work, example: Example) -> Skip | None:
    """Why `decode` will skip the example because of missing files, if it will."""
    found = {m: example.sources[m].absent() if m in example.sources else Missing("not listed")
             for m in work.modalities}
    missing = [(f"no {m}: {why}", why.path) for m, why in found.items() if why]
    if missing and (len(missing) == len(found) or not work.allow_missing):
        return Skip(example.key, example.split, *missing[0])
    return None


def content(values: dict[str, tuple[Any, list[str]]]) -> str:
    """A hash of the content of an example, without its name."""
    key = hashlib.blake2b(digest_size=12)
    for m, (value, _) in sorted(values.items()):
        for part in value if isinstance(value, (list, tuple)) else [value]:
            part = part.tobytes() if hasattr(part, "tobytes") else part
            part = part if isinstance(part, bytes) else repr(part).encode()
            key.update(f"{m} {len(part)} ".encode() + part)
    return key.hexdigest()


def make_record(work: Work, number: int, example: Example, values: dict) -> dict[str, Any]:
    """The stored record of an example; `values` as `decode` returns them."""
    inputs = {m: pack(modality.kind, values[m][0]) for m, modality in work.modalities.items()}
    label = (np.array(example.label, np.float32) if work.outputs else
             -1 if example.label is None else work.class_names.index(example.label))
    return {"id": number, "key": example.key, "inputs": inputs, "label": label,
            "present": {m: values[m][0] is not None for m in work.modalities}}


def decode(work: Work, example: Example) -> dict[str, tuple[Any, list[str]]] | Skip:
    """By modality, the value of the example (None if it has none) and notes; or why it is skipped."""
    values, missing = {}, []
    for m, modality in work.modalities.items():
        source = example.sources.get(m)
        try:
            if source is None:
                raise Missing("not listed")
            value, notes = source.load(work.options)
            if m in work.spectrograms:
                value = spectrograms.compute(value, work.spectrograms[m])
        except Missing as why:
            missing.append((f"no {m}: {why}", why.path))
            values[m] = None, [f"missing, {why}"]
            continue
        # Decoders of damaged files raise anything.
        except Exception as error:  # pylint: disable=broad-exception-caught
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            where = "".join(f"{path}: " for path in source.paths[:1])
            return Skip(example.key, example.split, f"broken {m}", where + said, broken=True)
        if modality.kind in ("frames", "flow") and len(value) < modality.least:
            return Skip(example.key, example.split, f"{m} of fewer than {modality.least} frames",
                        f"{len(value)} frames")
        values[m] = value, notes
    if missing and (len(missing) == len(values) or not work.allow_missing):
        return Skip(example.key, example.split, *missing[0])
    return values


def read_report(folder: str, shard: Shard) -> dict[str, Any] | None:
    """The report of a shard that is done and whose files have not changed since, or None."""
    report = load_report(folder, shard.file)
    return report if report and report["sources"] == state(shard) else None


def load_report(folder: str, file: str) -> dict[str, Any] | None:
    """The report of a shard that is done, or None."""
    try:
        report = json.loads(report_path(folder, file).read_text(encoding="utf-8"))
        whole = (pathlib.Path(folder) / file).stat().st_size == report["size"]
        report["skipped"] = [Skip(*skip) for skip in report["skipped"]]
        return report if whole and isinstance(report["sources"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def report_path(folder: str, file: str) -> pathlib.Path:
    return pathlib.Path(folder) / "reports" / f"{file}.json"


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    files.write(path, text.encode(errors="backslashreplace"))
