"""DCP's `.metadata`: the records of torch.distributed.checkpoint, pickled without torch and without an object for each.

By protocol 4, opcode for opcode what Python's own pickler writes of torch's records, but for the memo: that notes every
object, and whoever loads it keeps them all until its end. Here only what comes again is noted.

There may be hundreds of thousands of chunks: each costs a few microseconds and nothing that stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from ...tensors.spec import Shape
from .opcodes import LAYOUT, RECORDS, SIZE, STORAGE_INFO, batches, halves, integer, numbered, short_text, tuple_of

FRAME = 64 << 10
"""Bytes after which a frame ends, as in Python's pickler. A reader takes a frame at a time."""


class Place(NamedTuple):
    """Where an item lies: the file's name beside `.metadata`, the first byte in it and how many there are."""

    file: str
    offset: int
    nbytes: int


class StoredChunk(NamedTuple):
    """A chunk, in elements of its tensor, and its item."""

    offsets: Shape
    sizes: Shape
    place: Place


class StoredKey(NamedTuple):
    """A tensor and the chunks that it consists of."""

    name: str
    dtype: str
    shape: Shape
    chunks: Sequence[StoredChunk]


class StoredBytes(NamedTuple):
    """An entry that is no tensor, and its item."""

    name: str
    place: Place


def dcp_pickle(keys: Sequence[StoredKey], entries: Sequence[StoredBytes], version: str) -> bytes:
    """A `.metadata` that torch's own reader takes for its own.

    What torch's writer says of the run that saved (its path and a random id) is None: the same input gives the same
    bytes.

    Args:
        keys: the tensors.
        entries: what is there besides. No two of all these have one name.
        version: what `.metadata` states of its own form. torch before 2.9 has no such field, and takes it as an
            attribute more.
    """
    out, stored = _Writer(), chain[StoredKey | StoredBytes](keys, entries)
    out.write(out.record("Metadata"), b"}(", out.text("state_dict_metadata"), b"}")
    for before, batch, behind in batches(stored, b"su"):
        out.write(before)
        for entry in batch:
            _write_entry(out, entry)
        out.write(behind)
    out.write(out.text("planner_data"), b"N", out.text("storage_data"), b"}")
    for before, places, behind in batches(_places(keys, entries), b"su"):
        out.write(before)
        for name, number, offsets, place in places:
            _write_index(out, name, number, offsets)
            _write_place(out, place)
        out.write(behind)
    out.write(out.text("storage_meta"), out.record("StorageMeta"), b"}(")
    out.write(out.text("checkpoint_id"), b"N", out.text("save_id"), b"N", out.text("load_id"), b"N")
    out.write(out.text("modules"), b"]ub", out.text("version"), out.text(version), b"ub")
    return out.pickled()


def _write_entry(out: _Writer, entry: StoredKey | StoredBytes) -> None:
    """A name of the state dict, and what there is of it."""
    out.write(out.text(entry.name))
    if isinstance(entry, StoredBytes):
        out.write(out.record("BytesStorageMetadata"))
        return
    out.write(out.record("TensorStorageMetadata"), b"}(")
    # dtype, layout, requires_grad, memory format, pin_memory
    out.write(out.text("properties"), out.record("TensorProperties"), b"(", out.name(f"torch {entry.dtype}"))
    out.write(out.strided(), b"\x89", out.contiguous(), b"\x89tb")
    out.write(out.text("size"), out.size(entry.shape), out.text("chunks"), b"]")
    for before, batch, behind in batches(entry.chunks, b"ae"):
        out.write(before)
        for offsets, sizes, _ in batch:
            out.write(
                *(out.record("ChunkStorageMetadata"), b"}("),
                *(out.text("offsets"), out.size(offsets), out.text("sizes"), out.size(sizes), b"ub"),
            )
        out.write(behind)
    out.write(b"ub")


def _places(
    keys: Iterable[StoredKey], entries: Iterable[StoredBytes]
) -> Iterator[tuple[str, bytes, Shape | None, Place]]:
    """Of each item its key, which of the chunks it is, that one's offsets, and where it lies."""
    for key in keys:
        for number, (offsets, _, place) in enumerate(key.chunks):
            yield key.name, integer(number), offsets, place
    for entry in entries:
        yield entry.name, b"N", None, entry.place


def _write_index(out: _Writer, name: str, number: bytes, offsets: Shape | None) -> None:
    offset = (out.text("offset"), out.size(offsets)) if offsets is not None else ()
    out.write(
        *(out.record("MetadataIndex"), b"}(", out.text("fqn"), out.text(name), out.text("index"), number),
        *offset,
        b"ub",
    )


def _write_place(out: _Writer, place: Place) -> None:
    out.write(
        *(out.name(STORAGE_INFO), b")\x81}(", out.text("relative_path"), out.text(place.file)),
        *(out.text("offset"), integer(place.offset), out.text("length"), integer(place.nbytes), b"ub"),
    )


class _Writer:
    """A pickle in the making, in frames.

    `write` takes whole opcodes; all other methods give those that put something on the stack. What comes again is noted
    in the memo, the first time.
    """

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._frame = bytearray()
        self._noted: dict[tuple[str, ...] | str, bytes] = {}  # a text, or a name in a tuple -> how it is got again

    def write(self, *pieces: bytes) -> None:
        """Adds to the pickle."""
        self._frame += b"".join(pieces)
        if len(self._frame) >= FRAME:
            self._end_frame()

    def pickled(self) -> bytes:
        """All of it."""
        self.write(b".")
        self._end_frame()
        return b"\x80\x04" + b"".join(self._frames)

    def _end_frame(self) -> None:
        if self._frame:
            self._frames += (b"\x95" + len(self._frame).to_bytes(8, "little"), bytes(self._frame))
            self._frame.clear()

    def _note(self, key: tuple[str, ...] | str, written: bytes) -> bytes:
        """BINPUT or LONG_BINPUT behind it; BINGET or LONG_BINGET from now on."""
        number = len(self._noted)
        self._noted[key] = numbered(b"hj", number)
        return written + numbered(b"qr", number)

    def text(self, value: str) -> bytes:
        """A text that comes again."""
        return self._noted.get(value) or self._note(value, short_text(value))

    def name(self, full: str) -> bytes:
        """STACK_GLOBAL of one of opcodes.GLOBALS."""
        return self._noted.get((full,)) or self._named(full)

    def _named(self, full: str) -> bytes:
        module, inner = halves(full)
        return self._note((full,), self.text(module) + short_text(inner) + b"\x93")

    def record(self, name: str) -> bytes:
        """One of DCP's records, without its attributes: NEWOBJ."""
        return self.name(f"{RECORDS} {name}") + b")\x81"

    def size(self, shape: Shape) -> bytes:
        """A torch.Size: REDUCE."""
        return self.name(SIZE) + _reduced(shape)

    def strided(self) -> bytes:
        """torch.strided."""
        return self._noted.get(("strided",)) or self._note(
            ("strided",), self.name(LAYOUT) + tuple_of(short_text("torch.strided")) + b"R"
        )

    def contiguous(self) -> bytes:
        """What DCP pickles instead of torch.contiguous_format."""
        return self._noted.get(("contiguous",)) or self._note(
            ("contiguous",), self.name(f"{RECORDS} _MEM_FORMAT_ENCODING") + tuple_of(integer(0)) + b"R"
        )


@lru_cache(4096)  # chunks have few shapes, and each offset comes twice
def _reduced(shape: Shape) -> bytes:
    return tuple_of(tuple_of(*map(integer, shape))) + b"R"
