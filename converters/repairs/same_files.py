"""The files of a Hugging Face directory, planned again as they are: names, headers and places, byte for byte."""

from __future__ import annotations

from pathlib import Path

from ..formats import safetensors
from ..formats.open_files import is_file, opened
from ..formats.output_file import OutFile, Piece, small_file
from ..tensors.spec import whole


def same_files(directory: Path) -> list[OutFile]:
    """The files of weights, whose tensors may hold other numbers, their index, and config.json.

    Raises:
        CorruptError, ReadError: as opening them does.
    """
    index = directory / safetensors.INDEX
    names = sorted(set(safetensors.read_index(index).values())) if is_file(index) else [safetensors.SINGLE]
    beside = ["config.json", *([safetensors.INDEX] if is_file(index) else [])]
    return [_weights(directory / name) for name in names] + [_document(directory / name) for name in beside]


def _weights(path: Path) -> OutFile:
    found = safetensors.read_header(path)
    with opened(path) as file:
        begin = 8 + int.from_bytes(file.read(8), "little")
        file.seek(0)
        header = file.read(begin)
    pieces = [Piece(whole(spec), extent.offset) for spec, extent in found]
    pieces.sort(key=lambda piece: piece.offset)
    size = begin + sum(extent.nbytes for _, extent in found)
    return OutFile(path.name, size, pieces, [(0, header)])


def _document(path: Path) -> OutFile:
    with opened(path) as file:
        data = file.read()
    return small_file(path.name, data)
