import json
import resource
import sys
import types
from contextlib import nullcontext

import pytest
from tensorboardX.proto import event_pb2

from jaxmm import files
from jaxmm.errors import UserError, WriteError
from jaxmm.train import writers


def record(step, **values):
    return {"kind": "train", "step": step, **values}


def test_records_after_the_restored_step_and_lines_cut_short_are_removed(tmp_path):
    lines = [json.dumps(record(s)) for s in (1, 2, 3)] + ['{"step": "two"}', '{"kind": "tra']
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\n" + "\n".join(lines).encode())
    with writers.open_writer(tmp_path, 2) as write:
        write(record(3, loss=0.5))
    found = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == [record(1), record(2), record(3, loss=0.5, seconds=found[-1]["seconds"])]


def test_lines_that_are_no_records_are_removed_and_counted(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    bad = ["[1]", "3", '{"step": "1", "kind": "train"}', '{"step": true, "kind": "train"}',
           '{"step": 1}', '{"step": 1, "kind": ["train"]}', '{"step": 1, "kind": "train", "loss": "x"}',
           '{"step": 1, "kind": "train", "loss": NaN}', '{"step": 1, "kind": "train", "loss": 1e999}',
           f'{{"step": {10**30}, "kind": "eval"}}', "[" * 10**5, ""]
    path.write_text("\n".join([json.dumps(record(1, loss=0.5)), *bad, json.dumps(record(2))]) + "\n")
    with writers.open_writer(tmp_path, 2):
        pass
    assert list(map(json.loads, path.read_text().splitlines())) == [record(1, loss=0.5), record(2)]
    assert "metrics.jsonl: 12 lines are not records and are removed, the first of them line 2" \
        in caplog.text
    caplog.clear()
    files.append(path, '{"kind": "tra')       # as a killed process leaves it
    with writers.open_writer(tmp_path, 2):
        pass
    assert not caplog.records


def test_events_are_not_written_behind_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="tensorboard is not this folder's own"):
        with writers.open_writer(tmp_path, 0, tensorboard=True):
            pass
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_that_is_right_is_left_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(record(1)) + "\n")
    before = path.stat()
    with writers.open_writer(tmp_path, 1):
        pass
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_record_that_cannot_be_written(policy, tmp_path, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with writers.open_writer(tmp_path, -1, tensorboard=True, on_error=policy) as write:
        write(record(1, loss=0.5))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(WriteError) if policy == "stop" else nullcontext():
                write(record(2, text="x" * 100_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        write(record(3))
    found = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r | {"seconds": 0} for r in found] == [record(1, loss=0.5, seconds=0), record(3, seconds=0)]
    events, = (tmp_path / "tensorboard").iterdir()
    scalars = read_events(events.read_bytes())
    assert scalars["loss"] == (1, 0.5) and set(scalars) == {"loss", "seconds"}
    assert ("metrics.jsonl could not be written (File too large); training continues" in caplog.text
            ) == (policy == "continue")


def test_a_full_disk_does_not_hold_up_tensorboard(tmp_path, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with writers.open_writer(tmp_path, -1, tensorboard=True, on_error="continue") as write:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            for step in range(1, 100):
                write(record(step, **{20 * "a": {"b": 0.5, "c": 0.5, "d": 0.5, "e": 0.5}}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    events, = (tmp_path / "tensorboard").iterdir()
    assert all(1 < step < 99 for step, _ in read_events(events.read_bytes()).values())
    assert "tensorboard/events.out.tfevents" in caplog.text


def test_tensorboard_gets_every_number_by_its_path(tmp_path):
    with writers.open_writer(tmp_path, 0, tensorboard=True) as write:
        write({"kind": "eval", "step": 7, "scores": {"fused": {"accuracy": 0.25}}, "loss": 1.5})
    path, = (tmp_path / "tensorboard").iterdir()
    scalars = read_events(path.read_bytes())
    assert scalars == {"scores/fused/accuracy": (7, 0.25), "loss": (7, 1.5)}


def test_the_clock_goes_on_where_a_run_was_stopped(tmp_path, monkeypatch):
    """From the last record that is kept: what came after it is made again."""
    now = [100.0]
    monkeypatch.setattr(writers, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    for start, last, steps in ((100.0, -1, (1, 2, 3)), (5000.0, 2, (3, 4))):
        now[0] = start
        with writers.open_writer(tmp_path, last) as write:
            for step in steps:
                now[0] += 10
                write(record(step))
                write({"kind": "eval", "step": step})
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert [(r["step"], r["seconds"]) for r in lines if r["kind"] == "train"] == [
        (1, 10.0), (2, 20.0), (3, 30.0), (4, 40.0)]


class Wandb(types.ModuleType):
    """What is used of the package, which needs a network."""
    Error = type("Error", (Exception,), {})

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.broken = [], False

    def init(self, **options):
        if self.broken:
            raise self.Error("no key")
        self.runs.append({"options": options, "log": [], "finished": False})
        return types.SimpleNamespace(
            log=lambda values, step, run=self.runs[-1]: run["log"].append((step, values)),
            finish=lambda run=self.runs[-1]: run.update(finished=True))


def test_wandb_gets_every_number_and_a_resumed_run_keeps_its_id(tmp_path, monkeypatch):
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for step in (1, 2):
        with writers.open_writer(tmp_path, step - 1, wandb={"train": {"seed": 3}}) as write:
            write({"kind": "eval", "step": step, "scores": {"fused": {"accuracy": 0.25}}})
    first, second = wandb.runs
    assert first["log"] == [(1, {"scores/fused/accuracy": 0.25})] and second["log"][0][0] == 2
    assert first["options"] == second["options"] and first["options"]["resume"] == "allow"
    assert first["options"]["config"] == {"train": {"seed": 3}} and first["options"]["dir"] == str(tmp_path)
    assert first["options"]["id"] == (tmp_path / "wandb/id").read_text().strip() != ""
    assert first["finished"] and second["finished"]
    with writers.open_writer(tmp_path / "wandb", -1, wandb={}):     # another folder
        pass
    assert wandb.runs[2]["options"]["id"] != first["options"]["id"]
    wandb.broken = True
    with pytest.raises(UserError, match="train.wandb: no key; log in by `wandb login`, or set WANDB_MODE"):
        with writers.open_writer(tmp_path, 2, wandb={}):
            pass


def test_wandb_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"train.wandb needs wandb: pip install 'jaxmm\[wandb\]'"):
        writers.check_installed(False, True)
    writers.check_installed(True, False)


def read_events(content):
    """Scalars of an event file, whose records are length, checksum, event, checksum."""
    scalars = {}
    while content:
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12:12 + length])
        scalars |= {v.tag: (event.step, v.simple_value) for v in event.summary.value}
        content = content[16 + length:]
    return scalars


def test_evaluations_are_those_of_the_history(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [record(1), {"kind": "eval", "step": 1, "x": float("nan")}, record(2)]
    path.write_text("".join(json.dumps(r) + "\n" for r in lines))
    before = path.stat()
    writers.set_evaluations(tmp_path, [{"step": 1, "x": float("nan")}])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    writers.set_evaluations(tmp_path, [{"step": 1, "x": 2.0}, {"step": 2, "x": 3.0}])
    assert [json.loads(x) for x in path.read_text().splitlines()] == [
        record(1), {"kind": "eval", "step": 1, "x": 2.0}, record(2), {"kind": "eval", "step": 2, "x": 3.0}]
    writers.set_evaluations(tmp_path / "empty", [])
