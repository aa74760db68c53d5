"""The manifest of an output, from its plan and from what was written."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

from ... import __version__
from ..formats.directory.contents import MANIFEST
from ..formats.directory.locate import TRACKER
from ..formats.open_files import opened
from ..formats.output_file import OutFile, WrittenFile
from ..formats.sums.crc import crc32
from ..manifest.record import FileSum, Manifest, Part
from ..options import WritingOptions
from ..output.writing.open_file import OpenFile
from ..report import Report
from ..tensors.dtypes import ITEMSIZE
from ..tensors.spec import Reader, whole
from .plan import Plan

WHERE_AND_HOW = {
    "dry_run",
    "threads",
    "memory",
    "overwrite",
    "strict",
    "resume",
    "manifest",
    "sha256",
    "read_back",
    "set_latest",
    "push",
}
"""Options that say where an output goes and how the run goes about it: its bytes are the same with any of them."""

BLOCK = 1 << 20

MOST_PARTS = 100_000
"""Of more parts of tensors than that only the files are listed: a document that nobody could read back helps no one."""

DECISIONS = (
    "layout",
    "model",
    "config_from",
    "agrees_with",
    "overridden",
    "not_provable",
    "embeddings",
    "vocabulary",
    "dequantised",
    "dtypes",
    "experts",
    "hf_names",
    "dropped",
    "carried",
    "left_behind",
    "ignored",
    "computed",
    "quantised",
    "adapter",
    "base",
    "merging",
    "merged",
    "reference_dtypes",
    "held_as",
    "rounded",
    "weights_only",
    "written_as",
    "rows_written",
    "numbers",
    "repaired",
)
"""Facts of a report that say what was decided, not where the output lies or how long it took."""


def asked_for(options: WritingOptions) -> dict[str, Any]:
    """The options on which the bytes of an output depend, where they are not the default."""
    return {
        field.name: _plain(value)
        for field in fields(options)
        if field.name not in WHERE_AND_HOW and (value := getattr(options, field.name)) != field.default
    }


def _plain(value: Any) -> Any:
    """An option's value as JSON has it."""
    if isinstance(value, tuple):
        return list(map(_plain, value))
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def write_manifest(
    plan: Plan, options: WritingOptions, written: Sequence[WrittenFile], root: Path, part: str
) -> WrittenFile:
    """Write vlconv.json beside what was written; told in the report. Arguments as `manifest_of`."""
    manifest = manifest_of(plan, options, written, root, part)
    text, name = manifest.text().encode(), f"{part}/{MANIFEST}" if part else MANIFEST
    out = OpenFile(root / name, len(text))
    try:
        out.write([(0, memoryview(text))])
    finally:
        out.close()
    plan.report.fact("manifest", f"{MANIFEST}: checksums of {len(manifest.files)} files", brief="", manifest=MANIFEST)
    return WrittenFile(name, len(text), crc32(text))


def manifest_of(plan: Plan, options: WritingOptions, written: Sequence[WrittenFile], root: Path, part: str) -> Manifest:
    """What vlconv.json says.

    Args:
        plan: of the conversion.
        options: its options.
        written: all files, copies included.
        root: where they lie now.
        part: the folder of them that takes its place as an iteration; "": all of it does.
    """
    # The tracker file is the save directory's: trainers go on writing it.
    listed = [file for file in written if file.name != TRACKER]
    hashes = _sha256(root, listed) if options.sha256 else {}
    files = {_place(f.name, part): FileSum(f.nbytes, f.crc, hashes.get(f.name, "")) for f in listed}
    sums = {file.name: file.pieces for file in written}
    parts = [p for file in plan.files for p in _parts(plan.reader, file, sums[file.name], _place(file.name, part))]
    return Manifest(_made(plan, options), files, parts if len(parts) <= MOST_PARTS else [])


def _made(plan: Plan, options: WritingOptions) -> dict[str, Any]:
    report = plan.report
    data, told = report.data, report.told
    return {
        "vlconv": __version__,
        "python": platform.python_version(),
        "command": report.command,
        "options": asked_for(options),
        "source": {
            "given": str(plan.source),
            "directory": data.get("source"),
            "format": data.get("format"),
            "layout": data.get("layout"),
            "iteration": Path(str(data.get("source", ""))).name if data.get("layout") else None,
        },
        "decisions": {name: told[name] for name in DECISIONS if name in told},
        "changes": _changes(report, plan),
        "warnings": report.warnings,
    }


def _changes(report: Report, plan: Plan) -> dict[str, Any]:
    """What is not simply moved from one place to another."""
    data = report.data
    return {
        "cast_to": data.get("cast_to"),
        "padding_rows_cut": data.get("padding_rows", 0),
        "padding_rows_added": data.get("target_padding_rows", 0),
        "special_numbers": data.get("special_numbers", {}),
        "computed": data.get("computed", []),
        "rounded": data.get("rounded", {}),
        "adapter": data.get("adapter", {}),
        "merged": data.get("merging", {}) | data.get("merged", {}),
        "carried": data.get("carried", {}),
        "left_behind": data.get("left_behind", []),
        "repaired": data.get("repaired", []),
        "copied": sorted(path.name for path in plan.copied),
    }


def _place(name: str, part: str) -> str:
    """The path below what takes its place: files beside an iteration go inside it."""
    return name.removeprefix(f"{part}/") if part else name


def _parts(reader: Reader, file: OutFile, sums: Sequence[int], name: str) -> Iterator[Part]:
    for (box, offset), crc in zip(file.pieces, sums, strict=True):
        spec = reader.specs[box.name]
        begin = () if box == whole(spec) else box.offsets
        nbytes = box.size * ITEMSIZE[spec.dtype]
        yield Part(box.name, spec.dtype, box.lengths, begin, name, offset, nbytes, crc)


def _sha256(root: Path, files: Iterable[WrittenFile]) -> dict[str, str]:
    """Name -> SHA-256 of each file: it goes over all of its bytes in order, so the files are read once more."""
    with ThreadPoolExecutor() as pool:
        names = [file.name for file in files]
        return dict(zip(names, pool.map(lambda name: _hashed(root / name), names), strict=True))


def _hashed(path: Path) -> str:
    total = hashlib.sha256()
    with opened(path) as file:
        while data := file.read(BLOCK):
            total.update(data)
    return total.hexdigest()
