"""Processes that work for another one."""
import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Ends this process when the one that started it does, however that ends."""
    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)     # pylint: disable=protected-access

    threading.Thread(target=wait, daemon=True).start()
