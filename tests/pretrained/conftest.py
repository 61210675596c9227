"""Writers of pickles and of the files of PyTorch, by hand: what no honest program writes, too."""
import struct
import zipfile

import pytest

from jaxmm.pretrained.foreign import MAGIC, PROTOCOL
from jaxmm.pretrained.unpickle import STORED, Global, Object


def write_value(x) -> bytes:
    """The instructions that put a value on the stack."""
    if isinstance(x, Object):
        start = (write_value(x.args) + b"Q" if x.name == STORED else
                 write_value(Global(x.name)) + write_value(x.args) + b"R")
        items = b"(" + b"".join(map(write_value, [y for item in x.items.items() for y in item])) + b"u"
        return start + items * bool(x.items) + (b"" if x.state is None else write_value(x.state) + b"b")
    if isinstance(x, Global):
        return b"c" + "\n".join(x.rsplit(".", 1)).encode() + b"\n"
    if isinstance(x, (tuple, list)):
        return b"(" + b"".join(map(write_value, x)) + (b"t" if isinstance(x, tuple) else b"l")
    if isinstance(x, dict):
        return b"(" + b"".join(write_value(y) for item in x.items() for y in item) + b"d"
    if isinstance(x, bool) or x is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[x]
    if isinstance(x, int):
        content = x.to_bytes(x.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(content)]) + content
    content = x if isinstance(x, bytes) else x.encode()
    return (b"B" if isinstance(x, bytes) else b"X") + struct.pack("<I", len(content)) + content


def write_pickle(x) -> bytes:
    return b"\x80\x02" + write_value(x) + b"."


@pytest.fixture(scope="session")
def pickled():
    """pickled(value): a pickle of it, `Object`s as what they stand for."""
    return write_pickle


def make_tensor(key="0", count=4, shape=(2, 2), strides=(2, 1), offset=0, kind="torch.FloatStorage", view=()):
    stored = Object(STORED, ("storage", Global(kind), key, "cpu", count, *view))
    return Object("torch._utils._rebuild_tensor_v2", (stored, offset, shape, strides, False, Object(
        "collections.OrderedDict")))


@pytest.fixture(scope="session")
def tensor():
    """tensor(key, count, shape, strides, offset): of a storage of `count` numbers."""
    return make_tensor


@pytest.fixture(scope="session")
def archive():
    """archive(path, value, storages, extra): what torch.save writes, or with other members."""
    def write(path, value, storages, extra=None, compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(path, "w", compression) as file:
            file.writestr("a/data.pkl", value if isinstance(value, bytes) else write_pickle(value))
            for name, content in ({f"data/{key}": x for key, x in storages.items()} | (extra or {})).items():
                file.writestr(f"a/{name}", content)
        return path

    return write


@pytest.fixture(scope="session")
def legacy():
    """legacy(path, value, storages): what torch.save wrote before 1.6; storages (count, bytes) by key."""
    def write(path, value, storages, head=(MAGIC, PROTOCOL, {"little_endian": True})):
        pickles = [*head, value, list(storages)]
        path.write_bytes(b"".join(x if isinstance(x, bytes) else write_pickle(x) for x in pickles) + b"".join(
            struct.pack("<q", count) + content for count, content in storages.values()))
        return path

    return write
