"""Writes metrics during training: `metrics.jsonl` and, if asked for, tensorboard events and a wandb run.

A record of training has means over the steps since the previous record. They are "loss" and, for a
composite loss, its weighted terms as "loss/NAME", which add up to it (in MLA, which makes an update for
each modality, they are the losses of the updates, and "loss" is their mean); the training metric of each
head; with `train.gradient_norm` the "gradient_norm", the global norm of the gradients that the optimizer
gets, before clipping; and the method's own metrics. "learning_rate" is that of the last step. "seconds"
is wall-clock time since the run was started, with teachers, evaluations and checkpoints; a resumed run
continues from the last record that was kept.
"""
import json
import pathlib
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from absl import logging

from jaxmm import extras, files
from jaxmm.errors import UserError

FILE = "metrics.jsonl"
MOST = 2.0**128    # a number in a record of training is below it, as the mean of any float32 numbers is
CLOCKED = ("examples_per_second", "seconds")    # of a record of training, what another run has otherwise
Write = Callable[[Mapping[str, Any]], None]


@contextmanager
def open_writer(workdir: pathlib.Path, step: int, tensorboard: bool = False, on_error: str = "stop",
                wandb: Mapping[str, Any] | None = None) -> Iterator[Write]:
    """Gives write(record), which appends a record with a "step" and a "kind" ("train" or "eval").

    Records after `step`, written after the last checkpoint, are removed; -1 removes all. Lines that are
    not records are removed too, with a warning unless it is the last line and cut short. With
    `on_error` "continue", a record that cannot be written is skipped, with a warning. `wandb` holds the
    options of the run if they and the records are to go to wandb too.
    """
    path = workdir / FILE
    files.check_own(path)
    lines = read_lines(path)
    records = [parse(line) if line.endswith(b"\n") else None for line in lines]
    bad = [i for i, record in enumerate(records) if record is None]
    if bad and lines[bad[0]].endswith(b"\n"):
        logging.warning("%s: %d lines are not records and are removed, the first of them line %d",
                        path, len(bad), bad[0] + 1)
    kept = [line for line, record in zip(lines, records) if record and record["step"] <= step]
    if kept != lines:
        files.write(path, b"".join(kept))
    before = max((record.get("seconds", 0.0) for record in map(parse, kept)), default=0.0)
    start = time.monotonic() - before
    with ExitStack() as stack:
        sinks = [_open_events(workdir / "tensorboard", step)] if tensorboard else []
        if wandb is not None:
            sinks.append(stack.enter_context(_open_wandb(workdir, wandb)))

        def write(record):
            if record["kind"] == "train":
                record = {**record, "seconds": round(time.monotonic() - start, 3)}
            with files.on_error(on_error):
                files.append(path, json.dumps(record) + "\n")
                for add in sinks:
                    add(record)

        yield write


def set_evaluations(workdir: pathlib.Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Replaces the evaluations in `metrics.jsonl` by those of `history`, after data were scored again."""
    path = workdir / FILE
    records = list(filter(None, map(parse, read_lines(path))))
    wanted = [r for r in records if r["kind"] != "eval"] + [{"kind": "eval"} | r for r in history]
    wanted.sort(key=lambda r: r["step"])        # of one step, training comes first
    texts = [[json.dumps(r, sort_keys=True) for r in each] for each in (records, wanted)]
    if texts[0] != texts[1]:
        files.write(path, "".join(json.dumps(r) + "\n" for r in wanted))


def read_lines(path: pathlib.Path) -> list[bytes]:
    """The lines of `metrics.jsonl`; none if there is no such file."""
    return files.read_bytes(path, 2**30).splitlines(keepends=True) if path.exists() else []


def parse(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None for one that is damaged or is not a record of a run."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int or abs(record["step"]) >= 2**63:
        return None
    # Scores may be infinite; training metrics that are drawn may not.
    numbers = [value for name, value in record.items() if record.get("kind") == "train" and name != "kind"]
    sound = all(type(x) in (int, float) and -MOST < x < MOST for x in numbers)
    return record if sound and record.get("kind") in ("train", "eval") else None


def check_installed(tensorboard: bool, wandb: bool) -> None:
    """Raises UserError if a package that is needed for these writers is not installed."""
    if tensorboard:
        _tensorboard()
    if wandb:
        _wandb()


@contextmanager
def _open_wandb(workdir: pathlib.Path, options: Mapping[str, Any]) -> Iterator[Write]:
    """A function that logs the numbers of a record to the wandb run of this folder.

    Its id is kept in the folder, so that a resumed run continues there too. Steps that wandb has already
    are repeated to the same bits, and wandb ignores them.

    Raises:
      UserError: wandb cannot start, for example without network and without WANDB_MODE=offline.
    """
    wandb, path = _wandb(), workdir / "wandb" / "id"
    files.own_folder(path.parent)
    if not path.exists():
        files.write(path, secrets.token_hex(4) + "\n")
    try:
        run = wandb.init(id=files.read(path).strip(), resume="allow", reinit="create_new", name=str(workdir),
                         dir=str(workdir), config=dict(options))
    except wandb.Error as error:
        raise UserError(f"train.wandb: {error}; log in by `wandb login`, or set WANDB_MODE=offline") from error
    try:
        yield lambda record: run.log(dict(_scalars(record)), step=record["step"])
    finally:
        run.finish()


def _wandb():
    return extras.need("wandb", "train.wandb", "wandb")


def _tensorboard():
    event_pb2, summary_pb2, record_writer = (
        extras.need(f"tensorboardX.{module}", "train.tensorboard", "tensorboard")
        for module in ("proto.event_pb2", "proto.summary_pb2", "record_writer"))
    return event_pb2, summary_pb2, record_writer.masked_crc32c


def _open_events(folder: pathlib.Path, step: int) -> Write:
    """A function that appends the numbers of a record as an event; those after `step` are hidden.

    The package's own writer uses a thread, which dies on a full disk and then blocks training forever.
    """
    event_pb2, summary_pb2, masked_crc32c = _tensorboard()
    path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
    files.own_folder(folder)

    def append(**fields):
        event = event_pb2.Event(wall_time=time.time(), **fields).SerializeToString()
        size = struct.pack("<Q", len(event))
        checksums = [struct.pack("<I", masked_crc32c(x)) for x in (size, event)]
        files.append(path, size + checksums[0] + event + checksums[1])

    append(file_version="brain.Event:2")
    append(step=step + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
    return lambda record: append(step=record["step"], summary=summary_pb2.Summary(value=[
        summary_pb2.Summary.Value(tag=name, simple_value=value)
        for name, value in _scalars(record)]))


def _scalars(record, prefix=""):
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, float):
            yield f"{prefix}{name}", value
