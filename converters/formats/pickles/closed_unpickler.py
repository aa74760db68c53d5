"""A closed unpickler: reads any pickle as plain data and runs nothing of it.

No name in a pickle is ever imported. What a checkpoint needs (dtypes, sizes, tensors, DCP's metadata records) becomes
plain values; every other class becomes
an `Inert` record that keeps its arguments and attributes, so `args` of any Megatron version can be read without that
Megatron.

Imports nothing but the standard library: the sandbox's child process loads this file by its path. Memory and time are
bounded by the child's limits, not here.
"""

from __future__ import annotations

import gc
import io
import pickle
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:  # the child starts without typing: importing it takes longer than reading a small checkpoint
    from collections.abc import Callable, Iterable
    from typing import Any, ClassVar


class Refused(Exception):
    """The pickle holds what no checkpoint holds, or is damaged."""


class TensorRef(namedtuple("TensorRef", "key dtype numel offset shape stride")):
    """A tensor of a torch.save file, without its numbers. Offset, shape and stride in elements of `dtype`.

    `numel` is the whole storage's.
    """

    __slots__ = ()
    key: str
    dtype: str
    numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class StorageRef(namedtuple("StorageRef", "key dtype numel")):
    """The storage behind a TensorRef: member `data/<key>`. An untyped storage counts bytes, its dtype is "untyped"."""

    __slots__ = ()
    key: str
    dtype: str
    numel: int


class Inert:
    """An object of a class that is not imported.

    Each class name gets a subclass of its own, because pickles ask for classes.
    """

    __slots__ = ("arguments", "items", "state")
    class_name: ClassVar[str] = ""

    arguments: tuple[Any, ...]
    items: list[Any] | None
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """What REDUCE and NEWOBJ come to."""
        self = object.__new__(cls)
        self.arguments = (*args, kwargs) if kwargs else args
        self.state = None
        self.items = None
        return self

    # Defined, so that BUILD never reaches setattr: neither on an object nor, the function being unbound there, on a
    # class.
    def __setstate__(self, state: Any) -> None:
        self.state = state

    def extend(self, values: Iterable[Any]) -> None:
        """What APPENDS calls on a subclass of list."""
        self.items = [*(self.items or ()), *values]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items = self.items or []
        self.items.append((key, value))

    def attributes(self) -> dict[Any, Any]:
        """The attributes by name; what is not a dict of attributes stands under "state"."""
        state = self.state
        if (
            isinstance(state, tuple)
            and len(state) == 2
            and all(part is None or isinstance(part, dict) for part in state)
        ):
            return {**(state[0] or {}), **(state[1] or {})}  # (__dict__, __slots__)
        if state is None or isinstance(state, dict):
            return state or {}
        return {"state": state}


