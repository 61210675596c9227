"""Prepares a whole data set: lists it, divides it into shards, writes them by several processes."""
import collections
import concurrent.futures
import hashlib
import inspect
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import tqdm
from absl import logging

from jaxmm import extras, files, processes
from jaxmm.config import PreprocessConfig
from jaxmm.data.dataset import SPLITS
from jaxmm.data.prepared import DESCRIPTION, SUMMARY, checksum, remember, tfds_features
from jaxmm.errors import UserError, check_choice
from jaxmm.prepare import BUILDERS, spectrograms, table
from jaxmm.prepare.decode import Options
from jaxmm.prepare.layout import (FIRST, UNLABELLED, Example, Layout, Skip, count_name,
                                       ignored_lists, spelling, unlisted)
from jaxmm.prepare.shards import (Shard, Stopped, Work, absent, read_report, report_path,
                                       write_json, write_shard)

tfds = extras.Later("tensorflow_datasets", "preparing data")
# Decoders, which must not be found missing halfway: a file that they cannot read counts as broken.
DECODERS = ("av", "soundfile", "soxr")

VERSION = "1.1.0"           # of the records; increase it when the same files give other records
SHARD_SIZE = 256            # examples, skipped ones included
BROKEN_SHARE = 0.05         # of the listed examples that may be broken
SKIPPED_SHARE = 0.05        # of them that may be left out for other reasons
ASK_EVERY = 0.2             # s between checks whether to stop
SKIPPED = "skipped.txt"
PLAN = "plan.json"          # the fingerprint of what is being made


def prepare(name: str, source: str | pathlib.Path, output: str | pathlib.Path,
            options: Options = Options(), **how) -> dict[str, Any]:
    """Writes OUTPUT/NAME/VERSION from the user's folder and returns its summary.

    Args:
      name: a key of `BUILDERS`.
      source: the user's folder, or file; it is only read.
      output: where data sets are, made if needed.
      options: how files are decoded.
      how: see `write`.

    Raises:
      UserError: the folder is not of this layout, or see `write`, as for `Stopped`.
    """
    check_choice("--dataset", name, BUILDERS)
    source, builder = pathlib.Path(source), BUILDERS[name]
    if builder.file and not source.is_file():
        raise UserError(f"--source={source}: no such file; expected the CSV file that names the others")
    if not builder.file and not source.is_dir():
        raise UserError(f"--source={source}: no such folder; expected the one with the data set's "
                        "files")
    if options.variant:
        check_choice("--variant", options.variant, builder.variants or ["none"])
    _check_packages()
    return write(name, builder.layout(source, options), source, output, options, **how)


def prepare_table(rows: Any, output: str | pathlib.Path, folder: str | pathlib.Path = ".", *,
                  options: Options = Options(), **how) -> dict[str, Any]:
    """Writes OUTPUT/table/VERSION from a table in memory and returns its summary.

    Args:
      rows: a pandas DataFrame, or dictionaries by column; columns are those of a CSV file, see
        `jaxmm.prepare.table`.
      output: where data sets are, made if needed.
      folder: where paths begin.
      options: how files are decoded; their variant, how labels are taken.
      how: see `write`.

    Raises:
      UserError: whatever is wrong with the table, or see `write`, as for `Stopped`.
    """
    folder, output = (files.expand(path).resolve() for path in (folder, output))
    if options.variant:
        check_choice("variant", options.variant, table.VARIANTS)
    _check_packages()
    return write("table", table.make_layout(table.of_rows(rows), folder, options), folder, output, options,
                 **how)


def _check_packages() -> None:
    for module in ("array_record", "tensorflow_datasets", *DECODERS):
        extras.need(module, "preparing data")


