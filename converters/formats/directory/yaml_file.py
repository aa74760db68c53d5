"""YAML files of strangers: plain values, bounded before anything is built.

A few kilobytes in which anchors name anchors stand for a structure without end, and a few megabytes of `[1, 1, …` take
minutes and gigabytes. So the parser's events are walked first, an alias counting as much as what it names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ...errors import CorruptError, shown, shown_path
from ..open_files import opened

LARGEST = 1_000_000
"""Bytes of a file. Megatron-Bridge's run_config.yaml has some thousands."""

NODES = 100_000
"""Keys, values and containers, those that an alias repeats too; a text of 64 characters counts as one more."""

DEPTH = 60
"""Containers within containers, at most."""

DIGITS = 100
"""Characters of a number: YAML's base 60 makes much of few."""

_FAULTS = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""PyYAML's constructors raise whatever int, datetime and the like do."""

_CParser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # where libyaml was there when PyYAML was built


class _Loader(_CParser):  # type: ignore[misc, valid-type]  # either class, and both have the same methods
    """Plain values only; tags that name classes are refused, and dates stay text."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _number(kind: str) -> Any:
    build = yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]

    def bounded(loader: Any, node: yaml.ScalarNode) -> Any:
        if len(node.value) > DIGITS:
            raise ValueError(f"a number of {len(node.value)} characters")
        return build(loader, node)

    return bounded


_Loader.add_constructor("tag:yaml.org,2002:int", _number("int"))
_Loader.add_constructor("tag:yaml.org,2002:float", _number("float"))


def read_yaml(path: Path) -> Any:
    """The one document of a YAML file, as plain values.

    Raises:
        CorruptError: missing, not a regular file, too large, nested too deep, a key twice, an anchor within itself, or
            no YAML of plain values; names the file.
        ReadError: the system does not let it be read.
    """
    where = shown_path(path)
    with opened(path) as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise CorruptError(f"{where} is larger than {LARGEST / 1e6:g} MB, which no such file is")
    try:
        _Walk(where).all(yaml.parse(text, Loader=_CParser))
        return yaml.load(text, Loader=_Loader)
    except _FAULTS as error:
        raise CorruptError(
            f"{where} cannot be read as YAML: {type(error).__name__}: {shown(_reason(error))}",
            "Remove the file if it is not Megatron-Bridge's.",
        ) from error


def _reason(error: Exception) -> str:
    """In a line; PyYAML's own errors go on with the text around the place."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    return f"{problem}, line {mark.line + 1}" if problem and mark else str(error)


class _Walk:
    """Counts what a text stands for, event by event."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._total = 0
        self._sizes: dict[str | None, int] = {}  # of what each anchor names
        self._open: list[_Container] = []

    def all(self, events: Iterator[yaml.Event]) -> None:
        """Walk them.

        Raises:
            CorruptError: more than is read at all.
        """
        for event in events:
            if isinstance(event, yaml.AliasEvent):
                self._add(self._named(event.anchor), "")
            elif isinstance(event, yaml.ScalarEvent):
                self._add(size := 1 + len(event.value) // 64, event.value)
                self._sizes[event.anchor] = size
            elif isinstance(event, yaml.CollectionStartEvent):
                self._add(1, "")
                self._enter(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                done = self._open.pop()
                self._sizes[done.anchor] = self._total - done.before

    def _named(self, anchor: str | None) -> int:
        if any(container.anchor == anchor for container in self._open):
            raise CorruptError(f"{self._where} holds an anchor within itself: {shown(anchor)}")
        return self._sizes.get(anchor, 1)  # an unknown one is refused on loading

    def _add(self, size: int, key: str) -> None:
        """Count something and, where it stands for a key, see that the key is new."""
        self._total += size
        if self._total > NODES:
            raise CorruptError(f"{self._where} stands for more than {NODES:,} values, which no such file does")
        if self._open and self._open[-1].is_doubled(key):
            raise CorruptError(f"{self._where} holds the key {shown(key)} twice")

    def _enter(self, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) == DEPTH:
            raise CorruptError(f"{self._where} is nested deeper than any such file")
        keys: set[str] | None = set() if isinstance(event, yaml.MappingStartEvent) else None
        self._open.append(_Container(event.anchor, self._total - 1, keys))


class _Container:
    """One that is not closed yet: its anchor, what was counted before it, and of a mapping the keys so far."""

    def __init__(self, anchor: str | None, before: int, keys: set[str] | None) -> None:
        self.anchor, self.before, self._keys = anchor, before, keys
        self._is_key = True

    def is_doubled(self, key: str) -> bool:
        """Whether the next part is a key that was there; "" for one that is no text."""
        if self._keys is None:
            return False
        is_key, self._is_key = self._is_key, not self._is_key
        if not is_key or not key:
            return False
        doubled = key in self._keys
        self._keys.add(key)
        return doubled
