"""Files of a run: whole or not there, with one kind of error when the disk does not take them."""
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

from absl import logging

from jaxmm.errors import WriteError


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file so that `path` is at any moment absent, the old file or the new one.

    Raises:
      WriteError: it could not be written; the old file is still there.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WriteError(f"{path} could not be written ({error.strerror or error})") from error


def append(path: pathlib.Path, content: str | bytes) -> None:
    """Adds content to a file, or leaves the file as it was.

    Raises:
      WriteError: it could not be written.
    """
    content = content.encode() if isinstance(content, str) else content
    try:
        with path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                while content:
                    content = content[file.write(content):]     # a full disk may take a part of it
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error.strerror or error})") from error


@contextmanager
def on_error(policy: str) -> Iterator[None]:
    """Turns a WriteError within into a warning if the policy is "continue", not if it is "stop"."""
    try:
        yield
    except WriteError as error:
        if policy == "stop":
            raise
        logging.warning("%s; training goes on", error)
