"""What vlconv.json holds.

It lies in the directory that an output is: a Hugging Face model's, a save directory's, or an iteration's that was added
to one. The same input gives the same text: no time, no random id, no word of where the output lies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import CorruptError
from ..tensors.spec import Shape

FORMAT = 1
"""Of the document. A reader of a later one refuses, rather than to overlook what it does not know."""


class FileSum(NamedTuple):
    """A file of the output.

    Attributes:
        nbytes: its size.
        crc32: of all of it.
        sha256: likewise, in hexadecimal; "" where it was not asked for.
    """

    nbytes: int
    crc32: int
    sha256: str = ""


class Part(NamedTuple):
    """A box of a tensor, where it lies in a file, row by row.

    Attributes:
        tensor: its name.
        dtype: torch's name.
        shape: of the box; most often of the whole tensor.
        begin: the box's first element in the tensor; () where it is the whole tensor.
        file: path below the output.
        offset, nbytes: place in the file.
        crc32: of those bytes.
    """

    tensor: str
    dtype: str
    shape: Shape
    begin: Shape
    file: str
    offset: int
    nbytes: int
    crc32: int


@dataclass(frozen=True)
class Manifest:
    """A whole vlconv.json.

    Attributes:
        made: how the output came about: versions, command, source, decisions, changes. Only for people.
        files: every file of the output but this one and those that a trainer goes on writing.
        parts: what lies in the files of weights.
    """

    made: Mapping[str, Any]
    files: Mapping[str, FileSum]
    parts: Sequence[Part] = field(default_factory=list)

    def text(self) -> str:
        """As it is written: a line for each file and tensor."""
        files = {name: _file(found) for name, found in sorted(self.files.items())}
        tensors = [_part(part) for part in self.parts]
        head = json.dumps({"format": FORMAT, **self.made}, indent=1, ensure_ascii=True)[:-2]
        return (
            f'{head},\n "files": {{\n'
            + ",\n".join(f"  {json.dumps(name)}: {_compact(found)}" for name, found in files.items())
            + '\n },\n "tensors": [\n'
            + ",\n".join(f"  {_compact(found)}" for found in tensors)
            + "\n ]\n}\n"
        )

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str) -> Manifest:
        """From the JSON document.

        Raises:
            CorruptError: it is none; `where` names it.
        """
        if document.get("format") != FORMAT:
            raise CorruptError(
                f"{where} is no manifest of format {FORMAT}", "It was written by another version, or is damaged."
            )
        try:
            files = {name: _file_sum(found) for name, found in document["files"].items()}
            parts = [_read_part(found) for found in document["tensors"]]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CorruptError(f"{where} is damaged: its lists are not as they were written") from None
        made = {key: value for key, value in document.items() if key not in ("format", "files", "tensors")}
        return cls(made, files, parts)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _file(found: FileSum) -> dict[str, Any]:
    hashed = {"sha256": found.sha256} if found.sha256 else {}
    return {"bytes": found.nbytes, "crc32": f"{found.crc32:08x}", **hashed}


def _part(part: Part) -> dict[str, Any]:
    begin = {"begin": list(part.begin)} if part.begin else {}
    return {
        "name": part.tensor,
        "dtype": part.dtype,
        "shape": list(part.shape),
        **begin,
        "file": part.file,
        "offset": part.offset,
        "bytes": part.nbytes,
        "crc32": f"{part.crc32:08x}",
    }


def _file_sum(found: Mapping[str, Any]) -> FileSum:
    return FileSum(_count(found["bytes"]), _sum(found["crc32"]), str(found.get("sha256", "")))


def _read_part(found: Mapping[str, Any]) -> Part:
    shape, begin = (tuple(map(_count, found.get(key, ()))) for key in ("shape", "begin"))
    texts = [found[key] for key in ("name", "dtype", "file")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    name, dtype, file = texts
    return Part(name, dtype, shape, begin, file, _count(found["offset"]), _count(found["bytes"]), _sum(found["crc32"]))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError
    return value


def _sum(value: Any) -> int:
    if not isinstance(value, str) or len(value) != 8:
        raise ValueError
    return int(value, 16)
