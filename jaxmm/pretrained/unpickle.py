"""What stands in a pickle, read without executing anything of it.

`pickletools.genops` lists the instructions of a pickle. Here they build dictionaries, lists, tuples, numbers
and text; what a pickle would have had called becomes an `Object`: the name of the function or class, what it
would have been given, and the state it would have got. Nothing is imported and nothing is called, whatever
its name. `array_of` makes an array of an object that describes one, of NumPy or PyTorch.
"""
import collections
import dataclasses
import math
import pickletools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

MOST_STEPS = 2**22          # instructions of a pickle: released weights have some ten thousand
MOST_AXES = 32
LONGEST_NAME = 1000
LARGEST = 2**48             # of a position or a size: no file has more
STORED = "storage"          # the name of objects whose numbers are outside of the pickle; no class has it

LITERALS = {"BINBYTES", "BINBYTES8", "BINFLOAT", "BININT", "BININT1", "BININT2", "BINSTRING", "BINUNICODE",
            "BINUNICODE8", "BYTEARRAY8", "FLOAT", "INT", "LONG", "LONG1", "LONG4", "SHORT_BINBYTES",
            "SHORT_BINSTRING", "SHORT_BINUNICODE", "STRING", "UNICODE"}
MADE: dict[str, Callable[[], Any]] = {      # sets as lists, so that nothing is hashed
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}
SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
OF_MARK: dict[str, Callable[[list], Any]] = {
    "TUPLE": tuple, "LIST": list, "FROZENSET": list, "DICT": lambda items: _put({}, items)}

TORCH_TYPES = {f"torch.{name}Storage": np.dtype(code) for name, code in {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": ml_dtypes.bfloat16, "Long": "<i8",
    "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?"}.items()}
NUMPY_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")   # the latter until torch 0.3
PARAMETERS = ("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter")
BYTES = ("builtins.bytes", "__builtin__.bytes")
ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy.core.numeric._frombuffer",
          "numpy.core.multiarray.scalar")


class Global(str):
    """MODULE.NAME of a class or function that a pickle refers to."""


@dataclasses.dataclass(eq=False, slots=True)
class Object:
    """Stands for the result of a call of `name`, which was not made."""
    name: str
    args: Sequence[Any] = ()
    state: Any = None
    items: dict[Any, Any] = dataclasses.field(default_factory=dict)


class Pickle(NamedTuple):
    """What a pickle holds."""
    value: Any
    calls: Mapping[str, int]        # how many objects it would have made, by name
    stored: Sequence[Object]        # those called STORED; `args` are what the pickle says of them


