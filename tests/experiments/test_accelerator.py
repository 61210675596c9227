"""The order of measurements, what a stopped one leaves, and figures of a tiny workload on CPU."""
import ast
import os
import sys
import time

import jax
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.errors import UserError
from jaxmm.experiments import accelerator as acc, bench

PROGRAMS = {acc.JAXMM: acc.WORKLOADS, acc.EAGER: ["mla_small"], acc.COMPILED: ["mla_small"]}
MACHINE = {"platform": "gpu", "device": "NVIDIA L4", "devices": 1, "memory_gib": 20.0, "cpu_cores": 8,
           "python": "3.12", "jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8"}


def measured(rate, programs, results=None, most=10**6):
    """Results and points in the order they are measured; rate(point) is examples/s or why it failed."""
    results, order = {} if results is None else results, []

    def run(point, timeout):
        if len(order) == most:
            raise KeyboardInterrupt
        order.append(point)
        found = rate(point)
        return {"failed": found} if isinstance(found, str) else {
            "milliseconds_per_step": 1e3 * point.seeds * point.batch / found, "examples_per_second": found,
            "gigaflop_per_step": point.batch, "share_of_peak": 0.5, "peak_memory_mib": 7,
            "compile_seconds": 1.0}

    try:
        acc.measure_all(results, programs, run, time.monotonic() + 3600, lambda: None)
    except KeyboardInterrupt:
        pass
    return results, order


def test_a_batch_grows_while_it_pays_and_fits():
    rates = {"mla_small": [100, 200, 219, 900], "mla_cremad": [100, 300, "out of memory"],
             "concat_small": ["it broke"], "samm_small": [10, 20, 40, 80]}

    def rate(point):
        return rates.get(point.workload, [5, 5])[acc.FACTORS.index(point.factor)]

    results, _ = measured(rate, PROGRAMS)
    tried = {w: [p.factor for p in results if p == (w, "tf32", p.factor, 1, acc.JAXMM)]
             for w in acc.WORKLOADS}
    assert tried == {"mla_small": [1, 4, 16], "mla_cremad": [1, 4, 16], "concat_small": [1],
                     "samm_small": [1, 4, 16, 64], "samm_vggsound": [1, 4], "mla_features": [1, 4],
                     "concat_features": [1, 4]}
    torch = {name: [p.factor for p in results if p.program == name and p.precision == "tf32"]
             for name in (acc.EAGER, acc.COMPILED)}
    assert torch == {acc.EAGER: [1, 4, 16], acc.COMPILED: [1, 16]}      # 219 is its best
    assert {p.workload for p in results if p.program != acc.JAXMM} == {"mla_small"}
    # MLA and SAMM of large frames are what a minute tells most about, before any other precision.
    assert {p.precision for p in list(results)[:8]} == {"tf32"}


def test_a_stopped_command_goes_on_where_it_was(tmp_path):
    whole, order = measured(lambda p: 100 * p.factor, PROGRAMS)
    results, first = measured(lambda p: 100 * p.factor, PROGRAMS, most=13)
    acc.save(tmp_path, MACHINE, results, "jaxmm bench")
    results, rest = measured(lambda p: 100 * p.factor, PROGRAMS, acc.load(tmp_path, MACHINE))
    assert first + rest == order and results == whole
    for changed in {"device": "NVIDIA A100"}, {"jax": "0.11.2"}:
        (name, value), = changed.items()
        with pytest.raises(UserError, match=f"with {name} {MACHINE[name]}, and this machine has {value}"):
            acc.load(tmp_path, MACHINE | changed)
    (tmp_path / "accelerator.json").write_text('{"results": [{"workload": 1}]}')
    with pytest.raises(UserError, match="does not hold measurements"):
        acc.load(tmp_path, MACHINE)


def test_what_has_no_time_left_is_not_recorded_and_a_killed_process_is_a_row():
    def run(point, timeout):
        assert timeout <= acc.MOST_SECONDS
        if point.workload == "samm_vggsound":
            raise TimeoutError
        raise UserError("the process was killed")

    results, programs = {}, {acc.JAXMM: ("mla_cremad", "samm_vggsound")}
    assert not acc.measure_all(results, programs, run, time.monotonic() + 60, lambda: None)
    assert list(results.values()) == [{"failed": "the process was killed"}]
    acc.measure_all(results, programs, run, time.monotonic() + 3600, lambda: None)
    slow = next(found for point, found in results.items() if point.workload == "samm_vggsound")
    assert slow == {"failed": f"not done in {acc.MOST_SECONDS} s"}
    assert not acc.measure_all({}, programs, run, time.monotonic(), lambda: None)


def test_table_holds_ratios_for_the_same_examples(tmp_path):
    point = acc.Point("mla_small", "tf32", 1, 1, acc.JAXMM)
    ours = {"milliseconds_per_step": 6.0, "examples_per_second": 10666.7, "share_of_peak": 0.125,
            "peak_memory_mib": 300, "compile_seconds": 20.0}
    results = {point: ours, point._replace(program=acc.EAGER): {"milliseconds_per_step": 8.0},
               point._replace(seeds=4): ours | {"milliseconds_per_step": 16.0, "share_of_peak": None},
               point._replace(factor=64): {"failed": "out of memory"}}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in acc.table(results).splitlines()]
    assert cells[0][-2:] == ["/ PyTorch", "note"]
    assert cells[2] == ["mla_small", "tf32", "64", "1", "6", "10667", "12.5%", "300", "20.0", "0.75", ""]
    assert cells[3][-2:] == ["", "out of memory"] and cells[4][-2] == "0.50"    # 16 / (4 * 8)
    acc.save(tmp_path, MACHINE | {"device": "NVIDIA L40"}, results, "jaxmm bench")
    assert "unknown card" in (tmp_path / "accelerator.md").read_text()