class Dict(dict["Any", "Any"]):
    """OrderedDict: a dict that may carry attributes (state_dict's `_metadata`), which nobody needs."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class Record:
    """A DCP metadata record. Hundreds of thousands of them.

    Slots, and the state's dict emptied at once because the unpickler's memo would keep it. DCP's records are pickled by
    their state alone: they have neither `__new__` nor `__init__`, and object's own takes no argument.
    """

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state = state[1]
        if not isinstance(state, dict):
            raise Refused(f"{type(self).__name__} holds no attributes")
        slots: tuple[str, ...] = type(self).__slots__
        for name in slots:
            setattr(self, name, state.get(name))


class ChunkStorageMetadata(Record):
    """offsets and sizes of one chunk."""

    __slots__ = ("offsets", "sizes")
    offsets: Any
    sizes: Any

    def __setstate__(self, state: Any) -> None:
        self.offsets = state["offsets"]
        self.sizes = state["sizes"]
        state.clear()


class MetadataIndex(Record):
    """The key of storage_data; `index` is a hint and may be absent. Hashed by identity.

    This file's readers never look one up.
    """

    __slots__ = ("fqn", "offset")
    fqn: Any
    offset: Any

    def __setstate__(self, state: Any) -> None:
        self.fqn = state["fqn"]
        self.offset = state.get("offset")
        state.clear()


class StorageInfo(Record):
    """Where an item lies: file, first byte, bytes."""

    __slots__ = ("length", "offset", "relative_path", "transform_descriptors")
    length: Any
    offset: Any
    relative_path: Any
    transform_descriptors: Any

    def __setstate__(self, state: Any) -> None:
        self.relative_path = state["relative_path"]
        self.offset = state["offset"]
        self.length = state["length"]
        self.transform_descriptors = state.get("transform_descriptors")
        state.clear()


class TensorProperties(Record):
    """Only the dtype is of use."""

    __slots__ = ("dtype",)
    dtype: Any

    def __setstate__(self, state: Any) -> None:
        self.dtype = state["dtype"] if isinstance(state, dict) else state[0]


class TensorStorageMetadata(Record):
    """properties, size and chunks of one tensor."""

    __slots__ = ("chunks", "properties", "size")
    chunks: Any
    properties: Any
    size: Any


class BytesStorageMetadata(Record):
    """An entry that is not a tensor."""

    __slots__ = ()


class Metadata(Record):
    """The whole file. `all_local_plans`, `mcore_data` and `planner_data` are left where they are."""

    __slots__ = ("state_dict_metadata", "storage_data")
    state_dict_metadata: Any
    storage_data: Any


class Call:
    """A known function of torch or Python, replaced by one of ours."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        """Calls ours."""
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise Refused("the state of a function is set, which has no place in a checkpoint")


def sizes(value: Any) -> tuple[int, ...]:
    """A tuple of non-negative ints, or Refused."""
    if not isinstance(value, tuple) or any(type(n) is not int or n < 0 for n in value):
        raise Refused("a shape is not made of integers")
    return value


def dtype_name(value: Any) -> str:
    """The name of a dtype without its prefix, also of dtypes newer than this file."""
    if isinstance(value, type) and issubclass(value, Inert):
        value = value.class_name.removeprefix("torch.")
    if not isinstance(value, str):
        raise Refused("a dtype that is none")
    return value


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> TensorRef:
    # rest: requires_grad, backward hooks, and for _rebuild_tensor_v3 the dtype, because its storage is untyped.
    if not isinstance(storage, StorageRef) or type(offset) is not int or offset < 0:
        raise Refused("a tensor without a storage")
    dtype, numel = storage.dtype, storage.numel
    if storage.dtype == "untyped" and len(rest) >= 3:
        dtype = dtype_name(rest[2])
        numel //= WIDTHS.get(dtype, 1)
    if len(sizes(shape)) != len(sizes(stride)):
        raise Refused("a tensor whose shape and stride differ in length")
    return TensorRef(storage.key, dtype, numel, offset, shape, stride)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _subclassed(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    # A tensor with Python attributes. Of real subclasses (quantised ones) only their own code knows the meaning: those
    # stay records.
    if (
        function is TENSOR
        and getattr(kind, "class_name", "") in ("torch.Tensor", "torch.nn.parameter.Parameter")
        and isinstance(arguments, tuple)
    ):
        return _tensor(*arguments)
    return _inert_class("torch._tensor._rebuild_from_type_v2")(function, kind, arguments)


def _encoded(text: Any, codec: Any = "latin1") -> bytes:
    # How protocol 2 writes bytes.
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise Refused("bytes in an odd encoding")
    return text.encode("latin-1")


def _member_of(owner: Any, name: Any = "") -> Any:
    # How protocols below 4 write nested classes and some enums. It only lengthens a name.
    if not (isinstance(owner, type) and issubclass(owner, Inert) and isinstance(name, str)):
        raise Refused("refers to builtins.getattr, which has no place in a checkpoint; nothing in it was run")
    return _inert_class(f"{owner.class_name}.{name}")


def _layout(name: Any = "") -> Any:
    return name


WIDTHS = {
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
}
"""Bytes per element of the dtypes without a storage class of their own: their storage is untyped and counts bytes."""

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "untyped",
}
"""torch's storage classes, by the dtype they hold."""

DTYPES = {*STORAGES.values(), *WIDTHS} - {"untyped"}


class StorageType(str):
    """A storage class: its dtype."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise Refused("the state of a class is set, which has no place in a checkpoint")


TENSOR, PARAMETER = Call(_tensor), Call(_parameter)
KNOWN: dict[str, Any] = {
    "torch._utils._rebuild_tensor": TENSOR,
    "torch._utils._rebuild_tensor_v2": TENSOR,
    "torch._utils._rebuild_tensor_v3": TENSOR,
    "torch._utils._rebuild_parameter": PARAMETER,
    "torch._utils._rebuild_parameter_with_state": PARAMETER,
    "torch._tensor._rebuild_from_type_v2": Call(_subclassed),
    "torch.serialization._get_layout": Call(_layout),
    "torch.Size": tuple,
    "collections.OrderedDict": Dict,
    "collections.defaultdict": Call(lambda *_: {}),
    "_codecs.encode": Call(_encoded),
    "builtins.getattr": Call(_member_of),
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.dict": Dict,
    "builtins.set": list,
    "builtins.frozenset": list,
    "builtins.bytes": Call(lambda *args: b"" if not args else _encoded(*args)),
    **{f"torch.{name}": StorageType(dtype) for name, dtype in STORAGES.items()},
    **{f"torch.storage.{name}": StorageType(dtype) for name, dtype in STORAGES.items()},
    **{f"torch.{dtype}": dtype for dtype in DTYPES},
}
"""What a checkpoint needs, by full name.

