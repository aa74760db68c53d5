"""An output held against its vlconv.json: every file's bytes, whether or not the source is still there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import NotACheckpoint, shown, shown_path, sized
from ..formats import is_mcore, safetensors
from ..formats.directory.contents import MANIFEST
from ..formats.directory.locate import TRACKER, locate
from ..formats.open_files import is_file, opened
from ..formats.sums.crc import crc32
from ..formats.sums.file_sums import file_crc
from ..manifest.find import Found, find_manifest
from ..manifest.record import FileSum, Part
from ..report import Difference, Observer, Phase, Report, tell_phase
from .side_path import SidePath

LISTED = 5
BLOCK = 1 << 20


def manifest_about(side: SidePath, iteration: int | None) -> Found | None:
    """The manifest that speaks of a side; None where there is none, or only that of another iteration beside it."""
    if safetensors.holds(side.path):
        return find_manifest(side.path)
    try:
        return find_manifest(locate(side.path, is_mcore, side.iteration if side.iteration is not None else iteration))
    except NotACheckpoint:
        return find_manifest(side.path)


def compare_files(found: Found, threads: int, observer: Observer) -> list[Difference]:
    """What differs from the manifest; of a file with weights, in which tensors.

    Raises:
        ReadError: the system does not let a file be read.
    """
    total, done, differences = sum(file.nbytes for file in found.manifest.files.values()), 0, list[Difference]()

    def progress(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        observer.progress(done, total)

    tell_phase(observer, Phase.CHECKING_FILES)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for name, said in found.manifest.files.items():
            path = found.root / name
            if not is_file(path):
                differences.append(Difference(name, "file", note=f"is missing; {MANIFEST} lists it"))
            elif (size := path.stat().st_size) != said.nbytes:
                differences.append(Difference(name, "file", note=f"has {size} bytes instead of {said.nbytes}"))
            elif (crc := file_crc(path, pool, progress)) != said.crc32:
                parts = [part for part in found.manifest.parts if part.file == name]
                differences += _inside(path, name, said, crc, parts)
    return differences


def describe_manifest(report: Report, found: Found) -> None:
    """What the manifest says of how the directory came about."""
    made, files = found.manifest.made, found.manifest.files
    source = made.get("source")
    given = source.get("given") if isinstance(source, dict) else None
    nbytes = sum(file.nbytes for file in files.values())
    report.fact(
        "manifest",
        f"{shown_path(found.root / MANIFEST)}: {len(files)} files, {sized(nbytes)}, "
        f"made by vlconv {shown(made.get('vlconv'))} {shown(made.get('command'))} from {shown_path(given)}",
        manifest={key: made.get(key) for key in ("vlconv", "command", "source", "options")},
    )
    extra = list(_not_listed(found))
    if extra:
        more = f" and {len(extra) - LISTED} more" if len(extra) > LISTED else ""
        report.warnings.append(f"not in {MANIFEST}: {', '.join(map(shown, extra[:LISTED]))}{more}")


def describe_files(report: Report, found: Found, differences: Sequence[Difference]) -> None:
    """What came of the comparison."""
    count = len(found.manifest.files)
    text = f"{len(differences)} differences" if differences else f"{count} files are, to the byte, what was written"
    report.fact("files", text, files_checked=count)


def _inside(path: Path, name: str, said: FileSum, crc: int, parts: Sequence[Part]) -> Iterator[Difference]:
    """Which tensors of a damaged file are damaged."""
    wrong = [part for part in parts if _part_crc(path, part) != part.crc32]
    for part in wrong:
        begin = f" from {list(part.begin)}" if part.begin else ""
        note = f"{name}: bytes {part.offset} to {part.offset + part.nbytes}{begin} are not those that were written"
        yield Difference(part.tensor, "values", note=note)
    if not wrong:
        where = ", outside of all tensors" if parts else ""
        yield Difference(name, "file", note=f"CRC-32 {crc:08x} instead of {said.crc32:08x}{where}")


def _part_crc(path: Path, part: Part) -> int:
    crc = 0
    with opened(path) as file:
        for at in range(0, min(part.nbytes, os.fstat(file.fileno()).st_size), BLOCK):
            crc = crc32(os.pread(file.fileno(), min(BLOCK, part.nbytes - at), part.offset + at), crc)
    return crc


def _not_listed(found: Found) -> Iterator[str]:
    """Files beside listed ones that are not listed; other iterations of a save directory are none of ours."""
    names = found.manifest.files
    for folder in sorted({os.path.dirname(name) for name in names}):  # noqa: PTH120  # a name, not a path
        for entry in sorted((found.root / folder).glob("*")):
            name = f"{folder}/{entry.name}".lstrip("/")
            if name not in (*names, MANIFEST, TRACKER) and is_file(entry):
                yield name
