"""Processes that work for another one."""
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jaxmm.signals import SIGNALS


@contextmanager
def shielded() -> Iterator[None]:
    """Processes started within never get the signals that ask to stop.

    A terminal and Slurm send those to all processes of a job; here the parent heeds them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)      # which is inherited
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Ends this process when the one that started it does, however that ends."""
    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)     # pylint: disable=protected-access

    threading.Thread(target=wait, daemon=True).start()
