"""What every distributed checkpoint of torch (DCP) has in common, read: torch_dist.py and plain.py open them.

`.metadata` says which chunk of which tensor is which item of which `.distcp` file; an item is a torch.save zip of one
tensor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import CorruptError, NotACheckpoint, UnsupportedError, naming, shown, shown_path
from ...tensors.dtypes import FLOATS
from ...tensors.sharding import Split
from ...tensors.spec import TensorSpec
from ...tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from ..chunks import Chunk, ChunkReader, Extent
from ..columns import begins_on
from ..holes import find_holes
from ..keys import Stored, canonical, ignorable, in_pieces, kind_of_ignored
from ..open_files import OpenFiles, is_file
from ..opened import Opened, no_cuts
from ..pickles.sandbox import plain_dict
from ..sums.replicas import check_tied_copy
from ..zips.read import find_tensor
from ..zips.torch_save import read_torch_save
from .copies import check_copies
from .integrity import read_integrity
from .metadata import DcpMetadata, check_files, read_dcp_metadata
from .places import check_apart, unclaimed

Chunks = Mapping[str, Sequence[Chunk]]
Placed = Callable[[Mapping[str, TensorSpec], Chunks, Mapping[str, Split]], Chunks]
"""Given all tensors, their chunks and how ranks cut them: the chunks, put where they belong."""

_OWN = re.compile(r"\.metadata|metadata\.json|common\.pt|integrity\.json|__\d+_\d+\.distcp", re.ASCII)


def owns(entry: Path) -> bool:
    """Whether something in a distributed checkpoint's directory is part of it."""
    return is_file(entry) and _OWN.fullmatch(entry.name) is not None


def finished_metadata(directory: Path) -> DcpMetadata:
    """The tables of a checkpoint whose save came to its end.

    Raises:
        NotACheckpoint: the save was never finished.
        CorruptError: they are damaged or hostile.
        ReadError: the system does not let them be read.
    """
    if not is_file(directory / ".metadata"):
        raise unfinished(directory, ".metadata")
    return read_dcp_metadata(directory)


def unfinished(directory: Path, missing: str) -> NotACheckpoint:
    """The refusal of a save that lacks a file that is written last."""
    hint = "The save was interrupted before it was complete: use another checkpoint."
    return NotACheckpoint(f"{shown_path(directory)}: {missing} is missing", hint)


def weights(metadata: DcpMetadata) -> list[int]:
    """Which of `metadata.tensors` may be weights of the model."""
    return [i for i, tensor in enumerate(metadata.tensors) if not ignorable(tensor.name)]


def open_dcp(
    directory: Path, metadata: DcpMetadata, format: str, placed: Placed | None = None, *, tied_copy: bool = False
) -> Opened:
    """Open a distributed checkpoint: check that its files are there; no tensor is read.

    Args:
        directory: holds `.metadata`.
        metadata: its tables.
        format: its name, a key of FORMATS.
        placed: puts chunks where they belong; None: they are there.
        tied_copy: see Opened.

    Raises:
        CorruptError: files are damaged or missing.
        UnsupportedError: tensors that are no plain floats, or sums of another kind.
        ReadError: the system does not let a file be read.
    """
    kinds = [kind_of_ignored(tensor.name) for tensor in metadata.tensors]
    wanted = [number for number, kind in enumerate(kinds) if not kind]
    ignored = Counter(kinds) + Counter(kind_of_ignored(entry.name) or "other" for entry in metadata.byte_entries)
    del ignored[""]
    places = check_apart(metadata)
    holed = check_files(metadata, directory, wanted)
    stored = _stored(metadata, wanted)
    specs, chunks = canonical(stored)
    files = OpenFiles()
    locate = _Locate(metadata, directory, files)

    def assemble(splits: Mapping[str, Split]) -> ChunkReader:
        items = metadata.items_of(wanted)
        check_copies(metadata, items, locate, files)
        ordered = placed(specs, chunks, splits) if placed else chunks
        holes = find_holes(map(locate, sorted(holed.intersection(items.tolist()))), files) if holed else ()
        return _assembled(ChunkReader(specs, ordered, locate, files, holes), splits)

    return Opened(
        format=format,
        directory=directory,
        specs=specs,
        assemble=assemble,
        ignored=dict(ignored),
        form=_form(stored),
        args=lambda: stated_args(directory, metadata),
        tied_copy=tied_copy,
        sectioned=in_pieces(stored, specs),
        unclaimed=unclaimed(metadata, places, directory, wanted),
        integrity=read_integrity(directory),
        cuts=no_cuts if placed else lambda name, axis: begins_on(chunks[name], axis),
    )


