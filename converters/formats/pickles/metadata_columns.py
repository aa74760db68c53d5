"""DCP's metadata as columns. Runs in the sandbox's child process: standard library only.

Hundreds of thousands of records lie all over the memory, and to fetch them takes longer than to look at them. So each
is visited once, in the order in which it was read, and a block of them is checked at a time.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from itertools import chain, count, islice, repeat
from operator import attrgetter

from . import closed_unpickler as pickles

TYPE_CHECKING = False
if TYPE_CHECKING:  # the child starts without typing
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from typing import Any

LIMIT = 1 << 62
NO_NUMBER = "holds an offset or a length that is no number"

BLOCK = 2048
"""Records that are checked at a time: they stay in the processor's cache."""


def dcp(value: Any) -> tuple[dict[str, Any], dict[str, array[int]]]:
    """A DCP Metadata as a header and columns of int64.

    Returns:
        names of files, tensors and byte entries, and dtypes; per tensor its rank and shape; per item its tensor, its
        box (offsets, lengths), file, offset and length; per byte entry its file, offset and length.
    """
    if not isinstance(value, pickles.Metadata):
        raise pickles.Refused("is not the metadata of a torch distributed checkpoint")
    entries, storage = value.state_dict_metadata, value.storage_data
    if not isinstance(entries, dict) or not isinstance(storage, dict):
        raise pickles.Refused("lacks its tables: the save was not finished, or another storage wrote it")
    check_texts(entries)
    columns = Columns(Stored(storage))
    tensors = {}
    for name, record in entries.items():
        if isinstance(record, pickles.TensorStorageMetadata):
            tensors[name] = record
        elif isinstance(record, pickles.BytesStorageMetadata):
            columns.byte_entry(name)
        else:
            raise pickles.Refused(f"describes {name} in an unknown way")
    columns.tensors(tensors)
    return columns.header, columns.columns


class Stored:
    """storage_data in its own order.

    Attributes:
        columns: file, offset and length of each place.
        files: name of a file -> its number.
        places: name and offset of a chunk -> its place.
    """

    def __init__(self, storage: dict[Any, Any]) -> None:
        self.columns = {name: array("q") for name in ("file", "offset", "length")}
        self.files: dict[str, int] = {}
        self.places: defaultdict[str, dict[Any, int]] = defaultdict(dict)
        keys, infos, numbers = iter(storage), iter(storage.values()), count()
        while block := list(islice(keys, BLOCK)):
            self._index(block, numbers)
            self._place(list(islice(infos, BLOCK)))
        if sum(map(len, self.places.values())) < len(storage):
            name, _ = twice((index.fqn, index.offset) for index in storage)
            raise pickles.Refused(f"names two places for one chunk of {name}")

    def _index(self, indexes: Sequence[Any], numbers: Iterator[int]) -> None:
        if not set(map(type, indexes)) <= {pickles.MetadataIndex}:
            raise pickles.Refused("keeps its storage places under unknown keys")
        names, offsets = [index.fqn for index in indexes], [index.offset for index in indexes]
        check_texts(names)
        flat([offset for offset in offsets if offset is not None])
        for name, offset, number in zip(names, offsets, numbers):  # noqa: B905
            self.places[name][offset] = number

    def _place(self, infos: Sequence[Any]) -> None:
        if not set(map(type, infos)) <= {pickles.StorageInfo}:
            raise pickles.Refused("names a storage place in an unknown way")
        if any(map(attrgetter("transform_descriptors"), infos)):
            raise pickles.Refused("describes transformed (compressed?) items, which are not read")
        names = [info.relative_path for info in infos]
        check_texts(names)
        for name in dict.fromkeys(names):
            self.files.setdefault(name, len(self.files))
        self.columns["file"].extend(map(self.files.__getitem__, names))
        self.columns["offset"].extend(checked([info.offset for info in infos]))
        self.columns["length"].extend(checked([info.length for info in infos]))


