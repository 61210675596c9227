"""The commands of tpu_vm.sh, with a stand-in for gcloud that runs those of the hosts here."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

# A slice of one host is the folder $CLOUD/slice, a bucket is $CLOUD/BUCKET.
GCLOUD = """#!/bin/bash
set -e
cd "$CLOUD"
echo "$*" >> log
positional=()
for argument in "$@"; do
  case $argument in
    --command=*) command=${argument#*=} ;;
    --delete-*) mirror=1 ;;
    --*) ;;
    *) positional+=("${argument#gs://}") ;;
  esac
done
case "${positional[*]}" in
  "compute tpus tpu-vm describe"*) cat slice/state ;;
  "compute tpus tpu-vm create"*) mkdir slice; echo READY > slice/state ;;
  "compute tpus tpu-vm delete"*) rm -r slice ;;
  "compute tpus tpu-vm scp"*) cp "${positional[4]}" "slice/${positional[5]#*:}" ;;
  "compute tpus tpu-vm ssh"*) cd slice; HOME=$PWD bash -c "$command" ;;
  "storage cp - "*) mkdir -p "$(dirname "${positional[3]}")"; cat > "${positional[3]}" ;;
  "storage rsync "*)
    from=${positional[2]} to=${positional[3]}
    case $from in "$BUCKET"*) to=$OLDPWD/$to ;; *) from=$OLDPWD/$from ;; esac
    if [ -n "$mirror" ]; then rm -rf "$to"; fi
    mkdir -p "$to"; cp -r "$from/." "$to" ;;
  *) echo "unknown: $*"; exit 9 ;;
esac
"""
PYTHON = """#!/bin/bash
mkdir -p "$3/bin"
printf '#!/bin/bash\\nexec {python} "$@"\\n' > "$3/bin/python"
printf '#!/bin/bash\\n' > "$3/bin/pip"
chmod +x "$3/bin/python" "$3/bin/pip"
"""


@pytest.fixture
def start(tmp_path):
    """start(**variables): the script as a process; `tmp_path` is the cloud."""
    for name, content in (("gcloud", GCLOUD), ("python3", PYTHON.format(python=sys.executable))):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)

    def start(**variables):
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CLOUD": str(tmp_path),
            "PROJECT": "p", "ZONE": "z", "BUCKET": "bucket", "JAX_PLATFORMS": "cpu",
            "CONFIG": "configs/synthetic.py:late",
            "FLAGS": "--config.train.epochs=2 --config.data.kind=A"} | variables
        return subprocess.Popen(["bash", "launch/tpu_vm.sh"], env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    return start


@pytest.fixture
def cloud(start):
    """run(**variables): the script's exit code and what it printed."""
    def run(**variables):
        with start(**variables) as process:
            output = process.communicate()[0]
        return process.returncode, output

    return run


needs_git = pytest.mark.skipif(not shutil.which("git") or not os.path.exists(".git"),
                               reason="the program is copied from a git checkout")


@needs_git
def test_a_run_goes_on_from_its_copy_in_the_bucket(cloud, tmp_path):
    (tmp_path / "slice").mkdir()
    (tmp_path / "slice/state").write_text("PREEMPTED\n")
    code, output = cloud()
    assert code == 0, output
    metrics = tmp_path / "bucket/runs/mla/metrics.jsonl"
    first = metrics.read_text()
    assert not (tmp_path / "slice").exists()        # deleted when done

    code, output = cloud()                          # on a new slice, with nothing left to do
    assert code == 0, output
    assert metrics.read_text() == first             # times included: nothing was trained again

    code, output = cloud(FLAGS="--config.train.epochs=3 --config.data.kind=B")
    assert code == 2 and "belongs to a run with another config" in output
    assert (tmp_path / "slice").exists() and metrics.read_text() == first


@needs_git
def test_a_script_that_is_stopped_copies_nothing_more(start, tmp_path):
    """Runs of several seeds have their checkpoints further down."""
    bucket, log = tmp_path / "bucket/runs/mla/seed_1", tmp_path / "log"
    with start(EVERY="0.3", FLAGS="--config.data.kind=A --config.train.epochs=100000 "
               "--config.train.checkpoint_epochs=50 --config.train.seeds=2") as process:
        for _ in range(200):
            time.sleep(0.3)
            if any((bucket / "checkpoints").glob("[0-9]*")):
                break
        process.terminate()
        assert process.wait(20) == 143
        time.sleep(2)               # for the copy that was being made
        calls = log.read_text()
        time.sleep(2)
        assert log.read_text() == calls
    assert any((bucket / "checkpoints").glob("[0-9]*"))
    owner = json.loads((tmp_path / "slice/jaxmm/runs/mla/seed_0/lock").read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(owner["pid"], signal.SIGKILL)       # the slice goes on without the script


def test_what_must_be_named_is_asked_for(cloud):
    code, output = cloud(BUCKET="")
    assert code == 1 and "name a bucket" in output
