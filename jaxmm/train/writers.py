"""Metrics as they come: `metrics.jsonl`, and tensorboard events if asked for."""
import json
import pathlib
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jaxmm import files
from jaxmm.errors import UserError

FILE = "metrics.jsonl"
Write = Callable[[Mapping[str, Any]], None]


@contextmanager
def open_writer(workdir: pathlib.Path, step: int, tensorboard: bool,
                on_error: str = "stop") -> Iterator[Write]:
    """Gives write(record), which appends one record, which has a "step" and a "kind" ("train" or "eval").

    Records after `step`, left by a run that went on after its last checkpoint, are removed; -1
    removes all. With `on_error` "continue", a record that cannot be written is left out, with a
    warning.
    """
    path = workdir / FILE
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith(b"\n") and _step(line) <= step]
    if kept != lines:
        files.write(path, b"".join(kept))
    add_event = _open_events(workdir / "tensorboard", step) if tensorboard else lambda record: None

    def write(record):
        with files.on_error(on_error):
            files.append(path, json.dumps(record) + "\n")
            add_event(record)

    yield write


def set_evaluations(workdir: pathlib.Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Makes the evaluations in `metrics.jsonl` those of `history`, where data were scored anew."""
    path = workdir / FILE
    records = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    wanted = [r for r in records if r["kind"] != "eval"] + [{"kind": "eval"} | r for r in history]
    wanted.sort(key=lambda r: r["step"])        # of one step, training comes first
    texts = [[json.dumps(r, sort_keys=True) for r in each] for each in (records, wanted)]
    if texts[0] != texts[1]:
        files.write(path, "".join(json.dumps(r) + "\n" for r in wanted))


def _step(line: bytes) -> float:
    """The step of a record; infinite for a line that is damaged."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def check_tensorboard() -> None:
    """Raises UserError if the package that knows tensorboard events is not installed."""
    _tensorboard()


def _tensorboard():
    try:
        from tensorboardX import record_writer
        from tensorboardX.proto import event_pb2, summary_pb2
    except ImportError as error:
        raise UserError("train.tensorboard needs the package tensorboardX; "
                        "install the extra: pip install 'jaxmm[tensorboard]'") from error
    return event_pb2, summary_pb2, record_writer.masked_crc32c


def _open_events(folder: pathlib.Path, step: int) -> Write:
    """A function that appends the numbers of a record as an event; those after `step` are hidden.

    The package's own writer leaves it to a thread, which dies on a full disk and lets the training
    wait for it for ever.
    """
    event_pb2, summary_pb2, masked_crc32c = _tensorboard()
    path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
    folder.mkdir(exist_ok=True)

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