class Columns:
    """Tensors, their chunks, and what is no tensor."""

    def __init__(self, stored: Stored) -> None:
        self._stored, self._places = stored, stored.places
        self.header: dict[str, Any] = {"files": list(stored.files), "names": [], "dtypes": [], "byte_names": []}
        of_bytes = ["byte_" + name for name in stored.columns]
        self.columns = {name: array("q") for name in ("rank", "shape", "tensor", "box", *stored.columns, *of_bytes)}

    def byte_entry(self, name: str) -> None:
        """An entry that is no tensor."""
        found = self._places[name].values()
        self.header["byte_names"] += [name] * len(found)
        self._take("byte_", found)

    def tensors(self, entries: dict[str, Any]) -> None:
        """All tensors, with those of their chunks that lie somewhere."""
        chunks = [self._tensor(*entry) for entry in entries.items()]
        each, numbers = chain.from_iterable(chunks), chain.from_iterable(map(repeat, count(), map(len, chunks)))
        alone = {number for number, listed in enumerate(chunks) if len(listed) == 1}
        while block := list(islice(each, BLOCK)):
            self._chunks(block, list(islice(numbers, BLOCK)), alone)

    def _tensor(self, name: str, record: Any) -> list[Any]:
        """Its chunks."""
        chunks = record.chunks
        if not isinstance(record.properties, pickles.TensorProperties) or not isinstance(chunks, list):
            raise pickles.Refused("describes a tensor in an unknown way")
        shape = _bounded(flat([record.size]))
        self.header["names"].append(name)
        self.header["dtypes"].append(pickles.dtype_name(record.properties.dtype))
        self.columns["rank"].append(len(shape))
        self.columns["shape"].extend(shape)
        return chunks

    def _chunks(self, chunks: Sequence[Any], tensors: Sequence[int], alone: set[int]) -> None:
        if not set(map(type, chunks)) <= {pickles.ChunkStorageMetadata}:
            raise pickles.Refused("describes a chunk in an unknown way")
        boxes = [half for chunk in chunks for half in (chunk.offsets, chunk.sizes)]
        numbers = flat(boxes)
        names = list(map(self.header["names"].__getitem__, tensors))
        ranks = list(map(self.columns["rank"].__getitem__, tensors))
        if not list(map(len, boxes[::2])) == list(map(len, boxes[1::2])) == ranks:
            at = next(at for at, rank in enumerate(ranks) if {*map(len, boxes[2 * at : 2 * at + 2])} != {rank})
            raise pickles.Refused(f"describes a chunk of {names[at]} with another number of axes than the tensor has")
        places = [self._places[name].get(offset) for name, offset in zip(names, boxes[::2], strict=True)]
        if None in places:
            for at, number in enumerate(tensors):
                if places[at] is None and number in alone:  # stored whole, without an offset
                    places[at] = self._places[names[at]].get(None)
            kept = [at for at, place in enumerate(places) if place is not None]
            tensors, places = [tensors[at] for at in kept], [places[at] for at in kept]
            numbers = flat([half for at in kept for half in boxes[2 * at : 2 * at + 2]])
        self.columns["tensor"].extend(tensors)
        self.columns["box"].extend(_bounded(numbers))
        self._take("", places)

    def _take(self, prefix: str, places: Collection[Any]) -> None:
        """File, offset and length of some places."""
        for name, column in self._stored.columns.items():
            self.columns[prefix + name].extend(map(column.__getitem__, places))


def flat(sizes: Sequence[Any]) -> list[int]:
    """The numbers of tuples of non-negative integers; refuses anything else."""
    if set(map(type, sizes)) <= {tuple}:
        numbers = list(chain.from_iterable(sizes))
        if set(map(type, numbers)) <= {int} and min(numbers, default=0) >= 0:
            return numbers
    raise pickles.Refused("a shape is not made of integers")


def checked(values: Sequence[Any]) -> Sequence[int]:
    """Places and lengths in a file; refuses what is no non-negative integer, or too large for one."""
    if not set(map(type, values)) <= {int} or min(values, default=0) < 0:
        raise pickles.Refused(NO_NUMBER)
    return _bounded(values)


def _bounded(values: Sequence[int]) -> Sequence[int]:
    if max(values, default=0) >= LIMIT:
        raise pickles.Refused(NO_NUMBER)
    return values


def check_texts(values: Iterable[Any]) -> None:
    """Refuses a value that is no text."""
    if not all(issubclass(kind, str) for kind in set(map(type, values))):
        raise pickles.Refused("holds a name that is no text")


def twice(values: Iterable[Any]) -> Any:
    """The first value that comes again."""
    seen: set[Any] = set()
    return next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
