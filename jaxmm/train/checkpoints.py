"""Saving and restoring the state, by orbax.

A checkpoint holds the state as a flat dictionary of arrays, named by their path, and `meta`: facts
about the run as JSON, with the step, a checksum of every array and one of `meta` itself. There are no
pickles. Older checkpoints are removed only after a new one is complete and has been read back, so a
process that is killed at any moment leaves a good one if there was any.
"""
import copy
import errno
import json
import os
import pathlib
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from jaxmm import escape, files
from jaxmm.errors import UserError, WriteError

FOLDER = "checkpoints"
UNFINISHED = "*.orbax-checkpoint-tmp*"      # folders of a save that was cut short
MOST_BYTES = 3500                           # of a run folder's path; Linux allows 4096 for a whole path
SPARE_BYTES = 1 << 20                       # what a checkpoint takes besides its arrays
MOVED = {"extra/memory/storage/logits": "extra/memory/storage/logits/fused"}    # arrays of older versions (derpp)
# Errors of reading that do not mean a damaged file: permissions, too many open files, the disk.
OUT_OF_REACH = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
REMEDY = ("start again in another folder with a lower optimizer.learning_rate or with "
          "optimizer.clip_norm")
Save = Callable[..., None]                  # (step, state, meta, *, last)


def check_path(workdir: pathlib.Path) -> None:
    """Raises UserError for a run folder under a path that orbax misreads, when it has something to save."""
    path = workdir.absolute()
    odd = sorted(set("*?[\\") & set(str(path))) + ["gs:"] * ("gs:" in path.parts)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        odd.append("bytes that are not UTF-8 text")
    if odd:
        raise UserError(f"{path}: checkpoints cannot be kept under a path with {', '.join(odd)}; "
                        "name another folder")
    if len(os.fsencode(path)) > MOST_BYTES:
        raise UserError(f"{path.anchor}.../{path.name[-50:]}: the path has {len(os.fsencode(path))} bytes; "
                        f"expected at most {MOST_BYTES}")


def open_manager(workdir: pathlib.Path) -> ocp.CheckpointManager:
    """The checkpoint manager of a run folder, for this process only.

    Raises:
      UserError: the checkpoints are behind a link: removing old ones would remove them elsewhere.
    """
    folder = files.own_folder((workdir / FOLDER).absolute())
    this = jax.process_index()
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False, create=False,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=this, active_processes={this})))


@contextmanager
def open_saver(manager: ocp.CheckpointManager, keep: int, on_error: str) -> Iterator[Save]:
    """Gives save(step, state, meta, last=False, spare=None), which saves while training continues.

    It copies the state, so that its buffers may be donated, waits for the previous save, and writes in
    a thread; with `last` it returns when all is written. For `spare` see `write`. A write error is
    raised by the next save, or when the context ends. With `on_error` "continue" it is a warning if
    another save follows.
    """
    pending = []

    def settle(policy):
        while pending:
            with files.on_error(policy):
                pending.pop().result()

    def save_later(step, state, meta, *, last=False, spare=None):
        settle(on_error)
        pending.append(pool.submit(write, manager, step, copy_leaves(step, state),
                                   copy.deepcopy(meta), keep, spare))
        if last:
            settle("stop")

    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            yield save_later
        except BaseException:
            settle("continue")      # the first error is the one that is raised
            raise
        settle("stop")


def save(manager: ocp.CheckpointManager, step: int, state, meta: Mapping[str, Any],
         keep: int) -> None:
    """Writes a checkpoint now; see `copy_leaves` and `write`."""
    write(manager, step, copy_leaves(step, state), meta, keep)


def copy_leaves(step: int, state) -> dict[str, np.ndarray]:
    """Copies of the arrays of a state on the host.

    Raises:
      FloatingPointError: a parameter is not finite.
    """
    leaves = {name: np.array(x) for name, x in flatten(state).items()}
    for name, x in leaves.items():
        if name.startswith("params/") and not np.isfinite(x).all():
            raise FloatingPointError(f"after step {step} the parameter {name} is not finite; the "
                                     f"last good checkpoint is kept; {REMEDY}")
    return leaves


