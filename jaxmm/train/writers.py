"""Metrics as they come: `metrics.jsonl`, and tensorboard events if asked for."""
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxmm.errors import UserError

FILE = "metrics.jsonl"
Write = Callable[[Mapping[str, Any]], None]


@contextmanager
def open_writer(workdir: pathlib.Path, step: int, tensorboard: bool) -> Iterator[Write]:
    """Gives write(record), which appends one record, which has a "step" and a "kind" ("train" or "eval").

    Records after `step`, left by a run that went on after its last checkpoint, are removed; -1
    removes all.
    """
    path = workdir / FILE
    kept = [line for line in (path.read_text().splitlines() if path.exists() else [])
            if _step(line) <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(line + "\n" for line in kept))
    part.replace(path)
    events = _summary_writer()(str(workdir / "tensorboard"), flush_secs=10,
                               purge_step=step + 1) if tensorboard else None

    def write(record):
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if events:
            for name, value in _scalars(record):
                events.add_scalar(name, value, record["step"])

    try:
        yield write
    finally:
        if events:
            events.close()      # writes what is still queued


def _step(line: str) -> float:
    """The step of a record; infinite for a line cut short."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
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
