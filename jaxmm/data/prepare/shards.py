"""One shard of a prepared data set: decoded, written, reported. Runs in any process."""
import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxmm import files
from jaxmm.config import SpectrogramConfig
from jaxmm.data.prepare import spectrograms
from jaxmm.data.prepare.decode import Missing, Options
from jaxmm.data.prepare.layout import Example, Modality, Skip
from jaxmm.data.prepared import pack, tfds_features
from jaxmm.errors import WriteError

FIRST = 10      # names given for every reason


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


def write_shard(work: Work, shard: Shard,
                stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Decodes the examples, writes those that can be used, and reports, on disk too.

    At any moment the shard is absent or whole, and its report is there only if the shard is.

    Raises:
      Stopped: `stopped()` said so before an example.
      WriteError: the disk does not take the shard.
    """
    # Of a part of TFDS that has no public name for writing one shard; both load slowly.
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core.example_serializer import ExampleSerializer
    features = tfds_features({m: {"kind": x.kind} for m, x in work.modalities.items()})
    serializer = ExampleSerializer(features.get_serialized_info())
    path = pathlib.Path(work.folder) / shard.file
    part = path.with_name(f"{path.name}.part")
    labels, present, notes = collections.Counter(), collections.Counter(), {}
    rates, skipped, size = set(), [], 0
    try:
        writer = ArrayRecordWriter(str(part), "group_size:1,uncompressed")
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
            labels[record["label"]] += 1
            present.update(values.keys())
            rates |= {(m, value.rate) for m, (value, _) in values.items()
                      if work.modalities[m].kind == "audio"}
            for m, (_, said) in values.items():
                for note in said:
                    count_name(notes, f"{m}: {note}", example.key)
        writer.close()
        os.replace(part, path)
    except (OSError, RuntimeError) as error:        # the writer raises the latter on a full disk
        raise WriteError(f"{path} could not be written ({error})") from error
    report = {"examples": sum(labels.values()), "bytes": size, "size": path.stat().st_size,
              "sha256": checksum(path), "labels": labels, "present": present,
              "rates": sorted(rates), "notes": notes, "skipped": skipped}
    write_json(report_path(work.folder, shard.file), report)
    return read_report(work.folder, shard.file)


def make_record(work: Work, number: int, example: Example, values: dict) -> dict[str, Any]:
    """What is stored of an example; `values` as `decode` returns them."""
    inputs = {m: pack(modality.kind, values[m][0] if m in values else None)
              for m, modality in work.modalities.items()}
    return {"id": number, "key": example.key, "inputs": inputs,
            "label": -1 if example.label is None else work.class_names.index(example.label),
            "present": {m: m in values for m in work.modalities}}


def decode(work: Work, example: Example) -> dict[str, tuple[Any, list[str]]] | Skip:
    """By modality what the example has, with notes; or why it cannot be used."""
    values, missing = {}, []
    for m, modality in work.modalities.items():
        try:
            if m not in example.sources:
                raise Missing("not listed")
            value, notes = example.sources[m].load(work.options)
            if m in work.spectrograms:
                value = spectrograms.compute(value, work.spectrograms[m])
        except Missing as why:
            missing.append(f"no {m}: {why}")
            continue
        # Decoders of damaged files raise anything.
        except Exception as error:  # pylint: disable=broad-exception-caught
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return Skip(example.key, example.split, f"broken {m}", said, broken=True)
        if modality.kind in ("frames", "flow") and len(value) < modality.least:
            return Skip(example.key, example.split, f"{m} of fewer than {modality.least} frames",
                        f"{len(value)} frames")
        values[m] = value, notes
    if missing and (not values or not work.allow_missing):
        return Skip(example.key, example.split, missing[0])
    return values


def read_report(folder: str, file: str) -> dict[str, Any] | None:
    """The report of a shard that is done, or None."""
    try:
        report = json.loads(report_path(folder, file).read_text(encoding="utf-8"))
        whole = (pathlib.Path(folder) / file).stat().st_size == report["size"]
        report["skipped"] = [Skip(*skip) for skip in report["skipped"]]
        return report if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def report_path(folder: str, file: str) -> pathlib.Path:
    return pathlib.Path(folder) / "reports" / f"{file}.json"


def count_name(counts: dict[str, dict[str, Any]], what: str, name: str) -> None:
    """Counts one more case of `what`, with the first few names."""
    entry = counts.setdefault(what, {"count": 0, "first": []})
    entry["count"] += 1
    entry["first"] = (entry["first"] + [name])[:FIRST]


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    files.write(path, text.encode(errors="backslashreplace"))


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