def write(manager: ocp.CheckpointManager, step: int, leaves: Mapping[str, np.ndarray],
          meta: Mapping[str, Any], keep: int, spare: int | None = None) -> None:
    """Writes a checkpoint, reads it back, and then removes all but the newest `keep` and that of the
    step `spare`.

    Raises:
      WriteError: it could not be written, or what is read back differs from what was written. Its
        remains are removed, and earlier checkpoints are kept.
    """
    meta = _with_checksums(leaves, dict(meta) | {"step": step})
    if step in manager.all_steps():
        raise ValueError(f"{manager.directory}: there is a checkpoint of step {step} already")
    try:
        _check_room(manager, sum(x.nbytes for x in leaves.values()))
        written = manager.save(step, args=ocp.args.Composite(
            state=ocp.args.StandardSave(dict(leaves)), meta=ocp.args.JsonSave(meta)))
        if not written or read(manager, step)[1]["checksum"] != meta["checksum"]:
            raise OSError("what is read back is not what was written")
    # Orbax raises many types when it cannot write, ValueError among them.
    except Exception as error:  # pylint: disable=broad-exception-caught
        remove_unfinished(manager)
        files.remove(_folder(manager, step))
        manager.reload()
        kept = max(manager.all_steps(), default=None)
        raise WriteError(
            f"{manager.directory}: the checkpoint of step {step} could not be written "
            f"({_reason(error)}); " + ("there is none before it" if kept is None
                                       else f"that of step {kept} is kept")) from error
    for old in sorted(manager.all_steps())[:-keep]:
        if old != spare:
            _take_away(_folder(manager, old))
    manager.reload()


def _take_away(folder: pathlib.Path) -> None:
    """Removes a checkpoint atomically: other processes find it whole, or not at all."""
    unfinished = folder.with_name(f"{folder.name}{UNFINISHED.strip('*')}-removed")
    with suppress(OSError):     # one that stays is tried again
        folder.rename(unfinished)
        files.remove(unfinished)


def _check_room(manager, size):
    """Raises OSError if the disk or a quota has no `size` bytes left.

    Orbax would find out halfway, and print a traceback for every array.
    """
    if not hasattr(os, "posix_fallocate"):      # macOS
        return
    with tempfile.TemporaryFile(dir=manager.directory) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size + SPARE_BYTES)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def flatten(tree) -> dict[str, np.ndarray]:
    """Arrays of the tree on the host, by path; random keys as their data."""
    leaves = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        leaves[jax.tree_util.keystr(path, simple=True, separator="/")] = x
    return {name: np.asarray(x) for name, x in jax.device_get(leaves).items()}     # in one go


def unflatten(target, leaves: Mapping[str, np.ndarray]):
    """The arrays in the form of `target`, a tree of arrays or their shapes; see `MOVED`.

    Raises:
      ValueError: names, shapes or types are not those of the target.
    """
    expected = jax.tree_util.tree_leaves_with_path(target)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in expected]
    leaves = {MOVED[name] if MOVED.get(name) in names else name: x for name, x in leaves.items()}
    if set(names) != set(leaves):
        raise ValueError(f"arrays {sorted(set(names) ^ set(leaves))[:4]} do not match")
    result = []
    for name, (_, like) in zip(names, expected):
        x = leaves[name]
        if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
            x = jax.random.wrap_key_data(x)
        if (x.shape, x.dtype) != (like.shape, like.dtype):
            raise ValueError(f"{name} is {x.dtype}{list(x.shape)}, "
                             f"expected {like.dtype}{list(like.shape)}")
        result.append(x)
    return jax.tree.unflatten(jax.tree.structure(target), result)


def restore(manager: ocp.CheckpointManager, target, step: int | None = None):
    """(step, state, meta) of the newest good checkpoint, or of `step`; None if there are none.

    Without a `target` the state is a dictionary of arrays by path, as it was written.

    A damaged checkpoint is named in a warning, and the one before it is used. If a checkpoint is removed
    meanwhile by the process that trains here, it is not taken as damaged, and the folder is listed again.

    Raises:
      UserError: no checkpoint of that step, or all are damaged, or one cannot be read because of
        permissions or a failing disk.
    """
    damaged = []
    while True:
        steps = sorted(manager.all_steps())
        if step is not None and step not in steps:
            raise UserError(f"{manager.directory}: no checkpoint of step {step}; "
                            f"found {steps or 'none'}")
        wanted = [s for s in (steps if step is None else [step]) if s not in damaged]
        if not wanted and not damaged:
            return None
        if not wanted:
            raise UserError(f"{manager.directory}: no good checkpoint among the steps "
                            f"{sorted(damaged)}; see the warnings above, and move the folder away "
                            "to start over")
        newest = wanted[-1]
        try:
            leaves, meta = read(manager, newest)
        # Orbax raises many types for damaged files, the bare Exception among them.
        except Exception as error:  # pylint: disable=broad-exception-caught
            manager.reload()
            if newest in manager.all_steps():
                _check_reach(_folder(manager, newest))
                logging.warning("checkpoint of step %d in %s is damaged and left out: %s",
                                newest, manager.directory, _reason(error))
                damaged.append(newest)
            continue
        try:
            return newest, leaves if target is None else unflatten(target, leaves), meta
        except ValueError as error:
            raise UserError(f"{manager.directory}: step {newest} is of another model or other "
                            f"data: {error}; restore the data, or name another folder") from error


