"""A directory that another tool wrote, as loaders find it: what is damaged is a finding, and the rest is read on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import CorruptError, SourceError, shown
from ...formats import safetensors
from ...formats.json_file import TABLE, read_json
from ...formats.open_files import children, is_file
from ...report import Finding
from ...tensors.spec import TensorSpec

INDEX, SINGLE = safetensors.INDEX, safetensors.SINGLE

FEW = 3
"""Names that a finding lists."""

_NUMBERED = re.compile(r".{1,200}-(\d{5})-of-(\d{5})\.safetensors", re.ASCII)

UNREAD = "transformers and vLLM stop with an error"


@dataclass
class Held:
    """What is in a directory.

    Attributes:
        specs: the tensors that a loader reads, by name.
        places: tensor -> its file.
        findings: what is wrong with the files and their index.
        lost: tensors that the index places in files that are missing or cannot be read.
        complete: all files that the index names could be read.
    """

    specs: dict[str, TensorSpec] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    complete: bool = True

    def wrong(self, kind: str, what: str, load: str, names: list[str] | None = None) -> None:
        """Add a finding of something that is served wrong, or not at all."""
        self.findings.append(finding("wrong", kind, what, load, names or []))


def finding(severity: str, kind: str, what: str, load: str, names: list[str]) -> Finding:
    """A finding about some tensors, of which it lists a few."""
    return Finding(severity, kind, what, load, names[:FEW], len(names))


def are(names: Sequence[str]) -> str:
    """How many tensors they are, as a subject."""
    return f"{len(names)} tensors are" if len(names) != 1 else "1 tensor is"


def listed(names: Sequence[str]) -> str:
    """The first few of some names, in words."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(shown(name) for name in names[:FEW]) + more


def read_held(directory: Path) -> Held:
    """Read the headers of all files of weights."""
    held, twice = Held(), list[str]()
    weight_map = _index(held, directory)
    there = [path.name for path in children(directory) if path.name.endswith(".safetensors") and is_file(path)]
    named = sorted(set(weight_map.values())) if weight_map is not None else there
    _tell_files(held, there, named, weight_map)
    for file in named:
        if file in there:
            twice += _read(held, directory / file, weight_map or {})
    if twice := list(dict.fromkeys(twice)):
        held.wrong(
            "index",
            f"{are(twice)} in more than one file: {listed(twice)}",
            "a loader takes the one that it reads last",
            twice,
        )
    if weight_map is not None:
        _tell_places(held, weight_map)
        _tell_size(held, directory)
    return held


def _index(held: Held, directory: Path) -> dict[str, str] | None:
    """Tensor -> file, as the index says; None without one that can be read."""
    if not is_file(directory / INDEX):
        return None
    try:
        return safetensors.read_index(directory / INDEX)
    except SourceError as error:
        held.wrong("damaged", error.what, f"{UNREAD}: the index cannot be read")
        return None


def _read(held: Held, path: Path, weight_map: Mapping[str, str]) -> list[str]:
    """Read one file's header; returns the tensors that another file has, too."""
    try:
        found = safetensors.read_header(path)
    except SourceError as error:
        names = _placed(weight_map, {path.name})
        held.complete = False
        held.lost.update(names)
        held.wrong("damaged", error.what, f"{UNREAD}: the file cannot be read", names)
        return []
    twice = [spec.name for spec, _ in found if spec.name in held.specs]
    for spec, _ in found:
        held.specs[spec.name], held.places[spec.name] = spec, path.name
    return twice


def _placed(weight_map: Mapping[str, str], files: set[str]) -> list[str]:
    return [name for name, file in weight_map.items() if file in files]


