import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxmm import signals

# A call of about a minute that Python's own handlers wait for, as they do for a compiled one.
LONG_CALL = """
import hashlib
from jaxmm.signals import stop_signals
with stop_signals():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**8)
"""


def test_a_second_signal_ends_a_process_in_a_long_call():
    with subprocess.Popen([sys.executable, "-c", LONG_CALL], stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2 * signals.SAME)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 128 + signal.SIGINT
        finally:
            process.kill()


def test_one_signal_is_told_and_raised_again_when_nothing_stopped():
    seen = []
    with pytest.raises(signals.Preempted), signals.stop_at_once():
        with signals.stop_signals() as stopped:
            assert not stopped()
            signal.raise_signal(signal.SIGTERM)
            assert stopped()
            seen.append("done")
        seen.append("never reached")
    assert seen == ["done"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_signals_of_terminals_and_of_slurm_stop_too_but_not_where_ignored(number):
    before = signal.getsignal(number)
    with pytest.raises(signals.Preempted), signals.stop_at_once(), signals.stop_signals() as stopped:
        signal.raise_signal(number)
        assert stopped()
    signal.signal(number, signal.SIG_IGN)
    try:
        with signals.stop_at_once(), signals.stop_signals() as stopped:
            signal.raise_signal(number)
            assert not stopped()
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_signal_that_stopped_something_is_spent():
    with pytest.raises(OSError), signals.stop_at_once(), signals.stop_signals():
        signal.raise_signal(signal.SIGTERM)
        raise OSError("what it stopped with")


def test_where_nothing_is_to_be_saved_it_stops_at_once():
    with pytest.raises(signals.Preempted, match="the same command"), signals.stop_at_once():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_other_threads_train_without_signals():
    found = []

    def train():
        with signals.stop_signals() as stopped:
            found.append(stopped())

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [False]
