r"""Weights in files of PyTorch and flax: those in torch_made/ were written by PyTorch 2.13.0, so:

    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Linear(2, 2, bias=False)))
    for i, x in enumerate(net.state_dict().values()):
        x.copy_(torch.arange(x.numel()).reshape(x.shape) / 8 + i)
    torch.save(net.eval(), "module.pt")
    torch.jit.script(net).save("script.pt")
    optimizer = torch.optim.Adam(net.parameters())
    net.train()(torch.ones(4, 3)).sum().backward()
    saved = {f"module.{name}": x.clone() for name, x in net.state_dict().items()}
    saved["module.turned"] = torch.arange(12.).reshape(3, 4).T[1:]
    saved["module.tied"] = saved["module.0.weight"]
    saved["module.half"], saved["module.brain"] = (
        saved["module.0.weight"].to(t) for t in (torch.float16, torch.bfloat16))
    optimizer.step()
    checkpoint = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "model": saved,
                  "optimizer": optimizer.state_dict()}
    torch.save(checkpoint, "archive.pth")
    torch.save(checkpoint, "legacy.pth", _use_new_zipfile_serialization=False)
"""
import argparse
import os
import pathlib
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest

from jaxmm.errors import UserError
from jaxmm.pretrained import foreign
from jaxmm.pretrained.unpickle import Object

MADE = pathlib.Path(__file__).with_name("torch_made")
SHAPES = {"0.weight": (2, 3), "0.bias": (2,), "1.weight": (2,), "1.bias": (2,), "1.running_mean": (2,),
          "1.running_var": (2,), "1.num_batches_tracked": (), "2.0.weight": (2, 2)}
NET = {name: (np.arange(np.prod(shape, dtype=int)).reshape(shape) / 8 + i).astype("f4")
       for i, (name, shape) in enumerate(SHAPES.items())}
NET["1.num_batches_tracked"] = np.array(6)


def check(found, expected):
    assert list(found) == list(expected)
    for name, x in expected.items():
        assert (found[name].dtype.name, found[name].shape) == (x.dtype.name, x.shape), name
        np.testing.assert_array_equal(found[name].astype(x.dtype), x)


@pytest.mark.parametrize("name, form", [("archive.pth", "file of torch.save"),
                                        ("legacy.pth", "file of torch.save before 1.6")])
def test_a_checkpoint_of_torch(name, form):
    found = foreign.read(MADE / name)
    assert (found.form, found.where) == (form, "model")
    momentum = 0.1          # of the statistics, of which one batch was seen
    rows = NET["0.weight"].sum(1) + NET["0.bias"]
    net = NET | {"1.running_mean": (1 - momentum) * NET["1.running_mean"] + np.float32(momentum) * rows,
                 "1.running_var": np.float32(1 - momentum) * NET["1.running_var"], "1.num_batches_tracked": np.array(7)}
    expected = {f"module.{n}": x for n, x in net.items()} | {
        "module.turned": np.arange(12, dtype="f4").reshape(3, 4).T[1:], "module.tied": NET["0.weight"],
        "module.half": NET["0.weight"].astype("f2")}
    brain = found.weights.pop("module.brain")
    assert brain.dtype.name == "bfloat16"
    np.testing.assert_array_equal(brain.astype("f4"), NET["0.weight"])
    for statistic in ("module.1.running_mean", "module.1.running_var"):     # torch rounds in its own way
        np.testing.assert_allclose(found.weights.pop(statistic), expected.pop(statistic), rtol=1e-6)
    check(found.weights, expected)
    # Adam has a step and two moments of each of five parameters.
    assert found.arrays_left == 15 and found.objects_left == {"argparse.Namespace": 1}


@pytest.mark.parametrize("name, form", [("script.pt", "TorchScript archive"), ("module.pt", "file of torch.save")])
def test_names_are_those_of_nested_modules(name, form):
    found = foreign.read(MADE / name)
    assert (found.form, found.where, found.arrays_left) == (form, "", 0)
    check(dict(sorted(found.weights.items())), dict(sorted(NET.items())))


class TrainState:
    """As flax pickles one: the class by its name, and a dictionary as its state."""


def write_flax(path, protocol=4, **changes):
    state = TrainState()
    params = {"encoder": {"Block_0": {"kernel": np.arange(6.0, dtype="f4").reshape(2, 3)}}, "cls_token": np.ones((1, 1, 2))}
    state.step, state.apply_fn, state.opt_state = np.int32(7), os.mkdir, [np.zeros(2), {"mu": params}, np.ones(2)]
    state.params = {"params": params}
    content = {"step": 7, "epoch": 1, "variant": {"lr": 0.1}, "state": state} | changes
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_of_flax(protocol, tmp_path):
    found = foreign.read(write_flax(tmp_path / "m3ae.pkl", protocol))
    assert (found.form, found.where) == ("pickle", "state.params.params")
    check(found.weights, {"encoder/Block_0/kernel": np.arange(6.0, dtype="f4").reshape(2, 3),
                          "cls_token": np.ones((1, 1, 2))})
    # The moments of the optimizer are the arrays of the parameters here, which are counted once.
    assert found.arrays_left == 3 and list(found.objects_left.values()) == [1]