def read(stream: BinaryIO) -> Pickle:
    """The pickle that begins where the stream is; afterwards the stream is behind it.

    Time and memory are bounded by the size of the file.

    Raises:
      ValueError: it has instructions that no file of weights has. Damage shows in other exceptions, too.
    """
    stack: list = []
    below: list[list] = []      # the stacks under each mark
    memo: dict[int, Any] = {}
    calls: collections.Counter[str] = collections.Counter()
    stored = []

    def since_mark():
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    def call(function, args):
        name = function if isinstance(function, Global) else "a class of the file's own"
        calls[name] += 1
        return Object(name, args if isinstance(args, tuple) else (args,))

    for step, (op, arg, _) in enumerate(pickletools.genops(stream)):
        name = op.name
        if step == MOST_STEPS:
            raise ValueError(f"a pickle of more than {MOST_STEPS} instructions")
        if name in LITERALS:
            stack.append(arg)
        elif name in MADE:
            stack.append(MADE[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[arg])
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in SHORT_TUPLES:
            stack.append(tuple([stack.pop() for _ in range(SHORT_TUPLES[name])][::-1]))
        elif name in OF_MARK:
            items = since_mark()
            stack.append(OF_MARK[name](items))
        elif name in ("SETITEM", "SETITEMS"):
            items = since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            _put(stack[-1], items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else since_mark()
            if not isinstance(stack[-1], Object):       # the items of other lists are not looked at
                stack[-1].extend(items)
        elif name == "GLOBAL":
            stack.append(_global(*arg.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_global(module, attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            args, function = stack.pop(), stack.pop()
            stack.append(call(function, args))
        elif name == "NEWOBJ_EX":
            named, args, function = stack.pop(), stack.pop(), stack.pop()
            stack.append(call(function, (args, named)))
        elif name in ("OBJ", "INST"):
            items = since_mark()
            function, *args = items if name == "OBJ" else [_global(*arg.split(" ", 1)), *items]
            stack.append(call(function, tuple(args)))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], Object):
                raise ValueError(f"a state of {kind(stack[-1])}")
            stack[-1].state = state
        elif name in ("BINPERSID", "PERSID"):
            about = stack.pop() if name == "BINPERSID" else arg
            stored.append(Object(STORED, about if isinstance(about, tuple) else (about,)))
            stack.append(stored[-1])
        elif name == "POP" and stack:
            stack.pop()
        elif name in ("POP", "POP_MARK"):       # POP takes the mark where nothing stands above it
            since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"the instruction {name}")
    return Pickle(stack.pop(), calls, stored)


def _global(module: Any, name: Any) -> Global:
    """The name of a class or function; NumPy 2 has moved what arrays are made by."""
    if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > LONGEST_NAME:
        raise ValueError("a class or function whose name is no name")
    return Global(f"{module}.{name}".replace("numpy._core.", "numpy.core."))


def _put(target: Any, items: Sequence) -> Any:
    """Adds [key, value, key, value, ...] to a dictionary, or to an object that would be one.

    Keys other than text and numbers are left out: they name nothing, and hashing may be made slow.
    """
    entries = target.items if isinstance(target, Object) else target
    if not isinstance(entries, dict) or len(items) % 2:
        raise ValueError(f"entries of {kind(target)}")
    entries.update((key, value) for key, value in zip(items[::2], items[1::2])
                   if isinstance(key, (str, bytes)) or isinstance(key, int) and abs(key) < LARGEST)
    return target


def kind(value: Any) -> str:
    """The class of a value, in words."""
    return value.name if isinstance(value, Object) else type(value).__name__


def entries_of(value: Any) -> Mapping[Any, Any]:
    """What has a name in a dictionary or in an object: its items, its state, or the dictionary it is made of."""
    if isinstance(value, Object):
        made_of = value.args[0] if len(value.args) == 1 else None
        value = next((x for x in (value.items, value.state, made_of) if isinstance(x, dict) and x), {})
    return value if isinstance(value, dict) else {}


class Storage(NamedTuple):
    """Numbers of PyTorch that are outside of the pickle."""
    key: str            # the name they go by
    dtype: np.dtype
    count: int


def storage_of(stored: Object) -> Storage:
    """What a pickle says of a storage; ValueError if that is not complete, or of an unknown type."""
    if stored.name != STORED or len(stored.args) not in (5, 6) or stored.args[5:] not in ((), (None,)):
        raise ValueError(f"a tensor on {stored.name} of another form")
    _, kind, key, _, count = stored.args[:5]
    if not isinstance(kind, Global) or kind not in TORCH_TYPES or not isinstance(key, str):
        raise ValueError(f"a storage of the type {str(kind)[:60]}")
    return Storage(key, TORCH_TYPES[kind], _whole(count))


def bare(value: Any) -> Any:
    """What a parameter of PyTorch wraps; other values as they are."""
    while isinstance(value, Object) and value.name in PARAMETERS and value.args:
        value = value.args[0]
    return value


def array_of(value: Any, numbers: Callable[[Storage], Any]) -> np.ndarray | None:
    """The array that a value describes, a view of its bytes; None if it describes none.

    Args:
      value: of a pickle.
      numbers: the bytes of a storage, count * itemsize of them.

    Raises:
      ValueError: the bytes are not those of its shape and type, or a tensor reaches beyond them, or holds
        more numbers than they are, or it is of Python objects.
    """
    if isinstance(value, Object) and value.name in TENSORS:
        return _tensor(numbers, *value.args[:4])
    if not isinstance(value, Object) or value.name not in ARRAYS:
        return None
    order: Any
    if value.name.endswith("_reconstruct"):
        _, shape, dtype, fortran, content = value.state
        order = "F" if fortran else "C"
    elif value.name.endswith("_frombuffer"):
        content, dtype, shape, order = value.args
    else:
        (dtype, content), shape, order = value.args, (), "C"
    shape, dtype = _shape(shape), _dtype(dtype)
    return np.ndarray(shape, dtype, _bytes(content, math.prod(shape) * dtype.itemsize), order=order)


def _tensor(numbers, stored, offset, shape, strides) -> np.ndarray:
    storage, shape, strides = storage_of(stored), _shape(shape), _shape(strides)
    size, item = math.prod(shape), storage.dtype.itemsize
    last = _whole(offset) + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if not size:
        return np.zeros(shape, storage.dtype)
    if last >= storage.count or size > storage.count:
        raise ValueError(f"a tensor of shape {list(shape)}, strides {list(strides)} and offset {offset} in a "
                         f"storage of {storage.count} numbers")
    content = numbers(storage)
    if memoryview(content).nbytes != storage.count * item:
        raise ValueError(f"{memoryview(content).nbytes} bytes for {storage.count} numbers of {storage.dtype}")
    return np.ndarray(shape, storage.dtype, content, offset * item,
                      [step * item if n > 1 else item for n, step in zip(shape, strides)])


def _dtype(value: Any) -> np.dtype:
    """The type that a call of `numpy.dtype` would make, and the byte order that its state would set."""
    code, order = value.args[0], (value.state or (0, "="))[1]
    if value.name != "numpy.dtype" or code not in NUMPY_TYPES or order not in ("<", ">", "=", "|"):
        raise ValueError(f"an array of the type {code!r:.20}")
    return np.dtype(code).newbyteorder(order)


def _bytes(value: Any, size: int) -> bytes | bytearray:
    """The bytes of an array; before protocol 3 they are text, to be encoded."""
    if isinstance(value, Object) and value.name == "_codecs.encode" and value.args[1:] == ("latin1",):
        value = value.args[0]
    elif isinstance(value, Object) and value.name in BYTES and not value.args:
        value = b""
    if not isinstance(value, (bytes, bytearray, str)):
        raise ValueError(f"{kind(value)} in place of the bytes of an array")
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes for an array of {size}")
    return value.encode("latin1") if isinstance(value, str) else value


def _shape(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > MOST_AXES:
        raise ValueError(f"a shape that is {kind(values)}")
    shape = tuple(map(_whole, values))
    if math.prod(shape) >= LARGEST:
        raise ValueError(f"an array of shape {list(shape)}")
    return shape


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(f"{value!r:.40} in place of a size or position" if type(value) is int else
                         f"{kind(value)} in place of a size or position")
    return value
