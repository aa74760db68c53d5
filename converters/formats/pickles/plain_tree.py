"""Any loaded value as JSON. Runs in the sandbox's child process: standard library only."""

from __future__ import annotations

from binascii import b2a_base64

from . import closed_unpickler as pickles

TYPE_CHECKING = False
if TYPE_CHECKING:  # the child starts without typing
    from typing import Any

DEPTH = 60
"""Containers within containers, at most."""

LIMIT = 1 << 62

BITS = 333
"""Of an integer among args, at most: 100 digits, which a float still holds."""


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LIMIT:
        raise pickles.Refused("holds an offset or a length that is no number")
    return value


class Tree:
    """Any loaded value as JSON, expanded.

    Shared parts are repeated, so the number of nodes is bounded by the pickle's size.

    None, bool, int, float and str stand for themselves; the rest is a list that begins with its kind: "l" list, "t"
    tuple, "d" dict (pairs),
    "b" bytes (base64), "T" TensorRef, "r" record (class name, arguments, attributes as pairs, items).
    """

    def __init__(self, nbytes: int) -> None:
        self.left = 100_000 + 4 * nbytes
        self.path: set[int] = set()

    def encode(self, value: Any) -> Any:
        """One value and all below it."""
        self.left -= 1
        if self.left < 0:
            raise pickles.Refused("repeats its parts beyond any checkpoint's size")
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, str):
            self.left -= len(value) >> 3
            return str(value)
        if isinstance(value, int):
            return value if value.bit_length() <= BITS else ["r", "int", [], [], []]
        if isinstance(value, (bytes, bytearray)):
            self.left -= len(value) >> 3
            return ["b", b2a_base64(value, newline=False).decode()]
        if isinstance(value, pickles.TensorRef):
            return ["T", *value[:4], [_integer(n) for n in value.shape], [_integer(n) for n in value.stride]]
        return self.compound(value)

    def compound(self, value: Any) -> Any:
        """A container or record. One inside itself is cut there: nothing that is wanted does so."""
        if id(value) in self.path:
            return ["r", "(itself)", [], [], []]
        if len(self.path) >= DEPTH:
            raise pickles.Refused("is nested deeper than any checkpoint")
        self.path.add(id(value))
        try:
            return self.parts(value)
        finally:
            self.path.discard(id(value))

    def parts(self, value: Any) -> Any:
        """What is in a container or record."""
        if isinstance(value, dict):
            return ["d", self.pairs(value)]
        if isinstance(value, (list, set, frozenset)):
            return ["l", [self.encode(v) for v in value]]
        if isinstance(value, pickles.Inert):
            attributes = value.attributes()
            return [
                "r",
                value.class_name,
                [self.encode(v) for v in value.arguments],
                self.pairs(attributes),
                [self.encode(v) for v in value.items or ()],
            ]
        if isinstance(value, type):
            return ["r", getattr(value, "class_name", value.__name__), [], [], []]
        if isinstance(value, (tuple, pickles.StorageRef)):
            return ["t", [self.encode(v) for v in value]]
        return ["r", type(value).__name__, [], [], []]

    def pairs(self, value: dict[Any, Any]) -> list[Any]:
        """A dict's items."""
        return [[self.encode(k), self.encode(v)] for k, v in value.items()]