@pytest.mark.parametrize("kind, peaks", [
    ("NVIDIA H100 80GB HBM3", (67, 495, 989)), ("NVIDIA H100 PCIe", (51, 378, 756)),
    ("NVIDIA H200", (67, 495, 989)), ("NVIDIA A100-SXM4-80GB", (19.5, 156, 312)),
    ("Tesla V100-SXM2-16GB", (15.7, 15.7, None)), ("NVIDIA L4", (30.3, 60, 121)),
    ("Tesla T4", (8.1, 8.1, None)), ("NVIDIA L40", (None,) * 3), ("TPU v5 lite", (197 / 6, 197, 197)),
    ("TPU v5p", (459 / 6, 459, 459)), ("TPU v6 lite", (918 / 6, 918, 918)), ("cpu", (None,) * 3)])
def test_peak_of_a_card(kind, peaks):
    assert tuple(acc.peak(kind, precision) for precision in acc.PRECISIONS) == peaks


def test_figures_of_a_tiny_workload_fit_together(monkeypatch):
    encoder = EncoderConfig(name="mlp", width=8, depth=1)
    tiny = 4, 2, {"a": (encoder, (5,)), "b": (encoder, (3,))}
    monkeypatch.setitem(bench.WORKLOADS, "samm_small", (bench.SAMM, *tiny))
    config, dataset = acc.workload_at(acc.Point("samm_small", "bfloat16", 64, 2, acc.JAXMM))
    assert config.train.batch_size == len(dataset.splits["train"]["label"]) == config.method.capacity == 256
    assert {e.dtype for e in config.encoders.values()} == {"bfloat16"} and encoder.dtype == "float32"
    monkeypatch.setitem(bench.WORKLOADS, "samm_small", (bench.CONCAT, *tiny))
    config, dataset = acc.workload_at(acc.Point("samm_small", "float32", 4, 2, acc.JAXMM))
    found = acc.measure(config, dataset, "float32", 2, 0.01, jax.devices()[:1])
    assert abs(found["examples_per_second"] * found["milliseconds_per_step"] / (2 * 16 * 1e3) - 1) < 0.01
    # At least the products of one layer and the gradients of its kernel, for 16 examples.
    assert found["gigaflop_per_step"] * 1e9 > 2 * 2 * 16 * 8 * (5 + 3)
    assert found["steps_per_call"] == 32 and found["share_of_peak"] is None


def test_pytorch_is_measured_by_a_command(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""import json, os, sys
if "--help" in sys.argv: print("[workload ...]")
elif "samm_small" in sys.argv: sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried")
elif "mla_cremad" in sys.argv: print("hello")
else: print(json.dumps({sys.argv[1]: 4.0, "peak_memory_mib": len(sys.argv)}))
""")
    command = f"{sys.executable} {script}"
    scripts = acc.find_torch(command)
    assert scripts[acc.GIVEN] == (command, list(acc.WORKLOADS))
    point = acc.Point("mla_small", "tf32", 4, 1, acc.EAGER)
    assert acc.run_torch(point, 1.0, command, 60) == {
        "milliseconds_per_step": 4.0, "examples_per_second": 64000.0, "peak_memory_mib": 11}
    failed = [acc.run_torch(point._replace(workload=name), 1.0, command, 60)["failed"]
              for name in ("samm_small", "mla_cremad")]
    assert failed[0] == "out of memory" and "printed no JSON with mla_cremad" in failed[1]
    for command in os.devnull, "python 'x":
        with pytest.raises(UserError, match="fails with --help"):
            acc.find_torch(command)


def test_scripts_of_both_libraries_have_the_same_workloads():
    tree = ast.parse(acc.TORCH_SCRIPT.read_text())
    workloads, = (ast.literal_eval(node.value) for node in tree.body
                  if isinstance(node, ast.Assign) and node.targets[0].id == "WORKLOADS")
    for name, (method, batch, classes, encoder, shapes) in workloads.items():
        own_method, own_batch, own_classes, modalities = bench.WORKLOADS[name]
        assert (method, batch, classes) == (own_method.name, own_batch, own_classes)
        assert shapes == [shape for _, shape in modalities.values()]
        assert {encoder} == {e.name if e.name == "mlp" else e.stem for e, _ in modalities.values()}


def test_a_machine_without_an_accelerator_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "in_new_process", lambda fn, *args, **kwargs: fn(*args))
    with pytest.raises(UserError, match=r"found cpu alone \(8 devices.*expected a GPU or TPU"):
        acc.accelerator([], str(tmp_path / "out"), 1.0, 0.0, "", False, "jaxmm bench")
    assert not list(tmp_path.iterdir())
