"""Sets up the process of a command before slow imports, and its streams at the end."""
import contextlib
import gc
import os
import sys
from collections.abc import Iterator

from jaxmm.signals import end_at_signals

TUNABLES = "GLIBC_TUNABLES"     # that it is set, to "" even, says that they are chosen
EXIT_UNREAD = 141       # as of a process that SIGPIPE ends: nobody reads its output any more


def begin() -> None:
    """Installs the signal handlers, and replaces closed standard streams by /dev/null.

    Otherwise the next files opened, such as checkpoints, would get the messages. See also `imported`, and
    `use_huge_pages`, which comes first.
    """
    use_huge_pages()
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)      # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if descriptor else "r", encoding="utf-8"))
    end_at_signals()
    gc.disable()


def use_huge_pages() -> None:
    """Starts the command anew with large allocations in huge pages, on Linux, unless the environment has its own.

    XLA maps the temporary memory of a step, and the input pipeline that of a batch, anew each time: page by page of
    4 KiB that takes up to a fifth of the time. The C library reads its tunables when a process starts.
    """
    if sys.platform == "linux" and sys.executable and TUNABLES not in os.environ:
        os.environ[TUNABLES] = "glibc.malloc.hugetlb=1"
        with contextlib.suppress(OSError):      # then it goes on without
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def imported() -> None:
    """Looks for cycles of objects from now on, and never among what was imported until now.

    Imports and first traces make many objects and few cycles: looking for them took a tenth of the start.
    """
    gc.freeze()
    gc.enable()


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Within, text that a terminal has no characters for is escaped; ends in silence when a pipe does."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):      # not so in notebooks and tests
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        for descriptor in (1, 2):               # what is still in their buffers goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        sys.exit(EXIT_UNREAD)
