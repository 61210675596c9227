"""Saving and restoring the state, by orbax.

A checkpoint holds the state as a flat dictionary of arrays, named by their path, and `meta`: what
is known of the run as JSON, with a checksum for every array. Nothing of it is a pickle.
"""
import pathlib
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
    """Writes a checkpoint; it counts only once it is complete."""
    leaves = flatten(state)
    checksums = {name: zlib.crc32(np.ascontiguousarray(x)) for name, x in leaves.items()}
    manager.save(step, args=ocp.args.Composite(
        state=ocp.args.StandardSave(leaves),
        meta=ocp.args.JsonSave(dict(meta) | {"checksums": checksums})))


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
            state, meta = _read(manager, target, candidate)
            return candidate, state, meta
        # Orbax raises many types for damaged files, the bare Exception among them.
        except Exception as error:  # pylint: disable=broad-exception-caught
            reason = str(error).strip().splitlines() or [type(error).__name__]
            logging.warning("checkpoint of step %d in %s is damaged and left out: %s",
                            candidate, manager.directory, reason[0])
    raise UserError(f"{manager.directory}: no good checkpoint among the steps {sorted(wanted)}; "
                    "see the warnings above, and remove the folder to start over")


def _read(manager, target, step):
    restored = manager.restore(step, args=ocp.args.Composite(
        state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()))
    leaves = {name: np.asarray(x) for name, x in restored["state"].items()}
    for name, checksum in restored["meta"]["checksums"].items():
        if zlib.crc32(np.ascontiguousarray(leaves[name])) != checksum:
            raise ValueError(f"{name} has a wrong checksum")
    return unflatten(target, leaves), restored["meta"]
