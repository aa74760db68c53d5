"""A page of `verify --report`, read by the standard library's parser: its tags, its tables and its pictures."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import NamedTuple

VOID = {"meta", "rect"}
"""Tags of a page that have no end."""


class Cell(NamedTuple):
    """A cell of a table: its text, and the number that it stands for."""

    text: str
    number: float | None


class ReadPage(HTMLParser):
    """What is in a page.

    Attributes:
        tags: every start tag with the names of its attributes, in order.
        values: of attributes, by tag and attribute.
        tables: the rows of each, the first of them its head; by class, in order.
        titles: of cells in pictures.
        texts: the words between tags, by the innermost tag.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.values: dict[tuple[str, str], set[str | None]] = {}
        self.tables: dict[str, list[list[list[Cell]]]] = {}
        self.titles: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._rows: list[list[Cell]] = []
        self._words, self._number = "", None
        self.feed(page)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        for name, value in attrs:
            self.values.setdefault((tag, name), set()).add(value)
        if tag not in VOID:
            self._open.append(tag)
        given = dict(attrs)
        if tag == "table":
            self._rows = []
            self.tables.setdefault(given.get("class") or "", []).append(self._rows)
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._words, self._number = "", None
        elif tag == "data":
            self._number = float(given["value"] or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag
        if tag in ("td", "th"):
            self._rows[-1].append(Cell(self._words, self._number))

    def handle_data(self, data: str) -> None:
        if not data.strip():
            return
        self._words += data
        self.texts.append((self._open[-1], data))
        if self._open[-2:] == ["g", "title"]:
            self.titles.append(data)

    def said(self, tag: str) -> list[str]:
        """The texts within a tag."""
        return [text for inside, text in self.texts if inside == tag]
