"""Signals that ask a process to stop: the first lets a run save its state, a second one ends it at once.

One that the process was started to ignore, as SIGHUP under `nohup`, stays ignored.
"""
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)    # the last from Slurm
EXIT_CODE = 75  # stopped by a signal, with what is done saved: run the same command again
SAME = 0.5      # seconds within which signals are one, passed on by several parents, say


class Preempted(KeyboardInterrupt):
    """Stopped by a signal; what is done is saved, and the same command resumes from there."""


def end_at_signals() -> None:
    """From now on a signal ends the process with EXIT_CODE at once: there is nothing to save yet."""
    def end(number, frame):
        with suppress(OSError):         # nobody reads it any more
            os.write(2, b"stopped by a signal; run the same command again\n")
        os._exit(EXIT_CODE)     # pylint: disable=protected-access

    for number in _heeded():
        signal.signal(number, end)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """stopped(): whether a signal came. A second one ends the process at once.

    One that came too late to stop anything is raised again when all is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False     # signals cannot be handled there
        return
    received = []
    with _handled(lambda number, frame: received.append(number)), _second_ends():
        yield lambda: bool(received)
    for number in received[:1]:
        signal.raise_signal(number)


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Raises Preempted at a signal, where nothing waits to be saved. A second one ends the process."""
    def stop(number, frame):
        raise Preempted("stopped by a signal; run the same command again")

    with _handled(stop), _second_ends():
        yield


def _heeded() -> list[int]:
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def _handled(handler) -> Iterator[None]:
    old = {number: signal.signal(number, handler) for number in _heeded()}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


@contextmanager
def _second_ends() -> Iterator[None]:
    """Ends the process at the second signal, in the midst of a compiled call too.

    Python's handlers wait for the end of such a call, and then see several signals as one; the file
    descriptor it writes their numbers to does not.
    """
    ours, written_to = socket.socketpair()
    written_to.setblocking(False)       # demanded by set_wakeup_fd

    heeded = _heeded()

    def watch():
        first = None
        with ours:
            while number := ours.recv(1):
                now = time.monotonic()
                if number[0] not in heeded:
                    continue
                first = first or now
                if now - first > SAME:
                    os._exit(128 + number[0])   # pylint: disable=protected-access

    threading.Thread(target=watch, daemon=True).start()
    previous = signal.set_wakeup_fd(written_to.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        written_to.close()              # which ends the thread
