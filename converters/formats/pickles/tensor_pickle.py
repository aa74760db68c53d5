"""The data.pkl of a single tensor, read and written, both without unpickling anything.

torch.save of one tensor is always the same few opcodes. They are walked here by hand: no process per item, microseconds
each; what looks otherwise is refused.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

from ...errors import CorruptError, shown
from ...tensors.dtypes import ITEMSIZE
from ...tensors.spec import Shape
from .closed_unpickler import TensorRef
from .opcodes import (
    ORDERED,
    STORAGES,
    TENSOR,
    TENSOR_V3,
    UNTYPED,
    dense_strides,
    global_name,
    integer,
    text,
    tuple_of,
)

LIMIT = 8192
"""Bytes of a data.pkl that holds one tensor, at most. torch writes about 160."""

PARAMETER = "torch._utils _rebuild_parameter"

_DTYPE_OF = {f"torch {name}": dtype for dtype, name in STORAGES.items()}
_FLOAT8 = {f"torch {dtype}": dtype for dtype in ITEMSIZE if dtype not in STORAGES}
_ALLOWED = frozenset((*_DTYPE_OF, *_FLOAT8, UNTYPED, TENSOR, TENSOR_V3, PARAMETER, ORDERED))


class _Name(str):
    """A global's "module name"."""

    __slots__ = ()


class _Storage(NamedTuple):
    kind: str
    key: str
    numel: int


_MARK: Any = object()
_HOOKS: Any = object()  # the empty OrderedDict of backward hooks


@lru_cache(1024)  # the items of one shape have the same data.pkl, to the byte
def read_tensor_pickle(data: bytes) -> TensorRef:
    """The one tensor (or Parameter) of a data.pkl.

    Args:
        data: the pickle.

    Raises:
        CorruptError: anything but the opcodes torch.save writes for a tensor; the text has no file name yet.
    """
    try:
        value = _walk(data)
    except (IndexError, ValueError, TypeError, KeyError, AttributeError):
        raise CorruptError("data.pkl is cut short or damaged") from None
    if not isinstance(value, TensorRef):
        raise CorruptError("data.pkl holds something else than one tensor")
    return value


def _walk(data: bytes) -> Any:
    """A stack machine of the opcodes protocols 2 to 5 need for a tensor, strictest reading of each."""
    if len(data) > LIMIT or data[:1] != b"\x80" or not 2 <= data[1] <= 5:
        raise ValueError
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    at, number = 2, int.from_bytes
    while True:
        op = data[at]
        at += 1
        if op == 0x71:  # BINPUT
            memo[data[at]] = stack[-1]
            at += 1
        elif op == 0x4B:  # BININT1
            stack.append(data[at])
            at += 1
        elif op == 0x63:  # GLOBAL
            middle = data.index(b"\n", at)
            end = data.index(b"\n", middle + 1)
            stack.append(_allowed(data[at:middle], data[middle + 1 : end]))
            at = end + 1
        elif op == 0x58:  # BINUNICODE
            end = at + 4 + number(data[at : at + 4], "little")
            stack.append(str(data[at + 4 : end], "ascii"))
            at = end
        elif op == 0x28:  # MARK
            stack.append(_MARK)
        elif op == 0x74:  # TUPLE
            start = len(stack) - 1 - stack[::-1].index(_MARK)
            stack[start:] = [tuple(stack[start + 1 :])]
        elif 0x85 <= op <= 0x87:  # TUPLE1 TUPLE2 TUPLE3
            start = len(stack) - (op - 0x84)
            if start < 0:
                raise ValueError
            stack[start:] = [tuple(stack[start:])]
        elif op == 0x4D:  # BININT2
            stack.append(number(data[at : at + 2], "little"))
            at += 2
        elif op == 0x4A:  # BININT
            stack.append(number(data[at : at + 4], "little", signed=True))
            at += 4
        elif op == 0x8A:  # LONG1
            end = at + 1 + data[at]
            stack.append(number(data[at + 1 : end], "little", signed=True))
            at = end
        elif op == 0x51:  # BINPERSID
            stack.append(_storage(stack.pop()))
        elif op == 0x52:  # REDUCE
            arguments = stack.pop()
            stack.append(_reduce(stack.pop(), arguments))
        elif op == 0x29:  # EMPTY_TUPLE
            stack.append(())
        elif op == 0x88 or op == 0x89:  # NEWTRUE NEWFALSE
            stack.append(op == 0x88)
        elif op == 0x2E:  # STOP
            if len(stack) != 1 or at != len(data):
                raise ValueError
            return stack[0]
        else:
            at = _rare(op, data, at, stack, memo)