def _tell_files(held: Held, there: list[str], named: list[str], weight_map: dict[str, str] | None) -> None:
    """Files that are missing, and files that nothing names."""
    missing = sorted(set(named) - set(there))
    if missing:
        names = _placed(weight_map or {}, set(missing))
        held.complete = False
        held.lost.update(names)
        held.wrong(
            "index",
            f"{len(missing)} of {len(named)} files that {INDEX} names are missing, with {len(names)} tensors: "
            f"{listed(missing)}",
            "transformers and vLLM 0.32 stop with an error; an older vLLM reads the files that are there",
            names,
        )
    for gap in _gaps(set(there) | set(named)):
        held.wrong("index", gap, "the tensors of the others are missing")
    if weight_map is None and SINGLE not in there:
        what = f"there are {len(there)} files of weights and no {INDEX}" if there else "there are no safetensors files"
        held.wrong(
            "index",
            what,
            "transformers finds no weights and stops; vLLM reads all files" if there else "nothing can be loaded",
        )
    elif weight_map is None:
        others = [name for name in there if name != SINGLE]
        if others:
            held.wrong(
                "index",
                f"beside {SINGLE} there are other files of weights: {listed(others)}",
                f"transformers reads {SINGLE} alone; vLLM reads them all",
            )
    else:
        _tell_others(held, sorted(set(there) - set(named)))


def _tell_others(held: Held, others: list[str]) -> None:
    """Files of weights that the index does not name."""
    if SINGLE in others:
        held.wrong(
            "index", f"there is {SINGLE} beside an index that does not name it", f"transformers reads {SINGLE} alone"
        )
    rest = [name for name in others if name != SINGLE]
    if rest:
        held.findings.append(
            finding(
                "note",
                "index",
                f"files of weights that {INDEX} does not name: {listed(rest)}",
                "transformers and vLLM do not read them",
                [],
            )
        )


def _gaps(names: set[str]) -> Iterator[str]:
    """Series of numbered files of which some are not there and not even named: "45 of 48 shards"."""
    series: dict[int, set[int]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            series.setdefault(int(match[2]), set()).add(int(match[1]))
    for total, numbers in sorted(series.items()):
        missing = [number for number in range(1, total + 1) if number not in numbers]
        if missing:
            few = ", ".join(map(str, missing[:FEW])) + ", …" * (len(missing) > FEW)
            yield f"{total - len(missing)} of {total} files of weights are there or named: without number {few}"


def _tell_places(held: Held, weight_map: dict[str, str]) -> None:
    """Entries of the index that are not so."""
    nowhere = [n for n in weight_map if n not in held.specs and n not in held.lost]
    if nowhere:
        held.wrong(
            "index",
            f"{are(nowhere)} listed by {INDEX} and in no file: {listed(nowhere)}",
            "no loader complains of the index; transformers 4.57 leaves such a tensor without numbers and says nothing",
            nowhere,
        )
    elsewhere = [n for n, file in weight_map.items() if n in held.places and held.places[n] != file]
    if elsewhere:
        held.findings.append(
            finding(
                "note",
                "index",
                f"{are(elsewhere)} in another file than {INDEX} says: {listed(elsewhere)}",
                "transformers and vLLM read whole files, and find them",
                elsewhere,
            )
        )
    unlisted = [n for n in held.specs if n not in weight_map]
    if unlisted:
        held.wrong(
            "index",
            f"{are(unlisted)} in the files and not in {INDEX}: {listed(unlisted)}",
            "transformers 4.57 makes it up and says so in its log alone; transformers 5 and vLLM read whole files",
            unlisted,
        )


def _tell_size(held: Held, directory: Path) -> None:
    """total_size, which is the bytes of all tensors."""
    try:
        metadata = read_json(directory / INDEX, TABLE).get("metadata")
    except CorruptError:
        return
    if not isinstance(metadata, dict):
        held.wrong("index", f"{INDEX} has no metadata", "transformers stops with an error, vLLM does not ask for it")
        return
    stated = metadata.get("total_size")
    nbytes = sum(spec.nbytes for spec in held.specs.values())
    if held.complete and stated not in (None, nbytes):
        what = f"{INDEX} says total_size {shown(stated)}, and the tensors have {nbytes:,} bytes"
        held.findings.append(finding("note", "index", what, "no loader asks", []))
