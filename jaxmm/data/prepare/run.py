"""A whole data set: listed, divided into shards, written by several processes, summed up."""
import collections
import concurrent.futures
import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import tqdm

from jaxmm import files, processes
from jaxmm.config import PreprocessConfig
from jaxmm.data.dataset import SPLITS
from jaxmm.data.prepare import BUILDERS, spectrograms
from jaxmm.data.prepare.decode import Options
from jaxmm.data.prepare.layout import Example, Layout, Skip
from jaxmm.data.prepare.shards import (Shard, Stopped, Work, count_name, read_report,
                                       report_path, write_json, write_shard)
from jaxmm.data.prepared import SUMMARY, tfds_features
from jaxmm.errors import UserError, check_choice

VERSION = "1.0.0"           # of what is stored; raise it when the same files give other records
SHARD_SIZE = 256            # examples, skipped ones included
BROKEN_SHARE = 0.05         # of the listed examples that may be broken
ASK_EVERY = 0.2             # s between two looks at whether to stop
SKIPPED = "skipped.txt"
PLAN = "plan.json"          # the fingerprint of what is being made


def prepare(name: str, source: str | pathlib.Path, output: str | pathlib.Path,
            options: Options = Options(), *,
            sections: Mapping[str, PreprocessConfig] | None = None, allow_missing: bool = False,
            allow_broken: bool = False, workers: int = 1, shard_size: int = SHARD_SIZE,
            progress: bool = True, stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Writes OUTPUT/NAME/VERSION from the user's folder and returns its summary.

    What an interrupted call has finished is used again by the next one. A data set that is there
    already is left as it is.

    Args:
      name: a key of `BUILDERS`.
      source: the user's folder; it is only read.
      output: where data sets are, made if needed.
      sections: of a config, by modality: store the spectrograms that they ask for, not sound.
      allow_missing: keep examples that lack some of the modalities.
      allow_broken: go on however many files are broken.
      workers: processes that decode; 1: this one alone.
      shard_size: examples in a shard.
      progress: show a bar.
      stopped: asked often; once it is True, no more is done.

    Raises:
      UserError: the folder is not of this layout, too much of it is broken, or the output holds a
        data set made otherwise.
      Stopped: `stopped` said so.
    """
    check_choice("--dataset", name, BUILDERS)
    source, begin = pathlib.Path(source), time.monotonic()
    if not source.is_dir():
        raise UserError(f"--source={source}: no such folder; expected the one with the data set's "
                        "files")
    if options.variant:
        check_choice("--variant", options.variant, BUILDERS[name].variants or ["none"])
    layout = BUILDERS[name].layout(source, options)
    stored = {} if sections is None else spectrograms.choose(layout, sections)
    layout.modalities.update({m: spectrograms.modality(section) for m, section in stored.items()})
    name = "_".join(filter(None, [name, options.variant]))
    done = pathlib.Path(output) / name / VERSION
    folder = done.with_name(f"{VERSION}.incomplete")
    examples, skipped = select(layout)
    shards = divide(examples, name, shard_size)
    work = Work(str(folder), layout.modalities, layout.class_names, options, allow_missing, stored)
    fingerprint = _fingerprint(work, shards)
    with files.lock(folder.with_suffix(".lock"), "choose another --output"):
        if done.exists():
            return _made_before(done, fingerprint)
        _start(folder, fingerprint)
        reports = _write(work, shards, workers, progress, stopped,
                         limit=float("inf") if allow_broken else BROKEN_SHARE)
        skipped += itertools.chain.from_iterable(reports[shard.file]["skipped"] for shard in shards)
        _write_skipped(folder, skipped)
        summary = {"name": name, "version": VERSION, "fingerprint": fingerprint,
                   "source": str(source.resolve()), "options": options._asdict(),
                   "allow_missing": allow_missing,
                   **_sum_up(layout, examples, reports, skipped),
                   "seconds": round(time.monotonic() - begin, 3)}
        if not summary["used"]:
            first = skipped[0] if skipped else None
            raise UserError(f"{source}: no example can be used" + (
                f"; the first, {first.key}: {first.reason} ({first.detail})" if first else ""))
        _write_tfds(folder, name, work, summary, reports)
        write_json(folder / SUMMARY, summary)
        os.replace(folder, done)
        shutil.rmtree(done / "reports")
        (done / PLAN).unlink()
    return summary


def describe_layout(name: str) -> str:
    """Which files the data set called `name` needs, and what becomes of them.

    Raises:
      UserError: there is no such data set.
    """
    check_choice("--dataset", name, BUILDERS)
    return inspect.getdoc(inspect.getmodule(BUILDERS[name].layout))


def select(layout: Layout) -> tuple[dict[str, list[tuple[int, Example]]], list[Skip]]:
    """The examples to decode, by split, with their ids; and those that the lists rule out.

    Ids number the examples of a split in the order of their keys. A key that is listed again is
    skipped, and kept in test rather than val, in val rather than train.
    """
    skipped = [entry for entry in layout.entries if isinstance(entry, Skip)]
    kept: dict[str, Example] = {}
    classes = {None, *layout.class_names}
    for split in reversed(SPLITS):
        for entry in layout.entries:
            if isinstance(entry, Skip) or entry.split != split:
                continue
            if entry.label not in classes:
                skipped.append(Skip(entry.key, split, "unknown label", repr(entry.label)))
            elif entry.key in kept:
                other = kept[entry.key]
                same = (other.split, other.label) == (split, entry.label)
                skipped.append(Skip(entry.key, split, "duplicate", "" if same else
                                    f"kept in {other.split} as {other.label}"))
            else:
                kept[entry.key] = entry
    splits = {split: sorted((e for e in kept.values() if e.split == split), key=lambda e: e.key)
              for split in SPLITS}
    return {split: list(enumerate(part)) for split, part in splits.items() if part}, skipped


def divide(examples: dict[str, list[tuple[int, Example]]], name: str, size: int) -> list[Shard]:
    """Shards of at most `size` examples, named as TFDS wants."""
    shards = []
    for split, part in examples.items():
        count = -(-len(part) // size)
        shards += [Shard(f"{name}-{split}.array_record-{i:05d}-of-{count:05d}",
                         tuple(part[i * size:(i + 1) * size])) for i in range(count)]
    return shards


def describe(summary: dict[str, Any], folder: pathlib.Path) -> str:
    """The summary in a few lines."""
    lines = [f"{folder}: {summary['used']} examples used, {summary['left_out']} skipped, "
             f"{summary['seconds']:.1f} s"]
    for split, part in summary["splits"].items():
        counts = part["classes"].values()
        between = f", {min(counts)} to {max(counts)} in a class" if counts else ""
        lines.append(f"  {split}: {part['used']} of {part['listed']}{between}")
    for title, found in (("skipped", summary["skipped"]), ("changed", summary["notes"])):
        lines += [f"  {title}: {entry['count']} {what} ({', '.join(entry['first'])}"
                  f"{', ...' if entry['count'] > len(entry['first']) else ''})"
                  for what, entry in found.items()]
    if summary["left_out"]:
        lines.append(f"  all of them: {folder / SKIPPED}")
    return "\n".join(lines)


def _write(work: Work, shards: list[Shard], workers: int, progress: bool,
           stopped: Callable[[], bool], limit: float) -> dict[str, dict[str, Any]]:
    """The reports of all shards by file, after writing those that are not done."""
    reports = {s.file: read_report(work.folder, s.file) for s in shards}
    todo = [shard for shard in shards if reports[shard.file] is None]
    total = sum(len(shard.examples) for shard in shards)
    with tqdm.tqdm(total=total, unit=" examples", disable=not progress,
                   initial=total - sum(len(shard.examples) for shard in todo)) as bar:
        for shard, report in _written(work, todo, workers, stopped):
            reports[shard.file] = report
            bar.update(len(shard.examples))
            _check_broken(work, reports, total, limit)
    _check_broken(work, reports, total, limit)
    return reports


def _written(work: Work, shards: list[Shard], workers: int,
             stopped: Callable[[], bool]) -> Iterator[tuple[Shard, dict]]:
    """Every shard with its report, as they get done."""
    if min(workers, len(shards)) <= 1:
        yield from ((shard, write_shard(work, shard, stopped)) for shard in shards)
        return
    context = multiprocessing.get_context("forkserver")     # imports once for all processes
    context.set_forkserver_preload([write_shard.__module__])
    pool = concurrent.futures.ProcessPoolExecutor(min(workers, len(shards)), context, _start_worker)
    others = set(multiprocessing.active_children())
    try:
        futures = {pool.submit(write_shard, work, shard): shard for shard in shards}
        waiting = set(futures)
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, ASK_EVERY, "FIRST_COMPLETED")
            yield from ((futures[future], future.result()) for future in done)
            if stopped():
                raise Stopped
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError("a process that decodes has died, perhaps for want of memory; run the same "
                        "command again, with fewer --workers") from error
    except BaseException:       # what the others are at is not waited for
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leaves signals from the keyboard to the parent, and ends when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")       # spectrograms need no accelerator
    processes.end_with_parent()


def _check_broken(work: Work, reports: dict[str, dict | None], total: int, limit: float) -> None:
    """Raises UserError if more than the share `limit` of all examples is broken."""
    found = {file: report["skipped"] for file, report in reports.items() if report}
    broken = [skip for skips in found.values() for skip in skips if skip.broken]
    if not broken or len(broken) <= limit * total:
        return
    path = pathlib.Path(work.folder) / SKIPPED
    _write_skipped(path.parent, broken)
    for file, skips in found.items():       # to be read again after a repair
        if any(skip.broken for skip in skips):
            report_path(work.folder, file).unlink()
    first = broken[0]
    raise UserError(f"{len(broken)} of {total} examples are broken, more than {limit:.0%}; the "
                    f"first, {first.key}: {first.reason} ({first.detail}); all are in {path}: "
                    "repair them, or pass --allow_broken to leave them out")


def _sum_up(layout: Layout, examples: dict[str, list], reports: dict[str, dict],
            skipped: list[Skip]) -> dict[str, Any]:
    """What the summary says of the content."""
    reasons, notes, splits = {}, {}, {}
    for skip in sorted(skipped, key=lambda s: (s.split, s.key)):
        count_name(reasons, skip.reason, skip.key)
    for report in reports.values():
        for what, entry in report["notes"].items():
            for name in entry["first"]:
                count_name(notes, what, name)
            notes[what]["count"] += entry["count"] - len(entry["first"])
    for split, part in examples.items():
        of_split = [r for file, r in reports.items() if f"-{split}.array_record" in file]
        labels = sum((collections.Counter(r["labels"]) for r in of_split), collections.Counter())
        splits[split] = {"listed": len(part), "used": sum(r["examples"] for r in of_split),
                         "classes": {c: labels[str(i)] for i, c in enumerate(layout.class_names)}}
    present = sum((collections.Counter(r["present"]) for r in reports.values()),
                  collections.Counter())
    modalities = {}
    for m, modality in layout.modalities.items():
        modalities[m] = {"kind": modality.kind, "present": present[m], **modality.info}
        if modality.kind == "audio":
            rates = {rate for r in reports.values() for name, rate in r["rates"] if name == m}
            modalities[m]["rate"] = rates.pop() if len(rates) == 1 else None
    return {"class_names": list(layout.class_names), "modalities": modalities, "splits": splits,
            "used": sum(s["used"] for s in splits.values()), "left_out": len(skipped),
            "skipped": reasons, "notes": notes,
            "shards": {file: {k: r[k] for k in ("examples", "size", "sha256")}
                       for file, r in reports.items()}}


def _write_tfds(folder: pathlib.Path, name: str, work: Work, summary: dict[str, Any],
                reports: dict[str, dict]) -> None:
    """The files from which TFDS knows the data set."""
    import tensorflow_datasets as tfds
    empty = [split for split, part in summary["splits"].items() if not part["used"]]
    for split in empty:     # TFDS does not read splits without examples
        for file in [file for file in summary["shards"] if f"-{split}.array_record" in file]:
            (folder / file).unlink()
            del summary["shards"][file]
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name=name, filetype_suffix="array_record")
    infos = []
    for split in set(summary["splits"]) - set(empty):
        of_split = [r for file, r in reports.items() if f"-{split}.array_record" in file]
        infos.append(tfds.core.SplitInfo(
            name=split, shard_lengths=[r["examples"] for r in of_split],
            num_bytes=sum(r["bytes"] for r in of_split), filename_template=template))
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=tfds_features(summary["modalities"]), split_infos=infos,
        version=VERSION, filename_template=template, check_data=False,
        description=f"{name}, prepared by jaxmm from {summary['source']}")


def _write_skipped(folder: pathlib.Path, skipped: list[Skip]) -> None:
    """Every example that is left out: split, key, reason, detail."""
    lines = sorted("\t".join(" ".join(part.split()) for part in skip[:4]) for skip in
                   (s._replace(key=s.split, split=s.key) for s in skipped))
    text = "".join(f"{line}\n" for line in lines)
    files.write(folder / SKIPPED, text.encode(errors="backslashreplace"))


def _fingerprint(work: Work, shards: list[Shard]) -> str:
    """A hash of all that decides what is written, but for the content of the user's files."""
    key = hashlib.sha256(repr((VERSION, work[1:])).encode())
    for shard in shards:
        for number, example in shard.examples:
            sources = [(m, s.read.__name__, s.args) for m, s in sorted(example.sources.items())]
            key.update(repr((shard.file, number, example[:3], sources)).encode())
    return key.hexdigest()


def _made_before(folder: pathlib.Path, fingerprint: str) -> dict[str, Any]:
    """The summary of a data set that is there already.

    Raises:
      UserError: it was made from other files or with other options.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if summary["fingerprint"] == fingerprint:
            return summary
    except (OSError, ValueError, KeyError):
        pass
    raise UserError(f"{folder} is there already, made from other files or with other options; "
                    "remove it or choose another --output")


def _start(folder: pathlib.Path, fingerprint: str) -> None:
    """Makes the folder ready, emptied if it holds the work of another plan."""
    plan = folder / PLAN
    if plan.exists() and json.loads(plan.read_text(encoding="utf-8")) != fingerprint:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(plan, fingerprint)
