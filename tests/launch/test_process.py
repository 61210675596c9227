import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

STOPPED = "stopped by a signal; run the same command again\n"


def start(*ignored, **kwargs):
    """A launcher, as soon as it heeds signals, long before it has imported what it needs."""
    def ignore():
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    process = subprocess.Popen([sys.executable, "-m", "launch.train", "--help"], text=True,
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               preexec_fn=ignore, **kwargs)
    while process.poll() is None and not mask(process, "SigCgt") >> signal.SIGTERM - 1 & 1:
        time.sleep(0.002)
    return process


def mask(process, name):
    """The signals that a process catches (SigCgt) or ignores (SigIgn), as bits."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0], 16)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_before_training_begins_has_its_code(number):
    process = start()
    process.send_signal(number)
    assert (process.communicate()[1], process.returncode) == (STOPPED, 75)


def test_what_is_ignored_from_the_start_stays_ignored():
    process = start(signal.SIGHUP)
    assert mask(process, "SigIgn") >> signal.SIGHUP - 1 & 1
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert (process.communicate()[1], process.returncode) == (STOPPED, 75)


def test_importing_launchers_leaves_signals_alone():
    import launch
    del launch
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def run(code, shell="", **environment):
    """What a small process prints, and its exit code."""
    command = f'exec "$0" -c "$1" {shell}'
    done = subprocess.run(["sh", "-c", command, sys.executable, code], text=True,
                          capture_output=True, env=os.environ | environment)
    return done.stdout, done.stderr, done.returncode


def test_closed_streams_lead_nowhere_and_not_into_the_next_file(tmp_path):
    code = f"""
import os, sys
from jaxmm.commands import process
process.begin()
file = os.open({str(tmp_path / "checkpoint")!r}, os.O_CREAT | os.O_WRONLY)
with process.streams():
    print("out"); print("err", file=sys.stderr); os.write(2, b"of a library")
os._exit(file < 3)
"""
    assert run(code, ">&- 2>&- <&-") == ("", "", 0)
    assert run(code, "2>&-") == ("out\n", "", 0)
    assert run(code) == ("out\n", "err\nof a library", 0)
    assert (tmp_path / "checkpoint").read_bytes() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="of the C library of Linux")
@pytest.mark.parametrize("own", [None, "", "glibc.malloc.perturb=1"])
def test_a_command_starts_anew_with_huge_pages_unless_the_environment_has_its_own(own, monkeypatch):
    """The same process, with the same arguments."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    code = """
import os, sys
from jaxmm.commands import process
print(os.getpid(), flush=True)
process.begin()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], *sys.argv[1:])
"""
    out, err, code = run(code, "'--a b' c", **{} if own is None else {"GLIBC_TUNABLES": own})
    *starts, last = out.splitlines()
    assert (err, code, len(starts)) == ("", 0, 2 if own is None else 1)
    assert last == f"{starts[0]} {'glibc.malloc.hugetlb=1' if own is None else own} --a b c" and len(set(starts)) == 1


def test_a_terminal_without_the_characters_gets_them_escaped():
    code = r"""
import sys
from jaxmm.commands import process
with process.streams():
    print("Gr\xf6\xdfe \xb1 \udcff"); print("Gr\xf6\xdfe", file=sys.stderr)
"""
    for environment in ({"PYTHONIOENCODING": "ascii:strict"},
                        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
                         "PYTHONIOENCODING": ""}):
        assert run(code, **environment) == (
            "Gr\\xf6\\xdfe \\xb1 \\udcff\n", "Gr\\xf6\\xdfe\n", 0)


def test_it_ends_in_silence_when_nobody_reads_on():
    code = """
from jaxmm.commands import process
with process.streams():
    for i in range(100_000):
        print(i)
"""
    command = '"$0" -c "$1" 2>&1; echo "ended with $?" >&2'
    with subprocess.Popen(["sh", "-c", command, sys.executable, code], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == "ended with 141\n"