def _rare(op: int, data: bytes, at: int, stack: list[Any], memo: dict[int, Any]) -> int:
    """The opcodes of a Parameter and of newer protocols. Returns where the next one starts."""
    if op == 0x68:  # BINGET
        stack.append(memo[data[at]])
        return at + 1
    if op == 0x94:  # MEMOIZE
        memo[len(memo)] = stack[-1]
        return at
    if op == 0x95:  # FRAME
        return at + 8
    if op == 0x8C:  # SHORT_BINUNICODE
        end = at + 1 + data[at]
        stack.append(str(data[at + 1 : end], "ascii"))
        return end
    if op == 0x93:  # STACK_GLOBAL
        name = stack.pop()
        stack.append(_allowed(stack.pop().encode(), name.encode()))
        return at
    raise CorruptError(f"data.pkl holds opcode 0x{op:02x}, which no saved tensor needs")


def _allowed(module: bytes, name: bytes) -> _Name:
    full = f"{module.decode()} {name.decode()}"
    if full not in _ALLOWED:
        raise CorruptError(
            f"data.pkl refers to {shown(full.replace(' ', '.'))}, which has no place in a tensor; nothing in it was run"
        )
    return _Name(full)


def _storage(pid: Any) -> _Storage:
    tag, kind, key, location, numel = pid
    if (
        tag != "storage"
        or type(kind) is not _Name
        or type(key) is not str
        or type(location) is not str
        or type(numel) is not int
        or numel < 0
    ):
        raise ValueError
    return _Storage(kind, key, numel)


def _reduce(function: Any, arguments: Any) -> Any:
    if type(function) is not _Name or type(arguments) is not tuple:
        raise ValueError
    if function == ORDERED and arguments == ():
        return _HOOKS
    if function == PARAMETER and len(arguments) == 3 and type(arguments[0]) is TensorRef:
        return arguments[0]
    if function == TENSOR and len(arguments) == 6:
        storage, offset, shape, stride, _, hooks = arguments
        return _view(storage, _DTYPE_OF[storage.kind], 1, offset, shape, stride, hooks)
    if function == TENSOR_V3 and len(arguments) == 7 and arguments[0].kind == UNTYPED:
        storage, offset, shape, stride, _, hooks, dtype = arguments
        name = _FLOAT8[dtype]
        return _view(storage, name, ITEMSIZE[name], offset, shape, stride, hooks)
    raise ValueError


def _view(storage: Any, dtype: str, unit: int, offset: Any, shape: Any, stride: Any, hooks: Any) -> TensorRef:
    if (
        type(storage) is not _Storage
        or hooks is not _HOOKS
        or type(shape) is not tuple
        or type(stride) is not tuple
        or len(shape) != len(stride)
    ):
        raise ValueError
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *stride)):
        raise ValueError
    return TensorRef(storage.key, dtype, storage.numel // unit, offset, shape, stride)


def is_row_major(shape: Shape, stride: Shape) -> bool:
    """Whether the elements of a view lie one after another, in order.

    The stride of an axis of one element says nothing.
    """
    expected = 1
    for extent, step in zip(reversed(shape), reversed(stride), strict=True):
        if extent != 1 and step != expected:
            return prod(shape) == 0
        expected *= extent
    return True


def check_bounds(ref: TensorRef) -> None:
    """Raises CorruptError when a view reaches outside its storage."""
    if (
        prod(ref.shape)
        and ref.offset + sum((n - 1) * step for n, step in zip(ref.shape, ref.stride, strict=True)) >= ref.numel
    ):
        raise CorruptError(
            f"holds a tensor {list(ref.shape)}, strides {list(ref.stride)}, from element {ref.offset} on in a storage "
            f"of only {ref.numel}"
        )


def write_tensor_pickle(dtype: str, shape: Shape, in_list: bool = False) -> bytes:
    """The data.pkl of a contiguous tensor that is alone in storage "0", as torch.load and weights_only take it.

    Args:
        dtype: torch's name without prefix, one of ITEMSIZE.
        shape: in elements.
        in_list: wrap it: the pickle of `[tensor]`.
    """
    typed = dtype in STORAGES
    count = prod(shape) if typed else prod(shape) * ITEMSIZE[dtype]
    kind = f"torch {STORAGES[dtype]}" if typed else UNTYPED
    storage = tuple_of(text("storage"), global_name(kind), text("0"), text("cpu"), integer(count)) + b"Q"
    arguments = [
        storage,
        integer(0),  # the first element
        tuple_of(*map(integer, shape)),
        tuple_of(*map(integer, dense_strides(shape))),
        b"\x89",  # requires no gradient
        global_name(ORDERED) + b")R",  # no backward hooks
    ]
    if not typed:
        arguments.append(global_name(f"torch {dtype}"))
    tensor = global_name(TENSOR if typed else TENSOR_V3) + tuple_of(*arguments) + b"R"
    return b"\x80\x02" + (b"]" + tensor + b"a" if in_list else tensor) + b"."
