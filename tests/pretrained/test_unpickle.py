"""Pickles are read, by all their protocols, and nothing in them is executed."""
import argparse
import collections
import io
import os
import pickle
import struct
import time

import numpy as np
import pytest

from jaxmm.pretrained import unpickle
from jaxmm.pretrained.unpickle import STORED, Global, Object, array_of, entries_of

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
# By protocol 0 and 1 of classes without a state of their own, and then by all others.
ARRAYS = {"floats": np.arange(12, dtype="f4").reshape(3, 4), "turned": np.arange(12.0).reshape(3, 4).T,
          "swapped": np.arange(5, dtype=">i2"), "empty": np.zeros((0, 3), "f2"), "scalar": np.float32(2.5),
          "point": np.array(7), "flags": np.array([True, False]), "bytes": np.arange(250, 256, dtype="u1")}


def read(content):
    return unpickle.read(io.BytesIO(content))


def nowhere(storage):
    raise AssertionError(f"{storage} is asked for")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_there_is_read_by_all_protocols(protocol):
    values = {"n": None, "yes": True, "whole": [0, -1, 255, 70000, 2**40, -2**70], "real": -0.1,
              "text": "ä\n" * 200, "raw": b"\x00\xff", "tuples": ((), (1,), (1, 2, 3, 4)), 3: {"a": [{}]}}
    found = read(pickle.dumps(values | {"arrays": ARRAYS}, protocol)).value
    raw = found.pop("raw")
    assert (raw if protocol >= 3 else raw.args[0].encode("latin1")) == values.pop("raw")
    arrays = {name: array_of(x, nowhere) for name, x in found.pop("arrays").items()}
    assert found == values
    assert list(arrays) == list(ARRAYS)
    for name, x in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (x.dtype, x.shape), name
        np.testing.assert_array_equal(arrays[name], x)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_are_their_names_and_states(protocol):
    shared = argparse.Namespace(rate=0.5)
    value = collections.OrderedDict(first=shared, second=shared, function=os.mkdir, kind=dict)
    found = read(pickle.dumps(value, protocol))
    entries = entries_of(found.value)
    assert list(entries) == list(value) and entries["first"] is entries["second"]
    assert entries_of(entries["first"]) == {"rate": 0.5}
    assert entries["function"] == "posix.mkdir" and isinstance(entries["function"], Global)
    assert found.calls["collections.OrderedDict"] == 1 and sum(found.calls.values()) == 2


def test_one_pickle_after_the_other():
    stream = io.BytesIO(pickle.dumps(1) + pickle.dumps("two") + b"rest")
    assert [unpickle.read(stream).value for _ in range(2)] == [1, "two"] and stream.read() == b"rest"


class Bomb:
    """Makes a folder when it is unpickled, in the way that is asked for."""

    def __init__(self, path, reduce):
        self.path, self.reduce = str(path), reduce

    def __reduce__(self):
        return self.reduce(self.path)


def text(x):
    return b"X" + struct.pack("<I", len(x)) + x.encode()


def test_a_bomb_leaves_no_trace(tmp_path):
    path = tmp_path / "executed"
    made = [pickle.dumps(Bomb(path, how), protocol) for protocol in PROTOCOLS for how in (
        lambda p: (os.mkdir, (p,)), lambda p: (eval, (f"__import__('os').mkdir({p!r})",)))]
    line = f"(S{str(path)!r}\nio\nmkdir\n."       # INST, by hand as what follows: what pickle itself hardly writes
    by_hand = [line.replace("io\nmkdir", "ios\nmkdir").encode(), b"(cos\nmkdir\n" + text(str(path)) + b"o.",
               b"\x80\x04" + text("os") + text("mkdir") + b"\x93" + text(str(path)) + b"\x85R.",
               b"cos\nmkdir\n" + text(str(path)) + b"\x85}\x92."]
    for content in made + by_hand[:3]:
        pickle.loads(content)
        path.rmdir()
    for content in made + by_hand:
        found = read(content)
        assert isinstance(found.value, Object) and sum(found.calls.values()) == 1
        assert array_of(found.value, nowhere) is None and not path.exists()


@pytest.mark.parametrize("content, said", [
    (b"", "pickle exhausted"), (b"\x80\x02", "pickle exhausted"), (b"}", "pickle exhausted"),
    (b"\xff.", "at position 0"), (b".", "pop from empty"), (b"\x85.", "pop from empty"), (b"t.", "pop from empty"),
    (b"h\x05.", "5"), (b"\x82\x01.", "EXT1"), (b"\x97.", "NEXT_BUFFER"), (b"}Nb.", "a state of dict"),
    (b"N(K\x01K\x02u.", "entries of NoneType"), (b"}(K\x01u.", "entries of dict"), (b"NNa.", "NoneType"),
    (b"X\xff\xff\xff\x7fab.", "bytes"), (b"\x8e" + b"\xff" * 8 + b"a.", "sys.maxsize"),
    (b"\x8e" + b"\xff" * 5 + b"\x00" * 3 + b"a.", "bytes"), (b"\x8b\xff\xff\xff\x7f\x01.", "long4"),
    (b"I" + b"9" * 5000 + b"\n.", "digits"), (b"K\x01K\x02\x93.", "no name"), (b"c" + b"a" * 2000 + b"\nb\n.", "no name"),
    (b"X\x02\x00\x00\x00\xff\xff.", "utf-8"), (b"cos", "newline"), (b"(cos\n", "newline")])
def test_damage_and_what_no_file_of_weights_has(content, said):
    with pytest.raises((ValueError, IndexError, KeyError, AttributeError), match=said):
        read(content)


