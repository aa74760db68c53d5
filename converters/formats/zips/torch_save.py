"""torch.save files: their value as plain data, and where the numbers of their tensors lie.

Only data.pkl is read, whatever the file's size.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ...errors import CorruptError, UnsupportedError, naming
from ..open_files import file_name, opened
from ..pickles.closed_unpickler import TensorRef
from ..pickles.sandbox import Instance, Plain, ask, decoded
from .read import ItemTensor, Member, check_byteorder, find_members, place


class References(NamedTuple):
    """What in a value refers to its file's storages.

    Attributes:
        tensors: each, and where it is: "model.decoder.weight", "optimizer.state[3].exp_avg".
        storages: keys of what may be storages without a tensor.
    """

    tensors: list[tuple[str, TensorRef]]
    storages: set[str]


class SavedObject(NamedTuple):
    """A torch.save file.

    Its value with TensorRefs for tensors, and the zip's members ("data/<key>" are the storages).
    """

    tree: Plain
    members: dict[str, Member]

    def tensor(self, ref: TensorRef) -> ItemTensor:
        """Where a tensor's bytes are in the file. Errors as zips.place."""
        return place(ref, self.members)

    def references(self) -> References:
        """All that refers to storages, anywhere in the value."""
        found = References([], set())
        _collect(self.tree, "", found)
        return found

    def unclaimed(self, found: References) -> int:
        """Bytes of the storages that nothing in the value refers to, given all that does."""
        claimed = found.storages.union(ref.key for _, ref in found.tensors)
        return sum(
            member.nbytes
            for name, member in self.members.items()
            if name.startswith("data/") and name.removeprefix("data/") not in claimed
        )


def _collect(value: Plain, path: str, found: References) -> None:
    """Note what in a value refers to storages."""
    if isinstance(value, TensorRef):
        found.tensors.append((path, value))
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, (tuple, list, dict)):
                _collect(inner, f"{path}.{key}" if path else str(key), found)
    elif isinstance(value, Instance):
        for inner in value[1:]:
            _collect(inner, path, found)
    elif isinstance(value, (tuple, list)):
        if len(value) == 3 and isinstance(value[0], str) and type(value[2]) is int:
            found.storages.add(value[0])  # a storage is a tuple of its key, its dtype and its elements
        for at, inner in enumerate(value):
            if isinstance(inner, (tuple, list, dict)):
                _collect(inner, f"{path}[{at}]", found)


def read_torch_save(path: Path, offset: int = 0, length: int | None = None) -> SavedObject:
    """What torch.save wrote, without the numbers of its tensors: only data.pkl is read, whatever the file's size.

    Args:
        path: the file.
        offset: where in the file the zip begins.
        length: its bytes; None: to the end of the file.

    Raises:
        CorruptError: not there, hostile or damaged.
        ReadError: the system does not let it be read.
        UnsupportedError: a file of torch before 1.6, a big-endian machine, or a compressed zip.
    """
    with opened(path) as file, naming(file_name(path)):
        size = os.fstat(file.fileno()).st_size
        length = size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > size:
            raise CorruptError(f"is {size} bytes long, too short for an item of {length} bytes at {offset}")
        start = os.pread(file.fileno(), 2, offset)
        if start[:1] == b"\x80" and length > 2:
            raise UnsupportedError(
                "is a torch.save file of the form before torch 1.6, which is no zip",
                "Load it in torch and save it again.",
            )
        members = find_members(file.fileno(), offset, length)
        check_byteorder(members, file.fileno())
        pickled = members.get("data.pkl")
        if pickled is None:
            raise CorruptError("is a zip, but not one of torch.save: it has no data.pkl")
        header, _ = ask("tree", file, *pickled)
    try:
        return SavedObject(decoded(header["tree"]), members)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError):
        raise CorruptError(f"{file_name(path)} could not be read") from None
