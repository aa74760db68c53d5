"""Large numbers for people."""

from __future__ import annotations


def sized(nbytes: int) -> str:
    """Bytes in decimal units: "812 B", "4.31 MB", "16.1 GB"."""
    return _scaled(nbytes, ("B", "kB", "MB", "GB", "TB"))


def count(number: int) -> str:
    """How many: "812", "50.3 M", "2.13 B"."""
    return _scaled(number, ("", "k", "M", "B", "T")).rstrip()


def _scaled(whole: int, units: tuple[str, ...]) -> str:
    number, unit = float(whole), 0
    while number >= 999.5 and unit < len(units) - 1:
        number, unit = number / 1000, unit + 1
    return f"{whole} {units[0]}" if unit == 0 else f"{number:.{max(0, 3 - len(str(int(number))))}f} {units[unit]}"