def _assembled(reader: ChunkReader, splits: Mapping[str, Split]) -> ChunkReader:
    """The reader.

    An output layer that is not wanted is a tied model's copy of the embedding, which FSDP2 trainers save too, and must
    equal it.
    """
    copy = next((name for name in reader.specs if name.endswith(OUTPUT_LAYER) and name not in splits), None)
    embedding = next((name for name in splits if name.endswith(EMBEDDING)), None)
    if copy and embedding:
        check_tied_copy(reader, embedding, copy)
    return reader


def _stored(metadata: DcpMetadata, wanted: list[int]) -> list[Stored]:
    found = []
    for index, chunks in zip(wanted, metadata.columns(wanted), strict=True):
        name, dtype, shape = metadata.tensors[index]
        if dtype not in FLOATS:
            raise UnsupportedError(
                f"{shown(name)} has dtype {shown(dtype)}",
                "Only plain, unquantised floating-point weights are converted.",
            )
        found.append(Stored(TensorSpec(name, shape, dtype), chunks))
    return found


class _Locate:
    """Item number -> where its bytes lie: parses the item's zip directory when the item is first read."""

    def __init__(self, metadata: DcpMetadata, directory: Path, files: OpenFiles) -> None:
        self._metadata, self._directory, self._files = metadata, directory, files

    def __call__(self, item: int) -> Extent:
        name, offset, length = self._metadata.place(item)
        spec, lengths = self._metadata.tensors[self._metadata.item_tensor[item]], self._metadata.lengths(item)
        path = self._directory / name
        with (
            self._files.held(str(path)) as fd,
            naming(f"{shown(path)}: the item of {shown(spec.name)} at byte {offset}"),
        ):
            found = find_tensor(fd, offset, length)
        if found.dtype != spec.dtype or found.shape != lengths:
            raise CorruptError(
                f"{shown(path)}: an item of {shown(spec.name)} is {found.dtype} {list(found.shape)} where .metadata "
                f"states {spec.dtype} {list(lengths)}",
                "The file is damaged, or belongs to another checkpoint.",
            )
        return Extent(str(path), found.data_offset, found.nbytes, found.crc)


def _form(stored: list[Stored]) -> str:
    stacked = any(tensor.how.stacked for tensor in stored)
    singles = any(tensor.how.half or tensor.how.expert is not None for tensor in stored)
    return ("layers stacked" if stacked else "one key per layer") + (", singleton shards" if singles else "")


def stated_args(directory: Path, metadata: DcpMetadata) -> dict[str, Any]:
    """`args` of common.pt or, where that is gone, of the object among the items; {} where there are none."""
    common = directory / "common.pt"
    if is_file(common):
        tree = read_torch_save(common).tree
        return plain_dict(tree.get("args")) if isinstance(tree, dict) else {}
    for entry in metadata.byte_entries:
        if entry.name.split("/")[0] in ("common_state", "args"):
            tree = read_torch_save(directory / metadata.files[entry.file], entry.offset, entry.length).tree
            if isinstance(tree, list) and len(tree) == 1:  # as megatron-core keeps every object
                (tree,) = tree
            found = plain_dict(tree.get("args")) if isinstance(tree, dict) else plain_dict(tree)
            if found:
                return found
    return {}
