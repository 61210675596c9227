"""Several processes, one on every host: who writes, and what all of them have to agree on.

Every process runs the same program on the same config. The first one alone touches the run folder
and tells the others what it found there, so the folder may lie on its own disk. All functions here
are exact no-ops for a single process.
"""
import glob
import importlib.util
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxmm.errors import UserError, WriteError
from jaxmm.signals import Preempted

ERRORS = {cls.__name__: cls for cls in (WriteError, UserError, FloatingPointError, Preempted)}


def initialize(coordinator: str = "", num_processes: int | None = None,
               process_id: int | None = None) -> None:
    """Joins the processes of a run, before anything else touches a device.

    Without arguments it does so on TPU VMs, which know their slice, and nothing elsewhere.

    Args:
      coordinator: HOST:PORT of the first process.
      num_processes: how many there are.
      process_id: of this one, from 0.

    Raises:
      UserError: some of the arguments are missing or do not fit, or the others do not answer.
    """
    given = (bool(coordinator), num_processes is not None, process_id is not None)
    if not any(given):
        if _has_tpu():
            jax.distributed.initialize()
        return
    if not all(given) or not 0 <= process_id < num_processes or not valid_address(coordinator):
        raise UserError(
            f"--coordinator={coordinator} --num_processes={num_processes} --process_id={process_id}; "
            "expected all three: HOST:PORT of process 0, their number, and a number from 0 for each")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except RuntimeError as error:
        raise UserError(f"process {process_id} of {num_processes} finds no coordinator at "
                        f"{coordinator}; start process 0 on that host: {error}") from error


def valid_address(address: str) -> bool:
    """Whether it is HOST:PORT; a port that is none would end the process without a word."""
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def _has_tpu() -> bool:
    """Whether this is a TPU VM; asking jax would start the backend."""
    return importlib.util.find_spec("libtpu") is not None and bool(
        glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def any_host(flag: bool) -> bool:
    """Whether the flag is set in any process; all must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def from_main(fn: Callable[[], Any]) -> Any:
    """What fn(), called in the main process alone, returns there, in every process.

    It must be of the kind that JSON holds. An error is raised in all of them, in the others as one
    of `ERRORS`, or else as a RuntimeError.
    """
    if jax.process_count() == 1:
        return fn()
    content, failure = b"", None
    if is_main():
        try:
            content = json.dumps({"value": fn()}).encode()
        # Whatever it is: the others wait for an answer.
        except (Exception, KeyboardInterrupt) as error:     # pylint: disable=broad-exception-caught
            failure = error
            kind = next((name for name, cls in ERRORS.items() if isinstance(error, cls)), "")
            content = json.dumps({"error": kind, "message": str(error)}).encode()
    size = int(share(np.int32(len(content))))
    found = json.loads(share(np.frombuffer(content.ljust(size), np.uint8)).tobytes())
    if failure:
        raise failure
    if "error" in found:
        raise ERRORS.get(found["error"], RuntimeError)(found["message"])
    return found["value"]


def share(tree):
    """The arrays of the main process; those of the others give the shapes and types."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)