def test_neither_depth_nor_sharing_takes_long():
    start = time.process_time()
    deep = read(b"(K\x01" + b"\x85" * 10**5 + b"t.").value
    assert len(deep) == 1
    del deep                    # freed without recursion
    doubled = read(b"}q\x00" + b"".join(b"}q\x01(K\x01h\x00K\x02h\x00uq\x00" for _ in range(1000)) + b".").value
    assert len(doubled) == 2
    modulus = 2**61 - 1         # of the hash of numbers: all of these would be the same one
    colliding = b"".join(b"\x8a\x0a" + (i * modulus).to_bytes(10, "little") + b"N" for i in range(1, 4000))
    assert read(b"}(" + colliding + b"u.").value == {}
    name = b"X\xe8\x03\x00\x00" + b"a" * 1000
    with pytest.raises(ValueError, match="no name"):
        read(name + b"q\x00" + b"h\x00h\x00\x93" * 10 + b".")
    assert time.process_time() - start < 60


def test_instructions_are_counted(monkeypatch):
    monkeypatch.setattr(unpickle, "MOST_STEPS", 100)
    assert read(b"N" * 99 + b".").value is None
    with pytest.raises(ValueError, match="more than 100 instructions"):
        read(b"N" * 100 + b".")


STORAGE = np.arange(24, dtype="<f4")


def strided(tensor, **changes):
    return array_of(tensor(**{"count": 24} | changes), lambda storage: STORAGE.tobytes())


@pytest.mark.parametrize("shape, strides, offset", [
    ((2, 3), (3, 1), 0), ((3, 2), (1, 3), 0), ((4,), (5,), 8), ((4,), (1,), 20), ((), (), 23), ((1, 3), (2**40, 1), 0),
    ((2, 2, 2), (12, 0, 1), 3), ((0, 5), (1, 1), 23), ((24,), (1,), 0)])
def test_tensors_are_views_of_their_storage(tensor, shape, strides, offset):
    index = offset + sum((np.arange(n).reshape(-1, *[1] * (len(shape) - i - 1)) * step
                          for i, (n, step) in enumerate(zip(shape, strides)) if n > 1), np.zeros(shape, int))
    found = strided(tensor, shape=shape, strides=strides, offset=offset)
    assert found.dtype == "<f4" and found.shape == shape
    np.testing.assert_array_equal(found, STORAGE[index])


@pytest.mark.parametrize("changes", [
    {"offset": 21}, {"offset": -1}, {"offset": 2**63}, {"offset": 1.5}, {"offset": True}, {"offset": None},
    {"strides": (-1, 1)}, {"strides": (22, 2)}, {"strides": (2**62, 1)}, {"strides": (1,)}, {"strides": 1},
    {"shape": (5, 5), "strides": (0, 0)}, {"shape": (2**31, 2**31), "strides": (0, 0)}, {"shape": (-2, -2)},
    {"shape": (3, -1)}, {"shape": (2**70,), "strides": (1,)}, {"shape": (1,) * 40, "strides": (1,) * 40},
    {"shape": (0, 2**50)}, {"count": 25}, {"count": 23}, {"count": -1}, {"count": 2**63}, {"key": 3},
    {"kind": "torch.QInt8Storage"}, {"kind": "os.system"}, {"kind": "torch.DoubleStorage"}, {"view": (("v", 1, 2),)}])
def test_tensors_that_reach_beyond_their_storage_are_refused(tensor, changes):
    with pytest.raises(ValueError):
        strided(tensor, **changes)


DTYPE = Object("numpy.dtype", ("f4", False, True), (3, "<", None, None, None, -1, -1, 0))


def described(**changes):
    parts = {"shape": (2, 2), "dtype": DTYPE, "fortran": False, "content": bytes(16)} | changes
    return Object("numpy.core.multiarray._reconstruct", (Global("numpy.ndarray"), (0,), b"b"), (1, *parts.values()))


@pytest.mark.parametrize("changes", [
    {"shape": (2, 3)}, {"shape": (2, -2)}, {"shape": (-2, -2)}, {"shape": (2**40, 2**40)}, {"shape": 4},
    {"shape": (2.0, 2)}, {"content": bytes(15)}, {"content": bytes(17)}, {"content": [1, 2, 3, 4]}, {"content": None},
    {"content": Object("_codecs.encode", ("\0" * 15, "latin1"))}, {"content": Object("os.system", ("true",))},
    {"content": Object("_codecs.encode", ("\0" * 16, "zip"))}, {"content": "\u0100" * 16},
    {"dtype": Object("numpy.dtype", ("O8", False, True), DTYPE.state)}, {"dtype": "f4"},
    {"dtype": Object("numpy.dtype", ("f4,O", False, True), DTYPE.state)},
    {"dtype": Object("numpy.dtype", ("f4", False, True), (3, "?"))}, {"dtype": Object("os.system", ("f4",))}])
def test_arrays_of_numpy_that_are_none_are_refused(changes):
    assert array_of(described(), nowhere).shape == (2, 2)
    with pytest.raises((ValueError, AttributeError)):
        array_of(described(**changes), nowhere)


def test_only_objects_that_stand_for_arrays_are_arrays(tensor):
    for value in (None, 3, "x", [], Global("numpy.ndarray"), Object("numpy.core.multiarray.array", ([1],)),
                  Object(STORED, ("storage", Global("torch.FloatStorage"), "0", "cpu", 4)), {"a": tensor()}):
        assert array_of(value, nowhere) is None
