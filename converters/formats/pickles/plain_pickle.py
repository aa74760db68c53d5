"""The data.pkl of a torch.save file that holds plain values, namespaces and tensors, as torch pickles it.

By protocol 2, to the byte what Python's own pickler writes of the same objects, equal texts taken for one object. But
without torch: a dtype and a tensor have stand-ins.
"""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from ...tensors.dtypes import TorchDtype
from ...tensors.spec import Shape
from .opcodes import (
    NAMESPACE,
    ORDERED,
    STORAGES,
    TENSOR,
    batches,
    dense_strides,
    floating,
    global_name,
    integer,
    numbered,
    text,
    tuple_end,
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A dense tensor whose numbers someone else writes: its storage is number `key` of the file."""

    shape: Shape
    dtype: str
    key: int


def plain_pickle(tree: object) -> bytes:
    """The pickle of a tree.

    Args:
        tree: None, bool, int, float, str, TorchDtype, StoredTensor; in tuples, lists, dicts, OrderedDicts and
            Namespaces. None of these holds itself.

    Raises:
        TypeError: it holds something else.
    """
    writer = _Writer()
    writer.save(tree)
    return b"\x80\x02" + bytes(writer.out) + b"."


class _Writer:
    """A pickle in the making.

    Like Python's pickler it notes every object in the memo; a text or a name comes from there the second time.
    """

    def __init__(self) -> None:
        self.out = bytearray()
        self._known: dict[object, int] = {}  # a text, or a name in a tuple -> its number in the memo
        self._noted = 0

    def save(self, value: Any) -> None:
        """One value and all in it."""
        write = self._WRITE.get(type(value))
        if write is None:
            raise TypeError(f"{type(value).__name__} has no place in a checkpoint")
        write(self, value)

    def _note(self) -> None:
        """BINPUT, LONG_BINPUT: what is on top of the stack gets the next number."""
        self.out += numbered(b"qr", self._noted)
        self._noted += 1

    def _once(self, key: object, written: bytes) -> None:
        """Written the first time; BINGET, LONG_BINGET later."""
        if key in self._known:
            self.out += numbered(b"hj", self._known[key])
            return
        self._known[key] = self._noted
        self.out += written
        self._note()

    def _global(self, name: str) -> None:
        self._once((name,), global_name(name))

    def _constant(self, value: bool | None) -> None:
        self.out += b"N" if value is None else b"\x88" if value else b"\x89"

    def _integer(self, value: int) -> None:
        self.out += integer(value)

    def _float(self, value: float) -> None:
        self.out += floating(value)

    def _text(self, value: str) -> None:
        self._once(value, text(value))

    def _dtype(self, value: TorchDtype) -> None:
        self._global(f"torch {value.name}")

    def _tuple(self, value: tuple[Any, ...]) -> None:
        begin, end = tuple_end(len(value))
        self.out += begin
        for item in value:
            self.save(item)
        self.out += end
        if value:
            self._note()

    def _list(self, value: list[Any]) -> None:
        self.out += b"]"
        self._note()
        for before, batch, behind in batches(value, b"ae"):
            self.out += before
            for item in batch:
                self.save(item)
            self.out += behind

    def _dict(self, value: dict[Any, Any]) -> None:
        self.out += b"}"
        self._note()
        self._items(value)

    def _items(self, value: dict[Any, Any]) -> None:
        for before, batch, behind in batches(value.items(), b"su"):
            self.out += before
            for key, item in batch:
                self.save(key)
                self.save(item)
            self.out += behind

    def _ordered(self, value: OrderedDict[Any, Any]) -> None:
        self._global(ORDERED)
        self.out += b")R"
        self._note()
        self._items(value)

    def _namespace(self, value: Namespace) -> None:
        self._global(NAMESPACE)
        self.out += b")\x81"
        self._note()
        if vars(value):
            self._dict(vars(value))
            self.out += b"b"

    def _tensor(self, value: StoredTensor) -> None:
        """_rebuild_tensor_v2(storage, first element, shape, strides, requires_grad, hooks)."""
        self._global(TENSOR)
        self.out += b"("
        self._storage(value)
        arguments: tuple[object, ...] = (0, value.shape, dense_strides(value.shape), False, OrderedDict())
        for argument in arguments:
            self.save(argument)
        self.out += b"t"
        self._note()
        self.out += b"R"
        self._note()

    def _storage(self, value: StoredTensor) -> None:
        """torch.save's persistent id: ("storage", class, key, place, elements)."""
        self.out += b"("
        self._text("storage")
        self._global(f"torch {STORAGES[value.dtype]}")
        for field in (str(value.key), "cpu", prod(value.shape)):
            self.save(field)
        self.out += b"t"
        self._note()
        self.out += b"Q"

    _WRITE: ClassVar[dict[type, Callable[[_Writer, Any], None]]] = {
        type(None): _constant,
        bool: _constant,
        int: _integer,
        float: _float,
        str: _text,
        TorchDtype: _dtype,
        tuple: _tuple,
        list: _list,
        dict: _dict,
        OrderedDict: _ordered,
        Namespace: _namespace,
        StoredTensor: _tensor,
    }
