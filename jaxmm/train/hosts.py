"""Several processes, one on each host: which one writes, and what they have to agree on.

Every process runs the same program with the same config. Only the first one uses the run folder; it
sends the others what it finds there, so the folder may be on its local disk. With a single process all
functions here do nothing.
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
      UserError: arguments are missing or do not fit together, or the other processes do not answer.
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
    """Whether it is HOST:PORT; an invalid port would end the process without a message."""
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
    """The result of fn(), which only the main process calls, in every process.

    The result must be JSON-serialisable. An error is raised in all processes; in the others as the same
    type if that is one of `ERRORS`, otherwise as a RuntimeError.
    """
    if jax.process_count() == 1:
        return fn()
    content, failure = b"", None
    if is_main():
        try:
            content = json.dumps({"value": fn()}).encode()
        # Any error: the other processes wait for an answer.
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
    """The arrays of the main process, in every process; `tree` gives shapes and types in the others."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)
