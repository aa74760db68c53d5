"""Where the items of a distributed checkpoint lie: apart from one another; and what lies in its files beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...errors import CorruptError, shown
from ..open_files import status
from .metadata import DcpMetadata

if TYPE_CHECKING:
    from ...tensors.spec import Array


class Places(NamedTuple):
    """The items of tensors and, behind them, the byte entries, ordered by file and offset; int64."""

    file: Array
    start: Array
    end: Array
    number: Array  # of the item; a byte entry's stands behind those of tensors


def check_apart(metadata: DcpMetadata) -> Places:
    """Every item that holds something belongs to one chunk of one tensor, or is one byte entry.

    Returns:
        where they lie.

    Raises:
        CorruptError: two of them share bytes of a file.
    """
    import numpy as np

    places = _ordered(metadata)
    holding = places.end > places.start
    # Several ranks without rows leave the same empty chunk.
    holding &= ~np.concatenate([metadata.empty, np.zeros(len(metadata.byte_entries), bool)])[places.number]
    file, start, end, number = (column[holding] for column in places)
    clash = np.flatnonzero((file[1:] == file[:-1]) & (end[:-1] > start[1:]))
    if len(clash):
        at = int(clash[0])
        one, other = (_owner(metadata, int(number[i])) for i in (at, at + 1))
        whose = f"{one} and {other}" if one != other else f"two chunks of {one}"
        raise CorruptError(
            f"{shown(metadata.files[int(file[at])])}: the items of {whose} overlap, at byte {int(start[at + 1])}",
            ".metadata is damaged, or was changed: copy it again from where it was saved.",
        )
    return places


def unclaimed(metadata: DcpMetadata, places: Places, directory: Path, wanted: Iterable[int]) -> dict[str, int]:
    """Bytes that belong to no item, by file; files without any are left out.

    Args:
        metadata: of the checkpoint.
        places: of its items.
        directory: that holds the files.
        wanted: indexes into `metadata.tensors`; only files that hold some of these are looked at.

    Raises:
        ReadError: the system does not let a file be seen.
    """
    import numpy as np

    looked_at = set(metadata.item_file[metadata.is_of(wanted)].tolist())
    found = {}
    for file, start, end in _by_file(places):
        if file in looked_at and (seen := status(directory / metadata.files[file])) is not None:
            start, end = np.minimum(start, seen.st_size), np.minimum(end, seen.st_size)
            reached = np.maximum.accumulate(np.concatenate([[0], end]))
            if rest := seen.st_size - int(np.maximum(end - np.maximum(start, reached[:-1]), 0).sum()):
                found[metadata.files[file]] = rest
    return found


def _ordered(metadata: DcpMetadata) -> Places:
    import numpy as np

    entries = np.array([entry[1:] for entry in metadata.byte_entries], np.int64).reshape(-1, 3).T
    items = (metadata.item_file, metadata.item_offset, metadata.item_length)
    file, start, length = (np.concatenate(pair) for pair in zip(items, entries, strict=True))
    span = int((start + length).max(initial=0)) + 1
    one_key = (int(file.max(initial=0)) + 1) * span < 1 << 62  # sorted in half the time
    order = np.argsort(file * span + start, kind="stable") if one_key else np.lexsort((start, file))
    return Places(file[order], start[order], (start + length)[order], order)


def _by_file(places: Places) -> Iterator[tuple[int, Array, Array]]:
    """File, first bytes and ends of its items."""
    import numpy as np

    firsts = np.flatnonzero(np.diff(places.file, prepend=-1))
    for first, last in pairwise([*firsts, len(places.file)]):
        yield int(places.file[first]), places.start[first:last], places.end[first:last]


def _owner(metadata: DcpMetadata, number: int) -> str:
    """The name of what an item belongs to."""
    tensors = len(metadata.item_tensor)
    if number < tensors:
        return shown(metadata.tensors[int(metadata.item_tensor[number])].name)
    return shown(metadata.byte_entries[number - tensors].name)
