"""Saving and restoring the state, by orbax.

A checkpoint holds the state as a flat dictionary of arrays, named by their path, and `meta`: what
is known of the run as JSON, with a checksum for every array. Nothing of it is a pickle.
"""
import os
import pathlib
import time
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxmm.errors import UserError

FOLDER = "checkpoints"
REMEDY = ("start again in another folder with a lower optimizer.learning_rate or with "
          "optimizer.clip_norm")


def open_manager(workdir: pathlib.Path, keep: int | None = None) -> ocp.CheckpointManager:
    """The checkpoints of a run folder, of which the newest `keep` stay (None: all)."""
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.LatestN(keep) if keep else None,
        enable_async_checkpointing=False)
    return ocp.CheckpointManager((workdir / FOLDER).absolute(), options=options)


def flatten(tree) -> dict[str, np.ndarray]:
    """Arrays of the tree on the host, by path; random keys as their data."""
    leaves = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        leaves[jax.tree_util.keystr(path, simple=True, separator="/")] = np.asarray(x)
    return leaves


def unflatten(target, leaves: Mapping[str, np.ndarray]):
    """The arrays in the form of `target`, a tree of arrays or their shapes.

    Raises:
      ValueError: names, shapes or types are not those of the target.
    """
    expected = jax.tree_util.tree_leaves_with_path(target)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in expected]
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


def save(manager: ocp.CheckpointManager, step: int, state, meta: Mapping[str, Any]) -> None:
    """Writes a checkpoint; it counts only once it is complete.

    Raises:
      FloatingPointError: a parameter is not finite; nothing is written.
    """
    leaves = flatten(state)
    for name, x in leaves.items():
        if name.startswith("params/") and not np.isfinite(x).all():
            raise FloatingPointError(f"after step {step} the parameter {name} is not finite; the "
                                     f"last good checkpoint is kept; {REMEDY}")
    checksums = {name: zlib.crc32(np.ascontiguousarray(x)) for name, x in leaves.items()}
    saved = manager.save(step, args=ocp.args.Composite(
        state=ocp.args.StandardSave(leaves),
        meta=ocp.args.JsonSave(dict(meta) | {"checksums": checksums})))
    if not saved:
        raise OSError(f"{manager.directory}: the checkpoint of step {step} was not written")


def restore(manager: ocp.CheckpointManager, target, step: int | None = None):
    """(step, state, meta) of the newest good checkpoint, or of `step`; None if there are none.

    A damaged checkpoint is named in a warning and the one before it is used.

    Raises:
      UserError: no checkpoint of that step, or every one is damaged.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    if step is not None and step not in steps:
        raise UserError(f"{manager.directory}: no checkpoint of step {step}; "
                        f"found {sorted(steps) or 'none'}")
    if not steps:
        return None
    wanted = steps if step is None else [step]
    for candidate in wanted:
        try:
            leaves, meta = _read(manager, candidate)
        # Orbax raises many types for damaged files, the bare Exception among them.
        except Exception as error:  # pylint: disable=broad-exception-caught
            reason = str(error).strip().splitlines() or [type(error).__name__]
            logging.warning("checkpoint of step %d in %s is damaged and left out: %s",
                            candidate, manager.directory, reason[0])
            continue
        try:
            return candidate, unflatten(target, leaves), meta
        except ValueError as error:
            raise UserError(f"{manager.directory}: step {candidate} is of another model or other "
                            f"data: {error}; restore the data, or name another folder") from error
    raise UserError(f"{manager.directory}: no good checkpoint among the steps {sorted(wanted)}; "
                    "see the warnings above, and remove the folder to start over")


def set_aside(manager: ocp.CheckpointManager, after: int) -> None:
    """Renames the checkpoints after a step, which are damaged: they would stand in for new ones."""
    for step in manager.all_steps():
        if step > after:
            folder = pathlib.Path(os.fspath(manager.directory), str(step))
            folder.rename(folder.with_name(f"{step}.damaged-{time.time_ns()}"))
    manager.reload()


def _read(manager, step):
    restored = manager.restore(step, args=ocp.args.Composite(
        state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()))
    leaves = {name: np.asarray(x) for name, x in restored["state"].items()}
    for name, checksum in restored["meta"]["checksums"].items():
        if zlib.crc32(np.ascontiguousarray(leaves[name])) != checksum:
            raise ValueError(f"{name} has a wrong checksum")
    return leaves, restored["meta"]
