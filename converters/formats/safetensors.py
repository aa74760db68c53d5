"""safetensors: the files of a Hugging Face model directory, read and planned.

A file is: u64 little-endian header length, the header (JSON: name -> dtype, shape, data_offsets), the tensors' row-
major bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from ..errors import CorruptError, NotACheckpoint, UnsupportedError, shown, shown_path
from ..tensors.dtypes import ITEMSIZE
from ..tensors.spec import TensorSpec, whole
from ..tensors.tiling import tiling_fault
from .chunks import ChunkReader, Extent, dense
from .holes import find_holes
from .json_file import TABLE, parse_json, read_json
from .open_files import OpenFiles, is_file, opened
from .output_file import OutFile, Piece, small_file

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}
_CODES = {name: code for code, name in DTYPES.items()}

MOST_AXES = 64
"""torch's own limit. Sizes are multiplied, so their number is bounded before."""


def holds(directory: Path) -> bool:
    """Whether a directory looks like a Hugging Face model with safetensors weights."""
    return is_file(directory / INDEX) or is_file(directory / SINGLE)


def not_there(directory: Path) -> list[str]:
    """Files of weights that a model directory lacks: those that its index names, or the single one.

    Raises:
        CorruptError: its index is damaged.
    """
    if is_file(directory / SINGLE) and not is_file(directory / INDEX):
        return []
    names = read_index(directory / INDEX) if is_file(directory / INDEX) else {"": SINGLE}
    return [file for file in sorted(set(names.values())) if not is_file(directory / file)]


def open_hf(directory: Path) -> ChunkReader:
    """A reader of all tensors of a model directory.

    Raises:
        NotACheckpoint: no safetensors weights there.
        CorruptError: a file that the index names is missing, truncated or malformed, or disagrees with the index.
        ReadError: the system does not let a file be read.
    """
    if is_file(directory / INDEX):
        placed = _weight_map(directory)
    elif is_file(directory / SINGLE):
        placed = None
    else:
        raise NotACheckpoint(
            f"{shown_path(directory)}: neither {INDEX} nor {SINGLE}", "Give a directory with safetensors weights."
        )
    specs: dict[str, TensorSpec] = {}
    extents: list[Extent] = []
    for file in sorted(set(placed.values())) if placed is not None else [SINGLE]:
        for spec, extent in read_header(directory / file):
            if placed is not None and placed.get(spec.name) != file:
                raise CorruptError(
                    f"{shown_path(directory / file)}: holds {shown(spec.name)}, which {INDEX} does not place there",
                    "Index and weights belong to different models.",
                )
            specs[spec.name] = spec
            extents.append(extent)
    for name, file in (placed or {}).items():
        if name not in specs:
            raise CorruptError(
                f"{shown_path(directory / file)}: lacks {shown(name)}, which {INDEX} places there",
                "The download or save is incomplete.",
            )
    return _reader(specs, extents)


def open_file(path: Path) -> ChunkReader:
    """A reader of all tensors of one file. Errors as `read_header`."""
    found = read_header(path)
    return _reader({spec.name: spec for spec, _ in found}, [extent for _, extent in found])


def _reader(specs: Mapping[str, TensorSpec], extents: Sequence[Extent]) -> ChunkReader:
    """Of tensors that lie in an item each, in order."""
    chunks = {spec.name: [dense(spec, item)] for item, spec in enumerate(specs.values())}
    files = OpenFiles()
    return ChunkReader(specs, chunks, extents.__getitem__, files, find_holes(extents, files))


def open_files_of(files: Iterable[Path]) -> ChunkReader:
    """A reader of the tensors of some files, whatever an index says of them. Errors as `read_header`."""
    found = [pair for file in dict.fromkeys(files) for pair in read_header(file)]
    specs = {spec.name: spec for spec, _ in found}
    extents = {spec.name: extent for spec, extent in found}
    chunks = {name: [dense(spec, item)] for item, (name, spec) in enumerate(specs.items())}
    return ChunkReader(specs, chunks, [extents[name] for name in specs].__getitem__)


def _weight_map(directory: Path) -> dict[str, str]:
    """The index, whose files are all there."""
    weight_map = read_index(directory / INDEX)
    for file in set(weight_map.values()):
        if not is_file(directory / file):
            raise CorruptError(
                f"{shown_path(directory / file)}: missing, though {INDEX} names it",
                "The download or save is incomplete.",
            )
    return weight_map


