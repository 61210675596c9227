"""Files of a run: written whole or not at all, with one kind of error when writing fails.

A run folder may come from another machine. So files are only written to regular files of this folder,
never through a link, and files that are read may hold anything.
"""
import errno
import fcntl
import json
import os
import pathlib
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from absl import logging

from jaxmm.errors import UserError, WriteError

PathLike = str | os.PathLike[str]       # a path as a user gives it


def expand(path: str | os.PathLike) -> pathlib.Path:
    """A path that a user gave, with the home folder for ~, which shells leave in --option=~/path.

    Of a user who does not exist, as ~nobody, it is a name like any other.
    """
    return pathlib.Path(os.path.expanduser(path))


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file so that `path` is at any moment absent, the old file or the new one.

    Raises:
      WriteError: it could not be written; the old file is still there.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)    # left by a killed process, or a link to elsewhere
        with part.open("xb") as file:
            file.write(_bytes(content))
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise WriteError(f"{path} could not be written ({error.strerror or error})") from error


@contextmanager
def open_whole(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write to within the context; it appears at `path` when that ends. See `write`."""
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)
        file = part.open("xb")
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error.strerror or error})") from error
    try:
        with file:
            yield file
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def append(path: pathlib.Path, content: str | bytes) -> None:
    """Adds content to a file, or leaves the file as it was.

    Raises:
      WriteError: it could not be written.
    """
    content = _bytes(content)
    try:
        with _open_own(path, os.O_WRONLY | os.O_APPEND, "ab") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                while content:
                    content = content[file.write(content):]     # a full disk may take only a part
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error.strerror or error})") from error


def _bytes(content: str | bytes) -> bytes:
    # Names of files may hold bytes that are not text: those are written as \udcff.
    return content if isinstance(content, bytes) else content.encode(errors="backslashreplace")


def _open_own(path: pathlib.Path, flags: int, mode: str):
    """Opens a regular file, which is made if needed, but not a link to one.

    Raises:
      OSError: it is something else, such as a link, through which another file would be changed.
    """
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK     # a pipe would wait for its other end
    try:
        file = os.fdopen(os.open(path, flags, 0o666), mode, buffering=0)
        stranger = _stranger(os.fstat(file.fileno()))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from error
        raise
    if stranger:
        file.close()
        raise OSError(errno.ELOOP, stranger, str(path))
    return file


def _stranger(found: os.stat_result) -> str:
    """Why a file or folder does not belong to the run; "" if it does.

    Hard links do: backups of a folder are made of them, and an archive cannot bring one to a file
    outside it.
    """
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    return "" if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) else "it is not a file"


def check_new(option: str, path: pathlib.Path, other: str) -> None:
    """Raises UserError if there is something at the path of an option; `other` says what to name instead."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{option}={path} exists; remove it, or name {other}")


def check_own(path: pathlib.Path) -> None:
    """Raises UserError if writing to a file or folder of a run would change something elsewhere."""
    try:
        stranger = _stranger(path.lstat())
    except OSError:
        return      # there is none
    if stranger:
        raise UserError(f"{path} is not this folder's own: {stranger}, and what it leads to would "
                        "be changed; put a copy in its place, or name another folder")


def own_folder(path: pathlib.Path) -> pathlib.Path:
    """The folder of a run at `path`, which is made if needed; see `check_own`."""
    check_own(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def read(path: pathlib.Path) -> str:
    """The text of a file; for the errors see `read_bytes`."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read: it is not UTF-8 text (byte {error.start}); it "
                        "may be damaged") from error


def read_bytes(path: pathlib.Path, most: int = 2**26) -> bytes:
    """The content of a file.

    Raises:
      UserError: it cannot be read, is not a regular file, or has more than `most` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise UserError(f"{path} has {size} bytes; expected at most {most}")
        return file.read()


@contextmanager
def open_regular(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to read; one that is not a regular file, such as a pipe, is not waited for.

    Raises:
      UserError: it cannot be read, or is not a regular file.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path} is not a regular file; remove it, or name another folder")
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error


def parse_json(text: str | bytes) -> Any:
    """The value of strict JSON: no name twice in an object, no NaN or infinity.

    Raises:
      ValueError: it is something else, in one line.
    """
    def unique(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice!r} stands twice in an object")
        return found

    def finite(text):
        value = float(text)
        if not abs(value) < float("inf"):
            raise ValueError(f"{text[:20]} is not a finite number")
        return value

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def remove(path: pathlib.Path) -> None:
    """Removes a folder, or a link but not what it leads to; what cannot be removed stays."""
    if path.is_symlink():
        with suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def on_error(policy: str) -> Iterator[None]:
    """Turns a WriteError within into a warning if the policy is "continue", not if it is "stop"."""
    try:
        yield
    except WriteError as error:
        if policy == "stop":
            raise
        logging.warning("%s; training continues", error)


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
        file = _open_own(path, os.O_RDWR | os.O_APPEND, "a+b")
    except OSError as error:
        where = path if error.errno == errno.ELOOP else path.parent
        raise UserError(f"{where} cannot be written ({error.strerror}); {remedy}") from error
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
        owner = parse_json(file.read(4096))
        return (f"process {int(owner['pid'])} on {owner['host']}, for "
                f"{_duration(time.time() - owner['since'])}")
    except (ValueError, KeyError, TypeError, OverflowError):
        return "another process"    # which is about to say who it is


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"
