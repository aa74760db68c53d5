"""The weights of a reference: seldom wanted, so only the files are had that hold what is asked for.

Of a hub id they are fetched into the Hub's cache, at the revision that config.json is from; dtypes alone come out of
the files' headers, a few KB of each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import CorruptError, ReferenceFault, shown, shown_path
from ..formats.chunks import ChunkReader, Extent, dense
from ..formats.holes import find_holes
from ..formats.json_file import TABLE, read_json
from ..formats.open_files import OpenFiles, is_file
from ..formats.safetensors import DTYPES, INDEX, SINGLE, read_header
from ..hub.fetch import first_line
from ..tensors.dtypes import FLOATS
from ..tensors.spec import Shape, TensorSpec
from .reference import Reference

OFFLINE = "Pass --reference with a directory that has them, or fetch them beforehand where there is a network."


@dataclass(frozen=True)
class ReferenceWeights:
    """The weights of a reference, by name.

    Attributes:
        directory: where the files are, or come to be.
        placed: tensor -> the file that holds it.
        fetch: makes a file be there; ReferenceFault where it cannot be had.
    """

    directory: Path
    placed: Mapping[str, str]
    fetch: Callable[[str], None]

    def open(self, names: Collection[str]) -> ChunkReader:
        """A reader of some of the tensors.

        Args:
            names: of `placed`.

        Raises:
            ReferenceFault: a file cannot be fetched.
            CorruptError: a file is missing, truncated or malformed, or does not hold what the index places there.
        """
        found = self._headers(names)
        extents = [extent for _, extent in found.values()]
        chunks = {name: [dense(spec, item)] for item, (name, (spec, _)) in enumerate(found.items())}
        files = OpenFiles()
        specs = {name: spec for name, (spec, _) in found.items()}
        return ChunkReader(specs, chunks, extents.__getitem__, files, find_holes(extents, files))

    def files(self, names: Collection[str]) -> list[Path]:
        """The files that hold some of the tensors."""
        return [self.directory / file for file in sorted({self.placed[name] for name in names})]

    def dtypes(self, names: Collection[str]) -> dict[str, str]:
        """The dtypes of some of the tensors, of files that are here."""
        return {name: spec.dtype for name, (spec, _) in self._headers(names).items()}

    def _headers(self, names: Collection[str]) -> dict[str, tuple[TensorSpec, Extent]]:
        there: dict[str, tuple[TensorSpec, Extent]] = {}
        for path in self.files(names):
            if not is_file(path):
                self.fetch(path.name)
            there |= {spec.name: (spec, extent) for spec, extent in read_header(path)}
        for name in names:
            if name not in there:
                where = shown_path(self.directory / self.placed[name])
                raise CorruptError(
                    f"{where}: lacks {shown(name)}, which {INDEX} places there", "The download or save is incomplete."
                )
        return {name: there[name] for name in names}


def weights_of(reference: Reference) -> ReferenceWeights | None:
    """The weights of a reference; None where it has none in safetensors files.

    Raises:
        ReferenceFault: the Hub cannot be reached, and the cache does not say.
        CorruptError: its index is damaged or hostile.
    """
    directory = reference.directory
    if directory is None:
        return None
    fetch = _fetching(reference) if reference.hub_id else _missing(directory)
    here = is_file(directory / INDEX) or is_file(directory / SINGLE)
    if reference.hub_id and not here and not _there(lambda: fetch(INDEX)):
        _there(lambda: fetch(SINGLE))
    if is_file(directory / INDEX):
        return ReferenceWeights(directory, _weight_map(directory / INDEX), fetch)
    if is_file(directory / SINGLE):
        return ReferenceWeights(directory, {spec.name: SINGLE for spec, _ in read_header(directory / SINGLE)}, fetch)
    return None


def header_specs(reference: Reference) -> dict[str, TensorSpec]:
    """Every tensor of a reference's weights, from files' headers alone; of a hub id those are all that is fetched.

    Raises:
        ReferenceFault: it has no safetensors weights, or the Hub does not give their headers.
        CorruptError: a file is missing or damaged.
    """
    directory = reference.directory
    if directory and (not reference.hub_id or is_file(directory / INDEX) or is_file(directory / SINGLE)):
        weights = weights_of(reference)
        if weights and all(is_file(path) for path in weights.files(weights.placed)):
            return {name: spec for name, (spec, _) in weights._headers(weights.placed).items()}
    if reference.hub_id:
        return _remote_headers(reference)
    raise ReferenceFault(
        f"the reference {shown_path(directory or reference.said)} has not all of its safetensors weights",
        "Their headers are needed: give a complete directory, or a hub id.",
    )


def _remote_headers(reference: Reference) -> dict[str, TensorSpec]:
    from huggingface_hub import HfApi

    try:
        found = HfApi().get_safetensors_metadata(reference.hub_id, revision=_revision(reference))
        return {
            name: TensorSpec(name, _shape(entry.shape), DTYPES[entry.dtype])
            for file in found.files_metadata.values()
            for name, entry in file.tensors.items()
        }
    except Exception as error:  # a Hub out of reach, or a repository of other weights
        raise ReferenceFault(
            f"the headers of the weights of {shown(reference.hub_id)} could not be had: {first_line(error)}", OFFLINE
        ) from error


def _shape(stated: Sequence[object]) -> Shape:
    sizes = tuple(size for size in stated if type(size) is int and size >= 0)
    if sizes != tuple(stated):
        raise ValueError(f"{shown(stated)} is no shape")
    return sizes


def reference_names(reference: Reference) -> Collection[str]:
    """The names of a reference's tensors, as far as they are at hand: from its index, or its one file's header."""
    try:
        weights = weights_of(reference)
    except ReferenceFault:  # out of reach: nothing is known
        return ()
    return weights.placed if weights else ()


class Dtypes(NamedTuple):
    """The dtypes of a reference's tensors.

    Attributes:
        found: of those that it has.
        why_not: why nothing is known; "" where something is, or where nothing was to be had.
    """

    found: Mapping[str, str]
    why_not: str = ""


def reference_dtypes(reference: Reference, names: Collection[str]) -> Dtypes:
    """The dtypes of some tensors in a reference's weights, as far as they are at hand: from files' headers alone.

    Errors as those of damaged files; that the Hub is out of reach is none.
    """
    directory = reference.directory
    if directory is None or not names:
        return Dtypes({})
    if not reference.hub_id or is_file(directory / INDEX) or is_file(directory / SINGLE):
        weights = weights_of(reference)
        wanted = [name for name in names if weights and name in weights.placed]
        if weights is None or all(is_file(path) for path in weights.files(wanted)):
            return Dtypes(_plain(weights.dtypes(wanted)) if weights else {})
    return _remote_dtypes(reference, names) if reference.hub_id else Dtypes({}, "files of its weights are missing")


def _remote_dtypes(reference: Reference, names: Collection[str]) -> Dtypes:
    from huggingface_hub import HfApi

    try:
        found = HfApi().get_safetensors_metadata(reference.hub_id, revision=_revision(reference))
        places = {name: found.files_metadata[found.weight_map[name]] for name in names if name in found.weight_map}
        return Dtypes(_plain({name: DTYPES[place.tensors[name].dtype] for name, place in places.items()}))
    except Exception as error:  # a Hub out of reach, or a repository of other weights: then nothing is known
        return Dtypes({}, first_line(error))


def _plain(dtypes: Mapping[str, str]) -> dict[str, str]:
    """Those of quantised weights are no dtypes to write."""
    return {name: dtype for name, dtype in dtypes.items() if dtype in FLOATS}


def _weight_map(path: Path) -> dict[str, str]:
    """The index of sharded weights: tensor -> file."""
    found = read_json(path, TABLE).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise CorruptError(f"{shown_path(path)}: no weight_map", "The index is damaged.")
    for file in set(found.values()):
        if "/" in file or "\0" in file or not file.endswith(".safetensors"):
            raise CorruptError(
                f"{shown_path(path)}: names a file that is no safetensors file beside it: {shown(file)}",
                "The index is damaged or hostile; nothing was read.",
            )
    return found


def _missing(directory: Path) -> Callable[[str], None]:
    def fetch(file: str) -> None:
        raise CorruptError(
            f"{shown_path(directory / file)}: missing, though {INDEX} names it", "The download or save is incomplete."
        )

    return fetch


def _revision(reference: Reference) -> str | None:
    """The commit of a snapshot in the Hub's cache, so that weights and config.json are of one; else what was asked."""
    directory = reference.directory
    return directory.name if directory and directory.parent.name == "snapshots" else reference.revision


def _fetching(reference: Reference) -> Callable[[str], None]:
    """Fetches a file into the cache, where config.json is; an absent one is an EntryNotFoundError."""

    def fetch(file: str) -> None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            hf_hub_download(reference.hub_id, file, revision=_revision(reference))
        except LocalEntryNotFoundError as error:
            raise ReferenceFault(
                f"{shown(file)} of {shown(reference.hub_id)} is not in the local cache, and the Hub cannot be reached: "
                f"{first_line(error)}",
                OFFLINE,
            ) from error
        except EntryNotFoundError:
            raise
        except Exception as error:
            raise ReferenceFault(
                f"{shown(file)} of {shown(reference.hub_id)} could not be fetched: {first_line(error)}", OFFLINE
            ) from error

    return fetch


def _there(fetch: Callable[[], None]) -> bool:
    """Whether the repository has a file at all, which is then here."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        fetch()
    except EntryNotFoundError:
        return False
    return True
