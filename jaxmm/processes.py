"""Processes that work for another one."""
import multiprocessing
import os
import signal
import threading

from jaxmm.train.signals import SIGNALS


def end_with_parent() -> None:
    """Ends this process when the one that started it does, however that ends, and not before.

    Signals, which a terminal and Slurm send to all processes of a job, are the parent's to heed.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)     # pylint: disable=protected-access

    threading.Thread(target=wait, daemon=True).start()