def test_where_weights_are(tensor, archive, tmp_path):
    """At the top, or below a name; dictionaries beside them are no parts of a model."""
    a, b = (Object("torch._utils._rebuild_parameter", (tensor(), True, Object("collections.OrderedDict"))), tensor("1"))
    ordered = Object("collections.OrderedDict", items={"x.a": a, "x.b": b, "epoch": 3}, state={"_metadata": {}})
    for value, where, names in [
            (ordered, "", ["x.a", "x.b"]), ({"state_dict": ordered, "n": b}, "state_dict", ["x.a", "x.b"]),
            ({"model": a, "x": b}, "", ["model", "x"]), ({"x": a, "ema": {"x": b}, "optimizer": {"y": b}}, "", ["x"]),
            ({"state_dict": {"model": a}}, "state_dict", ["model"])]:
        found = foreign.read(archive(tmp_path / "x.pth", value, {"0": bytes(16), "1": bytes(16)}))
        assert (found.where, list(found.weights)) == (where, names)


def test_numbers_are_those_of_their_storage(tensor, archive, legacy, tmp_path):
    """Also before torch 0.4, whose parameters had another form, and tensors fewer arguments."""
    first, second = np.arange(4, dtype="<f4"), np.arange(6, dtype="<i8")
    old = Object("torch.nn.parameter.Parameter", (Object("torch._utils._rebuild_tensor", tensor().args[:4]),),
                 (True, False, Object("collections.OrderedDict")))
    value = {"a": old, "b": tensor("k", 6, (3, 2), (1, 3), kind="torch.LongStorage")}
    storages = {"k": second.tobytes(), "0": first.tobytes()}
    expected = {"a": first.reshape(2, 2), "b": second.reshape(2, 3).T}
    check(foreign.read(archive(tmp_path / "a.pth", value, storages)).weights, expected)
    check(foreign.read(legacy(tmp_path / "b.pth", value, {
        "k": (6, storages["k"]), "0": (4, storages["0"])})).weights, expected)


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_bomb_leaves_no_trace_wherever_it_is(tensor, archive, legacy, tmp_path):
    trace = tmp_path / "executed"
    bomb = pickle.dumps(Bomb(trace), 2)
    pickle.loads(bomb)
    trace.rmdir()
    armed = Object("posix.mkdir", (str(trace),))
    for value in ({"a": tensor(), "b": armed}, Object("builtins.dict", (), {"a": tensor(), "b": armed}),
                  {"a": tensor(), "b": Object("x.Y", (), armed)}):
        for path in (archive(tmp_path / "a.pth", value, {"0": bytes(16)}, {"constants.pkl": bomb}),
                     legacy(tmp_path / "b.pth", value, {"0": (4, bytes(16))})):
            assert foreign.read(path).objects_left["posix.mkdir"] == 1
    found = foreign.read(write_flax(tmp_path / "c.pkl", variant=Bomb(trace)))
    assert found.objects_left["posix.mkdir"] == 1
    refused = [archive(tmp_path / "d.pth", bomb, {}), write_flax(tmp_path / "e.pkl", state=Bomb(trace)),
               archive(tmp_path / "f.pth", {"a": tensor(kind="posix.mkdir")}, {"0": bytes(16)}),
               archive(tmp_path / "g.pth", {"a": tensor(key=armed)}, {"0": bytes(16)})]
    refused += [legacy(tmp_path / f"{i}.pth", {"a": tensor()}, {"0": (4, bytes(16))}, (
        foreign.MAGIC, *[bomb if i == j else x for j, x in enumerate((foreign.PROTOCOL, {"little_endian": True}))]))
        for i in range(2)]
    for path in refused:
        with pytest.raises(UserError):
            foreign.read(path)
    assert not trace.exists()


@pytest.mark.parametrize("value, storages, extra, said", [
    ({}, {"0": bytes(15)}, {}, "15 bytes for 4 numbers"), ({}, {"0": bytes(17)}, {}, "17 bytes for 4 numbers"),
    ({}, {}, {}, "data/0"), ({}, {"0": bytes(16)}, {"byteorder": b"big"}, "big-endian"),
    ({}, {"0": bytes(16)}, {"x/data.pkl": b""}, ""), (b"", {}, {}, "pickle exhausted"),
    ({"offset": 1}, {"0": bytes(16)}, {}, "offset 1 in a storage of 4 numbers"),
    ({"shape": (2**20, 2**20), "strides": (0, 0)}, {"0": bytes(16)}, {}, "in a storage of 4 numbers"),
    ({"key": "../../x"}, {"0": bytes(16)}, {}, "data/../../x")])
