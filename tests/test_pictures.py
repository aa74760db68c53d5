"""What `make pictures` draws: the lines that stay on a terminal, and no run that went otherwise."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pictures
from read_page import ReadPage


def test_what_was_written_over_is_gone() -> None:
    assert pictures.shown("first\r\nbar 1 %\r\x1b[2Kbar 50 %\r\n\x1b[1A\x1b[2Klast\r\n") == ["first", "last"]
    assert pictures.shown("half\rwhole\r\n") == ["whole"]


def test_a_conversion_and_a_difference_before_a_terminal(tmp_path: Path) -> None:
    pictures.prepare(tmp_path)
    code, said = pictures.in_terminal(tmp_path, *pictures.PICTURES["convert"][0])
    assert code == 0, said
    drawn = pictures.picture("vlconv mcore2hf", said)
    words = unescape("".join(re.findall(r">([^<]+)</text>", drawn))).replace("\xa0", " ")
    assert str(tmp_path) not in words.replace("\n", "") and "huggingfac" not in words  # of no use to a reader
    assert "$ vlconv mcore2hf" in words and "Qwen3-VL-mine" in words and "\x1b" not in drawn
    assert pictures.in_terminal(tmp_path, *pictures.PICTURES["verify"][0])[0] == 1


def test_the_page_that_is_photographed_has_something_to_show(tmp_path: Path) -> None:
    page = ReadPage(pictures.report(tmp_path).read_text())
    assert page.values["g", "class"] >= {"l0", "l1", "l2", "l3"}
    assert str(tmp_path) not in "".join(text for _, text in page.texts)
