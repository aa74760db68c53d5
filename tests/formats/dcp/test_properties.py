"""The tables of a distributed checkpoint: what the reading process answers is taken whole, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as some
from properties import holds

from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.dcp.metadata import DcpMetadata

SIZES = some.integers(0, 9)
PLACES = ("file", "offset", "length")


@some.composite
def answers(draw: some.DrawFn) -> tuple[dict[str, Any], dict[str, list[int]], list[Any]]:
    """A good answer, and what it means: per tensor its shape and its (box, place)s."""
    files = draw(some.lists(some.sampled_from(["a", "b", "c.distcp"]), min_size=1, max_size=3, unique=True))
    columns: dict[str, list[int]] = {
        n: [] for n in ("rank", "shape", "tensor", "box", *PLACES, *(f"byte_{p}" for p in PLACES))
    }
    header: dict[str, Any] = {"files": files, "names": [], "dtypes": [], "byte_names": []}
    meaning = []
    for number in range(draw(some.integers(0, 4))):
        shape = draw(some.lists(SIZES, max_size=3))
        header["names"].append(f"t{number}")
        header["dtypes"].append("bfloat16")
        columns["rank"].append(len(shape))
        columns["shape"] += shape
        chunks = []
        for _ in range(draw(some.integers(0, 3))):
            box = [draw(SIZES) for _ in range(2 * len(shape))]
            place = (draw(some.integers(0, len(files) - 1)), draw(SIZES), draw(SIZES))
            columns["tensor"].append(number)
            columns["box"] += box
            for name, value in zip(PLACES, place, strict=True):
                columns[name].append(value)
            chunks.append((tuple(box[: len(shape)]), tuple(box[len(shape) :]), (files[place[0]], *place[1:])))
        meaning.append((tuple(shape), chunks))
    return header, columns, meaning


def arrays(columns: dict[str, list[int]]) -> dict[str, Any]:
    return {name: np.array(values, "<i8") for name, values in columns.items()}


@holds(answer=answers())
def test_what_it_means(answer: tuple[dict[str, Any], dict[str, list[int]], list[Any]]) -> None:
    header, columns, meaning = answer
    metadata = DcpMetadata.from_answer(header, arrays(columns))
    found = [
        (t.shape, [(c.offsets, c.lengths, metadata.place(c.item)) for c in metadata.chunks(i)])
        for i, t in enumerate(metadata.tensors)
    ]
    assert found == [(shape, [chunk for chunk in chunks if all(chunk[1])]) for shape, chunks in meaning]
    items = metadata.items_of(range(0, len(meaning), 2)).tolist()
    assert [metadata.place(item) for item in items] == [c[2] for _, chunks in found[::2] for c in chunks]
    assert [metadata.lengths(item) for item in items] == [c[1] for _, chunks in found[::2] for c in chunks]


@holds(few=300, answer=answers(), how=some.data())
def test_an_answer_with_a_wrong_number(
    answer: tuple[dict[str, Any], dict[str, list[int]], list[Any]], how: some.DataObject
) -> None:
    """Lost, doubled or other numbers: refused by what read_dcp_metadata catches, or every chunk has its place."""
    header, columns, _ = answer
    name = how.draw(some.sampled_from(sorted(columns)))
    kind = how.draw(some.sampled_from(["lose", "more", "other", "gone"]))
    values = columns[name]
    if kind == "gone":
        del columns[name]
    elif kind == "more":
        values.append(how.draw(some.integers(-3, 9)))
    elif values:
        at = how.draw(some.integers(0, len(values) - 1))
        if kind == "lose":
            del values[at]
        else:
            values[at] = how.draw(some.integers(-3, 9) | some.just(1 << 61))
    try:
        metadata = DcpMetadata.from_answer(header, arrays(columns))
        for number in range(len(metadata.tensors)):
            for chunk in metadata.chunks(number):
                metadata.place(chunk.item)
    except (CorruptError, KeyError, TypeError, ValueError, IndexError):
        return