Each value is a type that cannot be changed, or has a `__setstate__` of its own.
"""

RECORDS: dict[str, type[Record]] = {
    "ChunkStorageMetadata": ChunkStorageMetadata,
    "MetadataIndex": MetadataIndex,
    "_StorageInfo": StorageInfo,
    "TensorProperties": TensorProperties,
    "TensorStorageMetadata": TensorStorageMetadata,
    "BytesStorageMetadata": BytesStorageMetadata,
    "Metadata": Metadata,
}
"""DCP's records by class name; their modules moved between torch versions."""

# Only for the message: nothing is run whatever the name. These are names that say what a file is up to.
_PROCESSES = (
    "posix",
    "nt",
    "os",
    "subprocess",
    "sys",
    "shutil",
    "socket",
    "ctypes",
    "_ctypes",
    "pty",
    "webbrowser",
    "commands",
    "popen2",
)
_LOADERS = (
    "importlib",
    "runpy",
    "pickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "pdb",
    "bdb",
    "timeit",
    "pip",
)
NO_PLACE = frozenset(_PROCESSES + _LOADERS)
_RUNNERS = (
    "eval",
    "exec",
    "execfile",
    "compile",
    "open",
    "file",
    "__import__",
    "input",
    "raw_input",
    "breakpoint",
    "apply",
)
_REACHERS = ("setattr", "delattr", "globals", "locals", "vars", "help", "exit", "quit")
NO_PLACE_BUILTINS = frozenset(_RUNNERS + _REACHERS)
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def _inert_class(class_name: str) -> type[Inert]:
    return type("Inert", (Inert,), {"__slots__": (), "class_name": class_name})


class ClosedUnpickler(pickle.Unpickler):
    """The C unpickler with every door shut: no import, no call of anything that is not in this file."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin-1")
        self._classes: dict[str, type[Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name. A dotted name is a string like any other: no attribute is ever looked up."""
        module = RENAMED.get(module, module)
        full = f"{module}.{name}"
        owners = (module.split(".", 1)[0], *name.split(".")[:-1])
        if not NO_PLACE.isdisjoint(owners) or (module == "builtins" and name.split(".", 1)[0] in NO_PLACE_BUILTINS):
            raise Refused(f"refers to {full}, which has no place in a checkpoint; nothing in it was run")
        if full in KNOWN:
            return KNOWN[full]
        if name in RECORDS and module.startswith("torch."):
            return RECORDS[name]
        if full not in self._classes:
            self._classes[full] = _inert_class(full)
        return self._classes[full]

    def persistent_load(self, pid: Any) -> StorageRef:
        """("storage", class, key, location, numel), as torch.save writes it."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise Refused("a persistent id that torch.save does not write")
        _, kind, key, _, numel = pid
        if not isinstance(kind, StorageType) or not isinstance(key, str) or type(numel) is not int or numel < 0:
            raise Refused("a storage that torch.save does not write")
        return StorageRef(key, str(kind), numel)


def load(data: bytes) -> Any:
    """The value of a pickle, as plain data, `Inert`, `TensorRef` and DCP records.

    Raises:
        Refused: hostile, damaged, or not a pickle; the text completes "<file> …".
        MemoryError: under a memory limit only. A crash of the interpreter is possible too: call this in the child.
    """
    was_enabled = gc.isenabled()
    gc.disable()  # millions of small objects and no cycles to find: three times as fast
    try:
        return ClosedUnpickler(io.BytesIO(data)).load()
    except (Refused, MemoryError):
        raise
    except RecursionError:
        raise Refused("is nested deeper than any checkpoint") from None
    except Exception as fault:  # a damaged pickle can raise nearly anything
        raise Refused(f"is not a readable pickle ({type(fault).__name__}: {fault})") from None
    finally:
        if was_enabled:
            gc.enable()
