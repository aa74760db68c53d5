"""The tables of a DCP `.metadata`: tensors, chunks and items.

Which tensors there are, in which chunks, and where in which file the item of each chunk lies.

Kept as columns, because a large checkpoint has hundreds of thousands of items.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ...errors import CorruptError, naming, shown
from ...tensors.spec import Shape
from ..columns import ChunkColumns
from ..holes import has_hole, is_sparse
from ..open_files import file_name, opened, status
from ..pickles.sandbox import ask

if TYPE_CHECKING:
    from ...tensors.spec import Array


class RawTensor(NamedTuple):
    """A tensor as the metadata name it. The dtype has no prefix and may be one that is not read."""

    name: str
    dtype: str
    shape: Shape


class ByteEntry(NamedTuple):
    """An entry that is no tensor: a torch.save file at (offset, length) of file number `file`."""

    name: str
    file: int
    offset: int
    length: int


@dataclass(slots=True, frozen=True)
class DcpMetadata:
    """What `.metadata` says.

    Attributes:
        files: bare file names.
        tensors: every tensor, optimizer states included.
        item_tensor, item_file: per item, index into `tensors` and `files`; int64. Items of one tensor stand together.
        item_offset, item_length: per item, its place in the file, in bytes; int64.
        empty: per item, whether its box has no element: a rank without rows leaves such.
        byte_entries: what is no tensor.
    """

    files: list[str]
    tensors: list[RawTensor]
    item_tensor: Array
    item_file: Array
    item_offset: Array
    item_length: Array
    empty: Array
    byte_entries: list[ByteEntry]
    _boxes: Array  # per item, offsets then lengths, one after another
    _box_start: Array
    _first: Array  # per tensor, its first item; one more at the end

    def chunks(self, tensor: int) -> ChunkColumns:
        """The chunks of a tensor that are stored somewhere. Whether they tile it is for the caller to see."""
        (found,) = self.columns([tensor])
        return found

    def columns(self, tensors: Sequence[int]) -> list[ChunkColumns]:
        """The chunks of each of some tensors that are stored somewhere, and hold something.

        A rank for which no row is left saves an empty chunk, which lies behind the end.
        """
        import numpy as np

        items, first = np.arange(len(self.item_tensor)), self._first
        some_empty = set(self.item_tensor[self.empty].tolist())
        bounds = zip(first[tensors].tolist(), first[1:][tensors].tolist(), strict=True)
        found = []
        for tensor, (a, b), start in zip(tensors, bounds, self._box_start[first[tensors]].tolist(), strict=True):
            rank = len(self.tensors[tensor].shape)
            boxes = self._boxes[start : start + 2 * rank * (b - a)].reshape(b - a, 2, rank)
            chunks = ChunkColumns(boxes, items[a:b])
            found.append(chunks.where(~self.empty[a:b]) if tensor in some_empty else chunks)
        return found

    def items_of(self, tensors: Iterable[int]) -> Array:
        """The items of some tensors that hold something."""
        import numpy as np

        return np.flatnonzero(self.is_of(tensors) & ~self.empty)

    def is_of(self, tensors: Iterable[int]) -> Array:
        """Per item, whether it is one of some tensors."""
        import numpy as np

        chosen = np.zeros(len(self.tensors), bool)
        chosen[list(tensors)] = True
        found: Array = chosen[self.item_tensor]
        return found

    def lengths(self, item: int) -> Shape:
        """The shape of an item's box."""
        start, stop = self._box_start[item : item + 2].tolist()
        return tuple(self._boxes[(start + stop) // 2 : stop].tolist())

    def place(self, item: int) -> tuple[str, int, int]:
        """File name, offset and length of an item."""
        return self.files[self.item_file[item]], int(self.item_offset[item]), int(self.item_length[item])

    @classmethod
    def from_answer(cls, header: Mapping[str, Any], columns: Mapping[str, Array]) -> DcpMetadata:
        """From sandbox_child.Table.

        Raises:
            CorruptError: a file name that is none.
            ValueError, KeyError, TypeError: tables that contradict each other.
        """
        import numpy as np

        files, names, dtypes = header["files"], header["names"], header["dtypes"]
        rank, tensor, file = columns["rank"], columns["tensor"], columns["file"]
        ends = np.concatenate([[0], np.cumsum(rank)])
        box_start = np.concatenate([[0], np.cumsum(2 * rank[tensor])])
        # zip(strict) and these sums are the whole check: the child has checked every value.
        uneven = len({len(columns[name]) for name in ("tensor", "file", "offset", "length")}) != 1
        if (
            uneven
            or ends[-1] != len(columns["shape"])
            or box_start[-1] != len(columns["box"])
            or (np.diff(tensor) < 0).any()
        ):
            raise ValueError
        for name in files:
            check_bare(name)
        shape = columns["shape"].tolist()
        tensors = [
            RawTensor(n, d, tuple(shape[a:b]))
            for n, d, a, b in zip(names, dtypes, ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        ]
        entries = zip(
            header["byte_names"],
            *(columns["byte_" + key].tolist() for key in ("file", "offset", "length")),
            strict=True,
        )
        first = np.searchsorted(tensor, np.arange(len(names) + 1))
        return cls(
            files,
            tensors,
            tensor,
            file,
            columns["offset"],
            columns["length"],
            _empty(columns["box"], box_start),
            [ByteEntry(*e) for e in entries],
            columns["box"],
            box_start,
            first,
        )


def _empty(boxes: Array, start: Array) -> Array:
    """Per box, whether one of its lengths is 0; `start`: where each begins among the numbers, and the last one ends."""
    import numpy as np

    zeros = np.flatnonzero(boxes == 0)
    items = np.searchsorted(start, zeros, "right") - 1
    first, last = start[items], start[items + 1]
    found = np.zeros(len(start) - 1, bool)
    found[items[2 * (zeros - first) >= last - first]] = True  # offsets stand before lengths, and may be 0
    return found


def check_bare(name: str, where: str = ".metadata") -> None:
    """Raises CorruptError unless a name that a file `where` states is that of a file in the same directory."""
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise CorruptError(
            f"{where} names the file {shown(name)!r}, which is not a plain file name",
            "Only files beside it are read.",
        )


def check_files(metadata: DcpMetadata, directory: Path, wanted: Iterable[int]) -> set[int]:
    """Every file that holds an item of a wanted tensor is there, regular, long enough, and opens.

    Args:
        metadata: of the checkpoint.
        directory: that holds `.metadata` and the files.
        wanted: indexes into `metadata.tensors`.

    Returns:
        wanted items in which there is a hole.

    Raises:
        CorruptError: naming the file.
        ReadError: the system does not let it be read.
    """
    import numpy as np

    items = np.flatnonzero(metadata.is_of(wanted))
    items = items[np.argsort(metadata.item_file[items], kind="stable")]
    ends = metadata.item_offset + metadata.item_length
    holed: set[int] = set()
    for held in np.split(items, np.flatnonzero(np.diff(metadata.item_file[items])) + 1) if len(items) else ():
        path = directory / metadata.files[metadata.item_file[held[0]]]
        with _checked(path, int(ends[held].max()), len(held)) as file:
            if is_sparse(fd := file.fileno()):
                holed.update(item for item in held.tolist() if has_hole(fd, *metadata.place(item)[1:]))
    return holed


@contextmanager
def _checked(path: Path, end: int, count: int) -> Iterator[BinaryIO]:
    """A file of `count` items that reach up to byte `end`, open; errors as `check_files`."""
    found = status(path)
    if found is None:
        what = f"{shown(path.name)} is missing: {count} pieces of the model are in it"
        raise CorruptError(what, "Is the checkpoint complete? Copy the missing file.")
    if not stat.S_ISREG(found.st_mode):
        raise CorruptError(f"{shown(path.name)} is not a regular file", "Is the checkpoint complete?")
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < end:
            raise CorruptError(
                f"{shown(path.name)} is cut short: {size} bytes, where .metadata says at least {end}",
                "Copy the file again.",
            )
        yield file


def read_dcp_metadata(directory: Path) -> DcpMetadata:
    """The tables of a DCP or torch_dist checkpoint.

    Args:
        directory: holds `.metadata`.

    Raises:
        CorruptError: not there, hostile, damaged, or naming files outside the directory.
        ReadError: the system does not let it be read.
    """
    path = directory / ".metadata"
    with opened(path) as file, naming(file_name(path)):
        header, columns = ask("dcp", file, 0, os.fstat(file.fileno()).st_size, None)
    try:
        return DcpMetadata.from_answer(header, columns)
    except (KeyError, TypeError, ValueError, IndexError):
        raise CorruptError(f"{file_name(path)} could not be read: its tables contradict each other") from None