def test_archives_that_are_none(tensor, archive, value, storages, extra, said, tmp_path):
    value = {"a": tensor(**value)} if isinstance(value, dict) else value
    path = archive(tmp_path / "x.pth", value, storages, extra)
    if "x/data.pkl" in extra:
        assert list(foreign.read(path).weights) == ["a"]
        return
    with pytest.raises(UserError, match="x.pth is damaged") as caught:
        foreign.read(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_would_grow_is_refused(tensor, archive, tmp_path):
    start = time.process_time()
    nested = {"a": tensor()}
    for _ in range(40):             # 2^40 names, each of its own
        nested = {"x": Object("m.M", (), nested), "y": Object("m.M", (), nested)}
    content = b"\x80\x02}q\x00" + b"".join(
        b"}q\x01(X\x01\x00\x00\x00xcm\nM\n)Rh\x00bX\x01\x00\x00\x00ycm\nM\n)Rh\x00buq\x00" for _ in range(40)) + b"."
    many = {str(i): tensor(count=10**4, shape=(10**4,), strides=(1,)) for i in range(50)}
    itself = b"\x80\x02cm\nM\n)Rq\x00}X\x01\x00\x00\x00xh\x00sb."
    for value, storages, said in [(content, {}, "more than 65536 names"), (itself, {}, "a name of"),
                                  (many, {"0": bytes(4 * 10**4)}, "bytes of arrays in a file of")]:
        with pytest.raises(UserError, match=said):
            foreign.read(archive(tmp_path / "x.pth", value, storages))
    packed = archive(tmp_path / "packed.pth", {"a": tensor(count=2**20, shape=(2**20,), strides=(1,))},
                     {"0": bytes(2**22)}, compression=zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 10**5
    with pytest.raises(UserError, match="is compressed"):
        foreign.read(packed)
    assert time.process_time() - start < 30


@pytest.mark.parametrize("change, said", [
    ({"storages": {"0": (5, bytes(20))}}, "5 numbers behind the pickles"), ({"storages": {}}, "'0'"),
    ({"storages": {"0": (4, bytes(12))}}, "4 numbers behind the pickles"),
    ({"storages": {"0": (-4, bytes(16))}}, "numbers behind the pickles"),
    ({"storages": {"0": (4, bytes(16)), "1": (4, bytes(16))}}, "'1'"),
    ({"head": (foreign.MAGIC, 1002, {"little_endian": True})}, "protocol 1002"),
    ({"head": (foreign.MAGIC, 1001, {"little_endian": False})}, "big-endian")])
def test_files_of_old_torch_that_are_none(tensor, legacy, change, said, tmp_path):
    with pytest.raises(UserError) as caught:
        foreign.read(legacy(tmp_path / "x.pth", {"a": tensor()}, **{"storages": {"0": (4, bytes(16))}} | change))
    assert said in str(caught.value)


@pytest.mark.parametrize("content, said", [
    (b"", "is empty"), (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"<!DOCTYPE html>", "of another kind"),
    (b"PK\3\4", "zip"), (b"\x80\x02.", "of another kind"), (pickle.dumps([1, 2]), "but list"),
    (pickle.dumps({"epoch": 1, "args": argparse.Namespace()}), "but epoch, args"), (b"\x00" * 1000, "of another kind"),
    (struct.pack("<Q", 20) + b'{"__metadata__":{}}  ', "of another kind")])
def test_other_files_end_in_one_line(content, said, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        foreign.read(path)
    assert said in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["archive.pth", "legacy.pth", "script.pt", "flax.pkl"])
def test_damage_ends_in_one_line(name, tmp_path):
    """Cut short anywhere, or with a bit flipped anywhere: an error, or arrays, and nothing else."""
    content = write_flax(tmp_path / name).read_bytes() if name == "flax.pkl" else (MADE / name).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "x"
    damaged = [content[:n] for n in rng.integers(len(content), size=40)]
    for place, bit in zip(rng.integers(len(content), size=150), rng.integers(8, size=150)):
        damaged.append(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1:])
    errors = 0
    for x in damaged:
        path.write_bytes(x)
        try:
            found = foreign.read(path)
        except UserError as error:
            assert "\n" not in str(error)
            errors += 1
        else:
            assert sum(array.nbytes for array in found.weights.values()) <= foreign.MOST_SHARED * len(content)
    assert errors >= 38     # all that are cut short but of the last bytes
