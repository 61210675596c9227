import os
import subprocess
import sys
import time

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
