import json

from tensorboardX.proto import event_pb2

from jaxmm.train import writers


def record(step, **values):
    return {"kind": "train", "step": step, **values}


def test_records_after_the_restored_step_and_lines_cut_short_are_removed(tmp_path):
    lines = [json.dumps(record(s)) for s in (1, 2, 3)] + ['{"kind": "tra']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with writers.open_writer(tmp_path, 2, tensorboard=False) as write:
        write(record(3, loss=0.5))
    found = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == [record(1), record(2), record(3, loss=0.5)]


def test_tensorboard_gets_every_number_by_its_path(tmp_path):
    with writers.open_writer(tmp_path, 0, tensorboard=True) as write:
        write({"kind": "eval", "step": 7, "scores": {"fused": {"accuracy": 0.25}}, "loss": 1.5})
    path, = (tmp_path / "tensorboard").iterdir()
    scalars = read_events(path.read_bytes())
    assert scalars == {"scores/fused/accuracy": (7, 0.25), "loss": (7, 1.5)}


def read_events(content):
    """Scalars of an event file, whose records are length, checksum, event, checksum."""
    scalars = {}
    while content:
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12:12 + length])
        scalars |= {v.tag: (event.step, v.simple_value) for v in event.summary.value}
        content = content[16 + length:]
    return scalars