def write(name: str, layout: Layout, source: pathlib.Path, output: str | pathlib.Path,
          options: Options, *, sections: Mapping[str, PreprocessConfig] | None = None,
          allow_missing: bool = False, allow_broken: bool = False, allow_skipped: float = SKIPPED_SHARE,
          workers: int = 1, shard_size: int = SHARD_SIZE, progress: bool = True,
          stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Writes OUTPUT/NAME/VERSION, what the layout consists of, and returns its summary.

    A call reuses the shards that an interrupted call has finished. Of a finished data set it makes only
    the shards again whose files have changed or were added since.

    Args:
      name: of the data set, to which that of the variant is added.
      layout: what is on disk.
      source: where it was found.
      output: where data sets are, made if needed.
      options: how files are decoded.
      sections: of a config, by modality: store the spectrograms that they ask for, not sound.
      allow_missing: keep examples that lack some of the modalities.
      allow_broken: continue with any number of broken files.
      allow_skipped: share of the listed examples that may be left out for other reasons, such as
        files that are not there, duplicates, unknown labels. What the rules of a data set leave
        out does not count.
      workers: processes that decode; 1: this one alone.
      shard_size: examples in a shard.
      progress: show a bar.
      stopped: called often; the work stops once it returns True.

    Raises:
      UserError: too much of it cannot be used, nothing or one class alone is left to train on, or
        the output holds a data set made otherwise.
      Stopped: `stopped` said so.
    """
    begin = time.monotonic()
    stored = {} if sections is None else spectrograms.choose(layout, sections)
    layout.modalities.update({m: spectrograms.modality(section) for m, section in stored.items()})
    name = "_".join(filter(None, [name, options.variant]))
    done = pathlib.Path(output) / name / VERSION
    folder = done.with_name(f"{VERSION}.incomplete")
    examples, unused, notes = select(layout)
    listed = sum(not (isinstance(entry, Skip) and entry.meant) for entry in layout.entries)
    limits = Limits(folder, listed, 1 if allow_broken else BROKEN_SHARE, allow_skipped)
    check_lost(unused, limits)
    check_train(source, {split: collections.Counter(None if layout.outputs else e.label for _, e in part)
                         for split, part in examples.items()}, unused)
    shards = divide(examples, name, shard_size)
    work = Work(str(folder), layout.modalities, layout.class_names, options, allow_missing, stored,
                layout.outputs)
    fingerprint = _fingerprint(work, shards, unused, layout)
    with files.lock(folder.with_suffix(".lock"), "choose another --output"):
        if done.exists():
            summary = _made_before(done, fingerprint)
            fresh = [shard for shard in shards if read_report(str(done), shard)]
            if len(fresh) == len(shards):
                return summary
            logging.warning("%s: %d of %d shards are made again, as files have changed or arrived",
                            done, len(shards) - len(fresh), len(shards))
            _start(folder, fingerprint)
            _take_over(done, folder, fresh)
        _start(folder, fingerprint)
        check_lost(unused + list(filter(None, (
            absent(work, e) for _, e in itertools.chain.from_iterable(examples.values())))), limits)
        reports = _write(work, shards, workers, progress, stopped, unused, limits)
        skipped = unused + [skip for shard in shards for skip in reports[shard.file]["skipped"]]
        _write_skipped(folder, skipped)
        summary = {"name": name, "version": VERSION, "fingerprint": fingerprint,
                   "source": str(source.resolve()), "options": options._asdict(),
                   "allow_missing": allow_missing,
                   "ignored_lists": ignored_lists(source if source.is_dir() else source.parent, layout.lists),
                   "unlisted": unlisted(layout),
                   **_sum_up(layout, examples, reports, skipped, notes),
                   "seconds": round(time.monotonic() - begin, 3)}
        check_train(source, {split: part["classes"] or {None: part["used"]}
                             for split, part in summary["splits"].items()}, skipped)
        _write_tfds(folder, name, work, summary, reports)
        summary["files"] = {file: checksum(folder / file) for file in DESCRIPTION}
        write_json(folder / SUMMARY, summary)
        _put_in_place(folder, done)
        remember(done, summary["shards"])
    return summary


class Limits(NamedTuple):
    """How much of a data set may be left out."""
    folder: pathlib.Path        # where the list of what is left out goes, if it is there
    listed: int                 # examples
    broken: float               # share of them
    skipped: float              # for other reasons


def check_lost(skipped: list[Skip], limits: Limits) -> None:
    """Raises UserError if more examples are left out than the limits allow."""
    broken = [skip for skip in skipped if skip.broken]
    lost = [skip for skip in skipped if not (skip.broken or skip.meant)]
    for part, share, what, remedy in (
            (broken, limits.broken, "are broken", "repair them, or pass --allow_broken to leave "
             "them out"),
            (lost, limits.skipped, "would be left out", "fix that, or continue without them by "
             f"--allow_skipped={math.ceil(100 * len(lost) / max(limits.listed, 1)) / 100:g}"
             if len(lost) < limits.listed else "see --describe_layout")):
        if len(part) > share * limits.listed:
            if limits.folder.exists():
                _write_skipped(limits.folder, part)
            listed = f"; all are in {limits.folder / SKIPPED}" if limits.folder.exists() else ""
            raise UserError(f"{len(part)} of {limits.listed} examples {what}, more than "
                            f"{share:.0%}: {_reasons(part)}{listed}; {remedy}")


def check_train(source: pathlib.Path, counts: Mapping[str, Mapping[str | None, int]],
                skipped: list[Skip]) -> None:
    """Raises UserError if there is no example or only one class to train on, or a split is empty.

    Args:
      counts: by split, of the examples of every class; None stands for all in a data set without
        classes.
    """
    why = f": {_reasons(skipped)}" if skipped else ""
    if not any(sum(part.values()) for part in counts.values()):
        raise UserError(f"{source}: no example can be used{why}")
    for split in {"train": 0} | counts:
        if not sum(counts.get(split, {}).values()):
            raise UserError(f"{source}: no example of {split} can be used{why}; expected some of "
                            "every split that is listed, and of train")
    found = [name for name, count in counts["train"].items() if count]
    if found != [None] and len(found) == 1:
        raise UserError(f"{source}: all examples of train are of the class {found[0]!r}; expected two "
                        "classes at least: see how labels are written there (--describe_layout)")


def _reasons(skipped: list[Skip]) -> str:
    """Why examples are left out, the most frequent reason first, with the first of them."""
    counts = collections.Counter(skip.reason for skip in skipped)
    first = next(skip for skip in skipped if skip.reason == counts.most_common(1)[0][0])
    return (", ".join(f"{count} {reason}" for reason, count in counts.most_common()) +
            f"; the first, {first.key}: {first.reason}" + (f" ({first.detail})" if first.detail else ""))


def describe_layout(name: str) -> str:
    """Which files the data set called `name` needs, and how they are used.

    Raises:
      UserError: there is no such data set.
    """
    check_choice("--dataset", name, BUILDERS)
    return inspect.getdoc(inspect.getmodule(BUILDERS[name].layout))


def select(layout: Layout) -> tuple[dict[str, list[tuple[int, Example]]], list[Skip], dict]:
    """The examples to decode, by split, with their ids; those that the lists rule out; and notes.

    Ids number the examples of a split in the order of their keys. Examples are the same if they are made
    from the same sources. Of an example that is listed several times one is kept, in test rather than
    val, and in val rather than train. Different examples with the same key get new keys.
    """
    skipped = [entry for entry in layout.entries if isinstance(entry, Skip)]
    kept: dict[Any, Example] = {}
    keys: set[tuple[str, str]] = set()
    given: collections.Counter[tuple[str, str]] = collections.Counter()     # again, of every key
    notes = {what: dict(entry) for what, entry in layout.notes.items()}
    classes = {None, *layout.class_names}
    names = {spelling(name): name for name in layout.class_names}
    for split in reversed(SPLITS):
        for entry in layout.entries:
            if isinstance(entry, Skip) or entry.split != split:
                continue
            label = entry.label
            if not layout.outputs and label not in classes:
                label = names.get(spelling(label))
                if label is None:
                    unlabelled = spelling(entry.label) in UNLABELLED
                    skipped.append(Skip(entry.key, split, "no label") if unlabelled else
                                   Skip(entry.key, split, "unknown label", repr(entry.label)))
                    continue
                count_name(notes, f"label {entry.label!r} taken as {label!r}", entry.key)
            content = frozenset((m, s.read, s.args) for m, s in entry.sources.items()) or entry.key
            if other := kept.get(content):
                reason = ("duplicate in another split" if other.split != split else
                          "duplicate with another label" if other.label != label else "duplicate")
                skipped.append(Skip(entry.key, split, reason, f"kept in {other.split} as {other.label}"
                                    + (f", {other.key}" if other.key != entry.key else "")))
                continue
            key = entry.key
            while (split, key) in keys:
                given[split, entry.key] += 1
                key = f"{entry.key}#{given[split, entry.key] + 1}"
            if key != entry.key:
                count_name(notes, "key of another example, numbered", key)
            keys.add((split, key))
            kept[content] = entry._replace(key=key, label=label)
    splits = {split: sorted((e for e in kept.values() if e.split == split), key=lambda e: e.key)
              for split in SPLITS}
    # A split that is listed and of which nothing is left is kept: empty, it is an error.
    listed = {entry.split for entry in layout.entries}
    return ({split: list(enumerate(part)) for split, part in splits.items() if split in listed},
            skipped, notes)


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
    for title, found in (("skipped", summary["skipped"]), ("noted", summary["notes"]),
                         ("repeated", summary["repeated"])):
        lines += [f"  {title}: {entry['count']} {what} ({', '.join(entry['first'])}"
                  f"{', ...' if entry['count'] > len(entry['first']) else ''})"
                  for what, entry in found.items()]
    if summary["ignored_lists"]:
        lines.append(f"  not read: {', '.join(summary['ignored_lists'])}")
    if count := summary["unlisted"]["count"]:
        lines.append(f"  not listed: {count} files ({', '.join(summary['unlisted']['first'])}"
                     f"{', ...' if count > FIRST else ''})")
    train = summary["splits"]["train"]["classes"]
    if untaught := [name for name, count in train.items() if not count]:
        lines.append(f"  {len(untaught)} classes without training examples: {', '.join(untaught[:FIRST])}"
                     f"{', ...' if len(untaught) > FIRST else ''}")
    if summary["left_out"]:
        lines.append(f"  all of them: {folder / SKIPPED}")
    return "\n".join(lines)


def _write(work: Work, shards: list[Shard], workers: int, progress: bool, stopped: Callable[[], bool],
           unused: list[Skip], limits: Limits) -> dict[str, dict[str, Any]]:
    """The reports of all shards by file, after writing those that are not done."""
    reports = {s.file: read_report(work.folder, s) for s in shards}
    todo = [shard for shard in shards if reports[shard.file] is None]
    total = sum(len(shard.examples) for shard in shards)

    def check() -> None:
        check_lost(unused + [skip for r in reports.values() if r for skip in r["skipped"]], limits)

    with tqdm.tqdm(total=total, unit=" examples", disable=not progress,
                   initial=total - sum(len(shard.examples) for shard in todo)) as bar:
        for shard, report in _written(work, todo, workers, stopped):
            reports[shard.file] = report
            bar.update(len(shard.examples))
            check()
    check()
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
        with processes.shielded():
            futures = {pool.submit(write_shard, work, shard): shard for shard in shards}
        waiting = set(futures)
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, ASK_EVERY, "FIRST_COMPLETED")
            yield from ((futures[future], future.result()) for future in done)
            if stopped():
                raise Stopped
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError("a process that decodes has died, perhaps for lack of memory; run the same "
                        "command again, with fewer --workers") from error
    except BaseException:       # do not wait for the other processes
        for process in set(multiprocessing.active_children()) - others:
            process.kill()      # they are shielded from other signals
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Ends when the parent does."""
    jax.config.update("jax_platforms", "cpu")       # spectrograms need no accelerator
    processes.end_with_parent()


def _sum_up(layout: Layout, examples: dict[str, list], reports: dict[str, dict],
            skipped: list[Skip], notes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The part of the summary about the content; `notes` are those on the lists."""
    reasons, splits = {}, {}
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
            # Of the longest sound; shards of earlier versions do not say.
            modalities[m]["seconds"] = max(r.get("seconds", {}).get(m, 0.0) for r in reports.values())
    return {"class_names": list(layout.class_names), "outputs": list(layout.outputs),
            "multilabel": layout.multilabel, "drawn": layout.drawn, "groups": _groups(layout, reports),
            "modalities": modalities, "splits": splits,
            "used": sum(s["used"] for s in splits.values()), "left_out": len(skipped),
            "skipped": reasons, "notes": notes, "repeated": _repeated(reports),
            "shards": {file: {k: r[k] for k in ("examples", "size", "sha256")}
                       for file, r in reports.items()}}


def _groups(layout: Layout, reports: dict[str, dict]) -> dict[str, list[int]]:
    """The group of every example by number, in the order of the records of each split; {} without groups."""
    number = {group: i for i, group in enumerate(sorted(set(layout.groups.values())))}
    found: dict[str, list[int]] = {}
    for file, report in reports.items() if number else ():
        split = next(split for split in SPLITS if f"-{split}.array_record" in file)
        found.setdefault(split, []).extend(number[layout.groups[key]] for key in report["contents"])
    return found


def _repeated(reports: dict[str, dict]) -> dict[str, dict[str, Any]]:
    """Examples with the same content under different names; they are kept, as in the lists."""
    found: dict[str, list[tuple[str, str]]] = {}
    for file, report in reports.items():
        split = next(split for split in SPLITS if f"-{split}.array_record" in file)
        for key, content in report["contents"].items():
            found.setdefault(content, []).append((split, key))
    counts = {}
    for copies in found.values():
        splits = [split for split in SPLITS if split in dict(copies)]
        for _, key in copies[1:]:
            count_name(counts, f"of the same content, in {' and '.join(splits)}",
                       f"{key} = {copies[0][1]}")
    return counts


def _write_tfds(folder: pathlib.Path, name: str, work: Work, summary: dict[str, Any],
                reports: dict[str, dict]) -> None:
    """The files from which TFDS knows the data set."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name=name, filetype_suffix="array_record")
    infos = []
    for split in summary["splits"]:
        of_split = [r for file, r in reports.items() if f"-{split}.array_record" in file]
        infos.append(tfds.core.SplitInfo(
            name=split, shard_lengths=[r["examples"] for r in of_split],
            num_bytes=sum(r["bytes"] for r in of_split), filename_template=template))
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=tfds_features(summary["modalities"], len(work.outputs)), split_infos=infos,
        version=VERSION, filename_template=template, check_data=False,
        description=f"{name}, prepared by jaxmm from {summary['source']}")


def _write_skipped(folder: pathlib.Path, skipped: list[Skip]) -> None:
    """Every example that is left out: split, key, reason, detail."""
    lines = sorted("\t".join(" ".join(part.split()) for part in skip[:4]) for skip in
                   (s._replace(key=s.split, split=s.key) for s in skipped))
    text = "".join(f"{line}\n" for line in lines)
    files.write(folder / SKIPPED, text.encode(errors="backslashreplace"))


def _fingerprint(work: Work, shards: list[Shard], unused: list[Skip], layout: Layout) -> str:
    """A hash of all that decides what is written, but for the content of the user's files."""
    # Data sets of classes keep the fingerprint that they had before there were others.
    key = hashlib.sha256(repr((VERSION, work[1:] if work.outputs else work[1:-1], sorted(unused))).encode())
    if layout.drawn or layout.multilabel or layout.groups:
        key.update(repr((layout.drawn, layout.multilabel, sorted(layout.groups.items()))).encode())
    for shard in shards:
        for number, example in shard.examples:
            sources = [(m, s.read.__name__, s.args) for m, s in sorted(example.sources.items())]
            key.update(repr((shard.file, number, example[:3], sources)).encode())
    return key.hexdigest()


def _made_before(folder: pathlib.Path, fingerprint: str) -> dict[str, Any]:
    """The summary of a data set that already exists.

    Raises:
      UserError: it was made from other files or with other options.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if summary["fingerprint"] == fingerprint:
            return summary
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{folder} is there already, made from other files or with other options; "
                    "remove it or choose another --output")


def _start(folder: pathlib.Path, fingerprint: str) -> None:
    """Makes the folder ready, emptied if it holds the work of another plan."""
    plan = folder / PLAN
    try:
        other = plan.exists() and json.loads(plan.read_text(encoding="utf-8")) != fingerprint
    except ValueError:
        other = True
    if other:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(plan, fingerprint)


def _take_over(done: pathlib.Path, folder: pathlib.Path, shards: list[Shard]) -> None:
    """Puts shards of a finished data set into the folder of one that is being made."""
    for shard in shards:
        report = report_path(str(folder), shard.file)
        if not report.exists():
            report.parent.mkdir(exist_ok=True)
            (folder / shard.file).unlink(missing_ok=True)
            try:                        # files of shards are replaced, and never written again
                os.link(done / shard.file, folder / shard.file)
            except OSError:             # a file system without links
                shutil.copy2(done / shard.file, folder / shard.file)
            shutil.copy2(report_path(str(done), shard.file), report)


def _put_in_place(folder: pathlib.Path, done: pathlib.Path) -> None:
    """Moves `folder` to its final place, replacing an earlier data set."""
    before = done.with_name(f"{done.name}.old.incomplete")
    shutil.rmtree(before, ignore_errors=True)
    if done.exists():
        os.replace(done, before)
    os.replace(folder, done)
    (done / PLAN).unlink()
    shutil.rmtree(before, ignore_errors=True)
