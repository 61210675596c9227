import json
import os

import jax
import pytest

from jaxmm.errors import UserError
from jaxmm.experiments import bench

# Inputs and classes of the fixed workloads, as the PyTorch reference of the same names has them.
SHAPES = {
    "mla_small": (64, 10, [(32, 32), (16, 16)]),
    "concat_small": (64, 10, [(32, 32), (16, 16)]),
    "samm_small": (32, 10, [(32, 32), (16, 16)]),
    "samm_vggsound": (8, 100, [(129, 626), (4, 224, 224, 3)]),
    "mla_cremad": (16, 6, [(257, 188), (3, 224, 224, 3)]),
    "mla_features": (64, 4, [(512,), (1024,), (1024,)]),
    "concat_features": (64, 4, [(512,), (1024,), (1024,)]),
}


def test_figures_of_a_workload_fit_together(tmp_path, launch):
    output = tmp_path / "bench.json"
    cases = [["--workloads=concat_features", "--seconds=0.1", f"--output={output}"],
             ["--workloads=mla_smal"]]
    (code, out, err), (refused, _, message) = launch("launch.bench", cases)
    assert code == 0, err
    line = json.loads(out)
    assert line.pop("workload") == "concat_features"
    assert json.loads(output.read_text()) == {"concat_features": line}
    assert abs(line["examples_per_second"] * line["milliseconds_per_step"] / 64e3 - 1) < 0.01
    assert line["steps_per_call"] == 32 and line["peak_memory_mib"] > 50
    assert refused == 2 and "'mla_smal' is unknown" in message and message.count("\n") == 1


def test_workloads_have_the_published_shapes():
    assert set(SHAPES) == set(bench.WORKLOADS)
    for name, (batch, classes, shapes) in SHAPES.items():
        config, dataset = bench.synthetic(name)
        assert config.train.batch_size == batch and dataset.num_classes == classes
        assert [x.shape[1:] for x in dataset.splits["train"]["inputs"].values()] == shapes


def test_a_measuring_process_that_is_killed_is_not_waited_for(tmp_path, launch):
    with pytest.raises(UserError, match="was killed"):
        bench.in_new_process(os._exit, 1)
    (code, _, err), = launch("launch.bench", [["--workloads=mla_features", f"--output={tmp_path}"]])
    assert code == 2 and "expected a file" in err and err.count("\n") == 1


def test_a_point_of_scaling_counts_all_its_runs():
    case = bench.Case(batch=1024, modalities=2, seeds=2)
    found = bench.measure(*bench.scaling_workload(case), 0.05, case.seeds, jax.devices()[:1])
    assert found["steps_per_call"] == 4
    ratio = found["examples_per_second"] * found["milliseconds_per_step"] / (2 * 1024 * 1e3)
    assert abs(ratio - 1) < 0.01


def test_points_of_scaling_have_what_they_vary():
    config, dataset = bench.scaling_workload(bench.case_of("classes", 10_000))
    assert dataset.num_classes == 10_000 and len(dataset.splits["train"]["label"]) == 4096
    _, dataset = bench.scaling_workload(bench.case_of("examples", 1000))
    assert {x.shape for x in dataset.splits["train"]["inputs"].values()} == {(1000, 16)}


def test_only_processes_of_several_devices_get_more_threads(monkeypatch):
    monkeypatch.delenv("NPROC")
    with bench.threads(1):
        assert "NPROC" not in os.environ
    with bench.threads(64):
        assert int(os.environ["NPROC"]) >= 128
    assert "NPROC" not in os.environ
