import os
import signal
import subprocess
import sys
import time

from jaxmm import processes
from jaxmm.signals import SIGNALS

PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from jaxmm import processes
if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"),
                             initializer=processes.end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"PYTHONPATH": os.getcwd()}) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.kill()
    for _ in range(100):
        try:
            with open(f"/proc/{worker}/stat", encoding="utf-8") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":    # ended, but not waited for
                    return
        except FileNotFoundError:
            return
        time.sleep(0.1)
    raise AssertionError("it is still there")


def test_processes_started_while_shielded_leave_signals_to_their_parent():
    code = "import sys; print('up', flush=True); sys.stdin.read(); print('done')"
    with processes.shielded():
        child = subprocess.Popen([sys.executable, "-c", code], text=True, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
    assert child.stdout.readline() == "up\n"
    for number in SIGNALS:
        child.send_signal(number)
    assert child.communicate()[0] == "done\n" and child.returncode == 0
    assert not set(SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, [])
