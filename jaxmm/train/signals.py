"""SIGTERM and SIGINT: the first lets a run save its state, a second one ends the process at once."""
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preempted(KeyboardInterrupt):
    """Stopped by a signal; what is done is saved, and the same command goes on from there."""


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
    """Turns a signal into Preempted where nothing waits to be saved, and a second one into an end."""
    def stop(number, frame):
        del frame
        signal.signal(number, signal.SIG_DFL)
        raise Preempted("stopped by a signal; the same command goes on from what is saved")

    with _handled(stop):
        yield


@contextmanager
def _handled(handler) -> Iterator[None]:
    old = {number: signal.signal(number, handler) for number in SIGNALS}
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

    def watch():
        count = 0
        with ours:
            while number := ours.recv(1):
                count += number[0] in SIGNALS
                if count == 2:
                    os._exit(128 + number[0])   # pylint: disable=protected-access

    threading.Thread(target=watch, daemon=True).start()
    previous = signal.set_wakeup_fd(written_to.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        written_to.close()              # which ends the thread
