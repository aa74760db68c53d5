"""A pickle as what it does, for comparison: without its memo and frames, which have no say in what is loaded."""

from __future__ import annotations

import pickletools
from typing import Any


def said(data: bytes) -> list[tuple[str, Any]]:
    """The opcodes with their arguments.

    A text, a name or what DCP says of a dtype's form in memory counts as written where it comes from the memo; nothing
    else may come from there. A name is a GLOBAL, however it is written.
    """
    memo: dict[int, tuple[str, Any]] = {}
    found: list[tuple[str, Any]] = []
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = found[-1]
        elif "GET" in name:
            found.append(memo[argument])
            assert found[-1][0] in ("GLOBAL", "UNICODE", "REDUCED"), found[-1]
        elif name == "STACK_GLOBAL":
            (_, module), (_, inner) = found[-2:]
            found[-2:] = [("GLOBAL", f"{module} {inner}")]
        elif name == "REDUCE" and found[-1][0] == "TUPLE1" and found[-2][0] in ("UNICODE", "BININT1"):
            found[-3:] = [("REDUCED", tuple(found[-3:-1]))]  # DCP's layout and memory format
        elif name not in ("FRAME", "PROTO"):
            found.append(("UNICODE" if "UNICODE" in name else name, argument))
    return found


def names(data: bytes) -> set[str]:
    """The names that a pickle refers to: "module name"."""
    flat = [piece for name, argument in said(data) for piece in (argument if name == "REDUCED" else [(name, argument)])]
    return {argument for name, argument in flat if name == "GLOBAL"}
