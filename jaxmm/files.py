"""Files of a run: whole or not there, with one kind of error when the disk does not take them."""
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from absl import logging

from jaxmm.errors import UserError, WriteError


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


@contextmanager
def lock(path: pathlib.Path, remedy: str) -> Iterator[None]:
    """Keeps other processes from working in the folder of the file `path`, which is made if needed.

    The lock is the operating system's and ends with the process, however it ends; the file stays,
    and says who holds it. It holds between the hosts of an NFS mount, where the server gives up the
    lock of a host that is gone after its lease (NFS 4) or when the host is back (NFS 3). File
    systems that keep locks on each host (FUSE mounts of object stores, Lustre with `localflock`) do
    not show it to other hosts; on those without any, a warning says so.

    Args:
      path: of the file that is locked.
      remedy: what the user can do if the folder cannot be had.

    Raises:
      UserError: another process, or another call in this one, has it, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise UserError(f"{path.parent} cannot be written ({error.strerror}); {remedy}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{path.parent} is in use by {_owner(file)}; wait for it, stop it, or "
                            f"{remedy}") from error
        except OSError as error:
            logging.warning("%s cannot be locked (%s): let no other process work in it",
                            path.parent, error.strerror)
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        with suppress(OSError):     # on a full disk the lock holds all the same
            file.truncate(0)
            file.write(json.dumps(owner).encode())
        yield


def _owner(file) -> str:
    """Who holds a lock, and for how long."""
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return (f"process {owner['pid']} on {owner['host']}, for "
                f"{_duration(time.time() - owner['since'])}")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return "another process"    # which is about to say who it is


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"
