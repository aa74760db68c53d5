"""What counts while a Reader is read from: a process tells rank 0 what it has counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from .team import Member


@runtime_checkable
class Account(Protocol):
    """A Reader that counts."""

    def hand_over(self) -> Any:
        """What was counted here since the last call; picklable."""

    def take_over(self, counted: Any) -> None:
        """Count in what was counted elsewhere."""


Counted = list[Any]
"""What the accounts of some Readers have counted."""


def counted(member: Member, *readers: object) -> Counted:
    """What was counted by some Readers, and all that are below them, since it was told last."""
    if not member.share.rank:  # its accounts are those to which all others are added
        return []
    return [account.hand_over() for account in accounts(*readers)]


def count_in(found: Counted, *readers: object) -> None:
    """Add what another process has counted to the accounts of the same Readers."""
    for account, more in zip(accounts(*readers), found, strict=True) if found else ():
        account.take_over(more)


def accounts(*readers: object) -> list[Account]:
    """Those among some Readers and all that are below them, each once; in the same order in every process."""
    return [reader for reader in _all(readers, set()) if isinstance(reader, Account)]


def _all(readers: tuple[object, ...], known: set[int]) -> Iterator[object]:
    for reader in readers:
        if id(reader) not in known:
            known.add(id(reader))
            yield reader
            yield from _all(getattr(reader, "below", ()), known)
