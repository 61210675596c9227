"""Metrics as they come: `metrics.jsonl`, and tensorboard events if asked for."""
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
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
    events = _summary_writer()(str(workdir / "tensorboard"), flush_secs=10,
                               purge_step=step + 1) if tensorboard else None

    def write(record):
        with files.on_error(on_error):
            files.append(path, json.dumps(record))
        if events:
            for name, value in _scalars(record):
                events.add_scalar(name, value, record["step"])

    try:
        yield write
    finally:
        if events:
            events.close()      # writes what is still queued


def _step(line: bytes) -> float:
    """The step of a record; infinite for a line that is damaged."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def check_tensorboard() -> None:
    """Raises UserError if the package that writes tensorboard events is not installed."""
    _summary_writer()


def _summary_writer():
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("train.tensorboard needs the package tensorboardX; "
                        "install the extra: pip install 'jaxmm[tensorboard]'") from error
    return SummaryWriter


def _scalars(record, prefix=""):
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, float):
            yield f"{prefix}{name}", value