def read_index(path: Path) -> dict[str, str]:
    """The index: tensor -> file beside it.

    Raises:
        CorruptError: it is damaged, or names a file outside the directory.
        ReadError: the system does not let it be read.
    """
    weight_map = read_json(path, TABLE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise CorruptError(f"{shown_path(path)}: no weight_map", "The index is damaged.")
    for file in set(weight_map.values()):
        if "/" in file or "\0" in file or file in ("", ".", ".."):
            raise CorruptError(
                f"{shown_path(path)}: names a file outside the directory: {shown(file)}",
                "The index is damaged or hostile; nothing was read.",
            )
    return weight_map


def read_header(path: Path) -> list[tuple[TensorSpec, Extent]]:
    """Every tensor of one safetensors file and where its bytes lie.

    Raises:
        CorruptError: the header is malformed, or the tensors do not fill the file exactly.
        ReadError: the system does not let it be read.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, TABLE.nbytes):
            raise CorruptError(f"{shown_path(path)}: truncated, or no safetensors file", "Download or save it again.")
        header = parse_json(file.read(length), f"{shown_path(path)}: the header", TABLE)
    header.pop("__metadata__", None)
    where, begin = str(path), 8 + length
    found = [_entry(name, entry, where, begin) for name, entry in header.items()]
    fault = tiling_fault((size - 8 - length,), (((e.offset - 8 - length,), (e.nbytes,)) for _, e in found if e.nbytes))
    if fault and size > 8 + length:
        raise CorruptError(
            f"{shown_path(path)}: the tensors {fault}", "The file is truncated or damaged: download or save it again."
        )
    return found


def _entry(name: str, entry: Any, path: str, begin: int) -> tuple[TensorSpec, Extent]:
    try:
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, start, stop)
        sane = (
            type(dtype) is str
            and len(shape) <= MOST_AXES
            and set(map(type, numbers)) == {int}
            and min(numbers) >= 0
            and max(numbers) < 2**63
        )
    except (TypeError, KeyError, ValueError):
        sane, dtype, shape, start, stop = False, "", (), 0, 0
    if not sane:
        raise CorruptError(
            f"{shown_path(path)}: the header entry of {shown(name)} is malformed", "The file is damaged."
        )
    if dtype not in DTYPES:
        raise UnsupportedError(
            f"{shown_path(path)}: {shown(name)} has dtype {shown(dtype)}",
            "Only plain, unquantised weights are converted.",
        )
    spec = TensorSpec(name, shape, DTYPES[dtype])
    nbytes = spec.nbytes
    if stop - start != nbytes:
        raise CorruptError(
            f"{shown_path(path)}: {shown(name)} has {stop - start} bytes where its shape needs {nbytes}",
            "The file is damaged.",
        )
    return spec, Extent(path, begin + start, nbytes)


def plan_hf(specs: Mapping[str, TensorSpec], max_shard_size: int) -> list[OutFile]:
    """The files of a model directory.

    Shards of at most `max_shard_size` bytes of tensors (a larger tensor has its own), and the index.

    Shards follow the order of `specs`; within one, tensors lie in name order, wider dtypes first.
    """
    shards: list[list[TensorSpec]] = [[]]
    room = max_shard_size
    for spec in specs.values():
        if spec.nbytes > room and shards[-1]:
            shards.append([])
            room = max_shard_size
        shards[-1].append(spec)
        room -= spec.nbytes
    if len(shards) == 1:
        return [plan_file(SINGLE, shards[0])]
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    index = {
        "metadata": {
            "total_parameters": sum(prod(s.shape) for s in specs.values()),
            "total_size": sum(s.nbytes for s in specs.values()),
        },
        "weight_map": {spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard},
    }
    data = (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()
    return [*map(plan_file, names, shards), small_file(INDEX, data)]


def plan_file(name: str, specs: Iterable[TensorSpec]) -> OutFile:
    """One file of these tensors, in name order, wider dtypes first."""
    ordered = sorted(specs, key=lambda s: (-ITEMSIZE[s.dtype], s.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for spec in ordered:
        header[spec.name] = {
            "dtype": _CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [at, at + spec.nbytes],
        }
        at += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    pieces, at = [], begin
    for spec in ordered:
        pieces.append(Piece(whole(spec), at))
        at += spec.nbytes
    return OutFile(name, at, pieces, [(0, len(text).to_bytes(8, "little") + text)])
