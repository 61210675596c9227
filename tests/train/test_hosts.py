"""Two processes with two devices each, on this machine, against one process with four."""
import os
import shutil
import signal
import socket
import subprocess
import sys

import chex
import jax
import pytest

from jaxmm.errors import UserError
from jaxmm.signals import Preempted
from jaxmm.train import checkpoints, hosts, plan, schedule
from jaxmm.train.restore import restore

# argv: port, number of this process, folder, of which process 1 knows nothing. Process 1 is told to
# stop during its last run.
PROCESS = """
import importlib.util, os, pathlib, signal, sys
spec = importlib.util.spec_from_file_location("conftest", "tests/conftest.py")
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)
import jax
from jaxmm.errors import UserError
from jaxmm.signals import Preempted
from jaxmm.train import hosts, schedule, setup
jax.config.update("jax_num_cpu_devices", 2)
port, number, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
hosts.initialize(f"localhost:{port}", 2, number)
nowhere = pathlib.Path("/nowhere")
log = open(folder / f"log{number}", "w", buffering=1)     # collectives write to stdout
assert jax.device_count() == 4 and jax.local_device_count() == 2

def train(name, method="mla", teachers="", **options):
    config = conftest._make_config(method, **{"epochs": 3, "steps_per_call": 1} | options)
    if teachers:
        config.method.teachers = str((folder if number == 0 else nowhere) / teachers)
    return schedule.train(config, (folder if number == 0 else nowhere) / name, progress=False,
                      dataset=conftest._make_dataset(missing=True))

run = train("whole")
print("accuracy", run.history[-1]["scores"]["fused"]["accuracy"], file=log)
try:
    train("whole", seed=1)
except UserError as error:
    print("refused", error, file=log)
train("taught", "umt", epochs=1)
train("named", "umt", "taught/teachers/{teacher}", epochs=1)
try:
    train("typo", "umt", "tought/{teacher}", epochs=1)
except UserError as error:
    print("refused", error, file=log)
join = setup.make_programs

def make_programs(*args):
    programs, count = join(*args), iter(range(100))

    def steps(*args):
        if number == 1 and next(count) == 5:
            signal.raise_signal(signal.SIGTERM)
        return programs.steps(*args)

    return programs._replace(steps=steps)

setup.make_programs = make_programs
try:
    train("cut")
except Preempted as stop:
    print("preempted", stop, file=log)
"""


@pytest.fixture(name="outputs", scope="module")
def run_processes(tmp_path_factory):
    """The folder they trained in, and what each says of it."""
    folder = tmp_path_factory.mktemp("hosts")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
    processes = [subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(port), str(i), str(folder)], text=True,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for i in range(2)]
    outputs = [process.communicate(timeout=400) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    return folder, [(folder / f"log{i}").read_text().splitlines() for i in range(2)]


def leaves(run):
    return checkpoints.flatten(run.setup.programs.fetch(run.state))


@pytest.fixture(name="expected", scope="module")
def one_process(make_dataset, make_config, tmp_path_factory):
    return schedule.train(make_config("mla", epochs=3, steps_per_call=1),
                      tmp_path_factory.mktemp("one") / "run", progress=False,
                      dataset=make_dataset(missing=True), devices=jax.devices()[:4])


def test_parameters_are_those_of_one_process(outputs, expected, make_dataset):
    folder, lines = outputs
    found = restore(folder / "whole", dataset=make_dataset(missing=True))
    chex.assert_trees_all_close(leaves(found), leaves(expected), rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(*([r["scores"] for r in run.history] for run in (found, expected)),
                                rtol=1e-6, atol=1e-6)
    accuracy = expected.history[-1]["scores"]["fused"]["accuracy"]
    assert lines[0][0] == lines[1][0] == f"accuracy {accuracy}"     # each has the whole test split
    assert lines[0][1] == lines[1][1]
    assert "belongs to a run with another config: train.seed was 0, is 1" in lines[1][1]


def test_teachers_that_are_named_are_read_by_one_process_for_all(outputs, make_dataset):
    folder, lines = outputs
    trained, named = [restore(folder / name, dataset=make_dataset(missing=True))
                      for name in ("taught", "named")]
    chex.assert_trees_all_equal(leaves(named), leaves(trained))
    assert lines[0][2] == lines[1][2]
    assert "tought/unimodal_image is not a run folder" in lines[1][2]
    assert not (folder / "typo").exists()


def test_a_signal_to_one_stops_all_and_any_number_of_devices_goes_on(
        outputs, expected, make_dataset, make_config, tmp_path, monkeypatch):
    """From two processes with four devices in all to one device, then to two."""
    folder, lines = outputs
    assert lines[0][3] == lines[1][3]
    assert lines[0][3].startswith("preempted stopped by a signal after step 8 of 12")
    workdir = shutil.copytree(folder / "cut", tmp_path / "cut")

    def go_on(devices):
        return schedule.train(make_config("mla", epochs=3, steps_per_call=1), workdir, progress=False,
                          dataset=make_dataset(missing=True), devices=jax.devices()[:devices])

    chunk_of = plan.Chunks.__getitem__

    def chunk_with_signal(chunks, number):
        chunk = chunk_of(chunks, number)
        if chunk.end == 10:
            signal.raise_signal(signal.SIGTERM)
        return chunk

    with monkeypatch.context() as patch:
        patch.setattr(plan.Chunks, "__getitem__", chunk_with_signal)
        with pytest.raises(Preempted, match="step 10 of 12"):
            go_on(1)
    chex.assert_trees_all_close(leaves(go_on(2)), leaves(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arguments", [
    ("localhost:1234", None, None), ("", 2, 0), ("localhost:1234", 2, 2), ("localhost", 2, 0),
    ("localhost:abc", 1, 0), ("localhost:99999", 1, 0), (":1234", 1, 0)])
def test_arguments_that_do_not_fit(arguments):
    with pytest.raises(UserError, match="expected all three: HOST:PORT"):
        hosts.initialize(*arguments)


def test_one_process_agrees_with_itself():
    assert hosts.is_main() and hosts.any_host(True) and not hosts.any_host(False)
    assert hosts.from_main(lambda: {"step": 3}) == {"step": 3}
    hosts.initialize()      # nothing to join here
    assert jax.process_count() == 1
