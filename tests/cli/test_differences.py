"""How a difference is said, in which order, and in how many columns."""

from __future__ import annotations

import pytest

from vlconv.converters import Difference
from vlconv.differences import fitted, lines, what, worst_first


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Difference("a", "values", 1234, (3, 4), 0.03125), "1,234 elements, at most 0.0312, first at [3, 4]"),
        (Difference("a", "values", 1, (0,), 2.0, nan=0), "1 element, at most 2, first at [0]"),
        (Difference("a", "values", 9, (), None, nan=9), "9 elements, 9 of them NaN"),
        (Difference("a", "only in A"), "only in A"),
        (Difference("a", "shape", note="[2] and [3]"), "shape, [2] and [3]"),
        (Difference("a", "values", note="bytes 1 to 9"), "values, bytes 1 to 9"),
        (Difference("a", "dtype", 5, (1,), 0.5, "b and c"), "dtype, 5 elements, at most 0.5, first at [1], b and c"),
    ],
)
def test_words(difference: Difference, words: str) -> None:
    assert what(difference) == words


def test_the_place_is_left_out_where_there_is_no_room() -> None:
    assert what(Difference("a", "values", 3, (3, 4), 0.5), whole=False) == "3 elements, at most 0.5"


def test_the_worst_comes_first() -> None:
    small, large = Difference("small", "values", 9, (), 0.1), Difference("large", "values", 1, (), 0.2)
    few, many = Difference("few", "values", 1, (), 5.0, nan=1), Difference("many", "values", 9, (), 0.0, nan=8)
    infinite, shape = Difference("infinite", "values", 1, (), None), Difference("shape", "shape")
    found = worst_first([small, large, few, infinite, many, shape])
    assert [d.tensor for d in found] == ["shape", "many", "few", "infinite", "large", "small"]


@pytest.mark.parametrize(
    ("name", "room", "shown"),
    [
        ("model.norm.weight", 17, "model.norm.weight"),
        ("model.norm.weight", 16, "…norm.weight"),
        ("xxlayers.3.mlp.weight", 20, "…layers.3.mlp.weight"),
        ("model.norm.weight", 13, "…norm.weight"),
        ("model.norm.weight", 12, "…norm.weight"),
        ("model.norm.weight", 11, "…orm.weight"),
        ("model.language_model.layers.3.mlp.weight", 29, "…layers.3.mlp.weight"),
        ("model.layers.3.mlp.weight", 20, "…layers.3.mlp.weight"),
        ("model.layers.3.mlp.weight", 19, "…layers.3.…p.weight"),
        ("model.visual.blocks.12.attn.qkv.weight", 25, "…blocks.12.…tn.qkv.weight"),
        ("layers.3.weight.layers", 21, "…layers.3.…ght.layers"),
    ],
)
def test_a_name_keeps_its_layer(name: str, room: int, shown: str) -> None:
    assert fitted(name, room) == shown
    assert len(shown) <= room


def test_a_line_has_its_fields_between_tabs() -> None:
    hostile = Difference("a\tb\n\x1b[2J", "values", 3, (1, 2), float("inf"), "n\tm", nan=1)
    assert list(lines([hostile])) == ["a\\tb\\n\\x1b[2J\tvalues\t3\t[1, 2]\tinf\t1\tn\\tm"]