def last_meta(workdir: pathlib.Path) -> dict[str, Any] | None:
    """`meta` of the newest checkpoint of a run folder that has a legible one, if there is one."""
    if not (workdir / FOLDER).is_dir():
        return None
    with closing(open_manager(workdir)) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                meta = manager.restore(
                    step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            # Of many types if it is damaged; restoring reports that.
            except Exception:  # pylint: disable=broad-exception-caught
                continue
            if isinstance(meta, dict) and "checksums" in meta:
                return meta
    return None


def _check_reach(folder: pathlib.Path) -> None:
    """Raises UserError if a file of the checkpoint cannot be read for a reason other than damage."""
    def fail(error):
        if error.errno in OUT_OF_REACH:
            raise UserError(f"{error.filename} cannot be read now ({error.strerror}), which does not "
                            "mean that the checkpoint is damaged; fix that, or move it away, and "
                            "the same command resumes") from error

    for place, _, names in os.walk(folder, onerror=fail):
        for name in names:
            path = os.path.join(place, name)
            try:
                if os.path.isfile(path):    # a pipe would be waited for
                    with open(path, "rb") as file:
                        file.read(1)
            except OSError as error:
                fail(error)


def set_aside(manager: ocp.CheckpointManager, after: int) -> None:
    """Renames the damaged checkpoints after a step, so that they do not take the place of new ones."""
    for step in manager.all_steps():
        if step > after:
            folder = _folder(manager, step)
            folder.rename(folder.with_name(f"{step}.damaged-{time.time_ns()}"))
    manager.reload()


def remove_unfinished(manager: ocp.CheckpointManager) -> list[str]:
    """Removes what saves that were cut short have left; returns the names of the folders."""
    folders = sorted(pathlib.Path(manager.directory).glob(UNFINISHED))
    for folder in folders:
        files.remove(folder)
    return [escape.printable(folder.name) for folder in folders]


def read(manager: ocp.CheckpointManager, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a checkpoint and its `meta`, with "checksums" and "checksum".

    Raises:
      Exception: of many types, if it is damaged or is the checkpoint of another step.
    """
    for path in _folder(manager, step).rglob("*"):      # a pipe would be waited for
        if not path.is_file() and not path.is_dir():
            raise ValueError(f"{path.name} is not a file")
    restored = manager.restore(step, args=ocp.args.Composite(
        state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()))
    leaves, meta = {n: np.asarray(x) for n, x in restored["state"].items()}, restored["meta"]
    found = _with_checksums(leaves, {k: meta[k] for k in meta.keys() - {"checksums", "checksum"}})
    for name in found["checksums"].keys() | meta["checksums"].keys():
        if found["checksums"].get(name) != meta["checksums"].get(name):
            raise ValueError(f"{name} has a wrong checksum")
    if found["checksum"] != meta["checksum"]:
        raise ValueError("meta has a wrong checksum")
    written = int(meta.get("step", leaves.get("step", step)))   # earlier versions did not write it
    if written != step:
        raise ValueError(f"it is that of step {written}, in the folder of another")
    return leaves, meta


def _with_checksums(leaves, meta):
    meta = dict(meta) | {"checksums": {name: zlib.crc32(np.ascontiguousarray(x))
                                       for name, x in leaves.items()}}
    return meta | {"checksum": zlib.crc32(json.dumps(meta, sort_keys=True).encode())}


def _folder(manager, step):
    return pathlib.Path(os.fspath(manager.directory), str(step))


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return escape.printable((str(error).strip().splitlines() or [type(error).__name__])[0])
