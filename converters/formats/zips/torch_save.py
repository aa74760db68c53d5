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
from ..pickles.sandbox import Plain, ask, decoded
from .read import ItemTensor, Member, check_byteorder, find_members, place


class SavedObject(NamedTuple):
    """A torch.save file.

    Its value with TensorRefs for tensors, and the zip's members ("data/<key>" are the storages).
    """

    tree: Plain
    members: dict[str, Member]

    def tensor(self, ref: TensorRef) -> ItemTensor:
        """Where a tensor's bytes are in the file. Errors as zips.place."""
        return place(ref, self.members)


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
