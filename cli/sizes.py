"""Large numbers for people."""

from __future__ import annotations

from vlconv.converters import scaled


def count(number: int) -> str:
    """How many: "812", "50.3 M", "2.13 B"."""
    return scaled(number, ("", "k", "M", "B", "T")).rstrip()
