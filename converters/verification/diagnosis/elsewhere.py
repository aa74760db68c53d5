"""Numbers that belong somewhere else: another tensor of the model, or other rows of the same one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from ...errors import shown
from ...tensors.spec import Box, Reader, Shape, TensorSpec
from ...tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from .sample import bits, probes, windows

if TYPE_CHECKING:
    from ...tensors.spec import Array

SHARDS = (2, 4, 8, 16)
"""Parts of an axis that are tried: tensor-parallel sizes."""


class Others:
    """The tensors of a side, found by shape, dtype and their last numbers; looked into by several threads."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._by_shape: dict[tuple[Shape, str], list[str]] = {}
        for name, spec in reader.specs.items():
            self._by_shape.setdefault((spec.shape, spec.dtype), []).append(name)
        self._by_numbers: dict[tuple[Shape, str], dict[int, list[str]]] = {}

    def equal(self, b: Reader, name: str) -> str:
        """Another tensor that B's of that name equals to the bit; "" where none does."""
        spec = b.specs[name]
        probe = probes(spec)[-1]
        found = bits(b, probe).tobytes()
        if found.count(found[:4]) * 4 >= len(found):  # of a constant any could be it
            return ""
        alike = self._numbered(spec, probe).get(crc32(found), [])
        return next((other for other in alike if other != name and _same(self._reader, other, b, name)), "")

    def _numbered(self, spec: TensorSpec, probe: Box) -> dict[int, list[str]]:
        """Those of a shape and dtype, by a sum of their numbers in a place: of each no more than that is kept."""
        key = spec.shape, spec.dtype
        with self._lock:
            if key not in self._by_numbers:
                by_sum: dict[int, list[str]] = {}
                for name in self._by_shape.get(key, []):
                    by_sum.setdefault(crc32(bits(self._reader, probe._replace(name=name)).tobytes()), []).append(name)
                self._by_numbers[key] = by_sum
            return self._by_numbers[key]


def _same(a: Reader, other: str, b: Reader, name: str) -> bool:
    return all(not (bits(a, box._replace(name=other)) != bits(b, box)).any() for box in windows(b.specs[name]))


def another(a: Others, b: Reader, name: str) -> str:
    """What tensor B's of that name is instead of its own, in words."""
    if name.endswith(OUTPUT_LAYER):
        embedding = next((n for n in b.specs if n.endswith(EMBEDDING)), "")
        if embedding and b.specs[embedding][1:] == b.specs[name][1:] and _same(b, embedding, b, name):
            return f"B's own {shown(embedding)}: a copy as if the model were tied"
    found = a.equal(b, name)
    return f"A's {shown(found)}" if found else ""


class Rows(NamedTuple):
    """A sum of each row of a tensor (of each index of the first axis), of which equal rows have equal ones."""

    good: Array
    bad: Array


def rows(a: Reader, b: Reader, name: str) -> Rows:
    """The rows of both sides."""
    return Rows(_hashes(a, name), _hashes(b, name))


def _hashes(reader: Reader, name: str) -> Array:
    import numpy as np

    spec = reader.specs[name]
    sums = np.zeros(spec.shape[0], np.uint64)
    for box in windows(spec):
        part = bits(reader, box).reshape(box.lengths[0], -1).astype(np.uint64)
        flat = _place(box, spec.shape)
        weights = _weights(flat, part.shape[1])
        sums[box.offsets[0] : box.offsets[0] + box.lengths[0]] += (part * weights).sum(axis=1, dtype=np.uint64)
    return sums


def _weights(first: int, count: int) -> Array:
    """A number for each place of a row, odd and without a pattern."""
    import numpy as np

    found = np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    found ^= found >> np.uint64(29)
    found *= np.uint64(0xBF58476D1CE4E5B9)
    return found ^ (found >> np.uint64(32)) | np.uint64(1)


def _place(box: Box, shape: Shape) -> int:
    """Where in a row a box begins."""
    at = 0
    for offset, size in zip(box.offsets[1:], shape[1:], strict=True):
        at = at * size + offset
    return at


def moved_rows(found: Rows) -> str:
    """Whether B's rows are A's rows in other places, in words; "" where they are not."""
    import numpy as np

    good, bad = found
    wrong = np.flatnonzero(good != bad)
    if len(good) < 2 or not len(wrong) or not np.isin(bad[wrong], good).all():
        return ""
    if len(np.unique(bad)) < len(bad) and len(np.unique(good)) == len(good):
        source = {int(h): i for i, h in enumerate(good)}
        froms = np.array([source[int(h)] for h in bad[wrong]])
        if (np.diff(wrong) != 1).any() or (np.diff(froms) != 1).any():
            return f"{len(wrong)} rows, {wrong[0]} the first, are others of A's, some of which are there twice then"
        return f"rows {wrong[0]} to {wrong[-1]} are A's rows from {froms[0]} on, which are there twice then"
    if np.array_equal(np.sort(good), np.sort(bad)):
        return f"all rows are there, in another order: {len(wrong)} of {len(good)} have moved{_within(good, bad)}"
    return ""


def _within(good: Array, bad: Array) -> str:
    import numpy as np

    for parts in reversed(SHARDS):
        if len(good) % parts == 0 and len(good) > parts:
            ours, theirs = (np.sort(one.reshape(parts, -1), axis=1) for one in (good, bad))
            if np.array_equal(ours, theirs):
                return f", each within its own {len(good) // parts} rows"
    return ""
