"""What is said of an output and of what was written: sentences for people and the same as data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from ..config.reference import SideFiles
from ..errors import shown, shown_path, sized
from ..formats.dcp.integrity import Vouched
from ..formats.opened import Summed
from ..formats.output_file import OutFile, WrittenFile
from ..layouts.layout import Layout
from ..models.shared.config import ModelConfig
from ..options import McoreTarget
from ..report import Report
from ..tensors.counting import Rounded
from ..tensors.nonfinite import Specials
from ..tensors.spec import Reader, TensorSpec
from ..workers import Workers

LISTED = 30
"""Files beside the weights that are named: a model has some fifteen."""


def describe_output(
    report: Report, target: Path, reader: Reader, files: Sequence[OutFile], workers: Workers, counted: Reader
) -> None:
    """What will be written."""
    nbytes, elements, names = sum(f.size for f in files), _elements(counted.specs), [f.name for f in files]
    report.fact(
        "output",
        f"{shown_path(target)}: {len(reader.specs)} tensors, {elements:,} elements, {sized(nbytes)} in {len(files)} "
        "files",
        brief="",
        target=str(target),
        tensors=len(reader.specs),
        parameters=elements,
        bytes=nbytes,
        files=names,
    )
    report.fact(
        "needs",
        f"{sized(nbytes)} of disk, at most {sized(workers.memory)} of memory, {shown(workers.threads)} threads",
        brief="",
        disk=nbytes,
        memory=workers.memory,
        threads=workers.threads,
    )
    report.fact(
        "proven",
        "the mapping covers every element of every tensor exactly once, on both sides (padding aside)",
        brief="",
        covered=True,
    )


def _elements(specs: Mapping[str, TensorSpec]) -> int:
    return sum(prod(spec.shape) for spec in specs.values())


HEAD_IN_RANK_FILES = (
    "the layer of the multi-token-prediction head is called transformer_layer in these rank files, as by megatron-core "
    "0.16; 0.19 calls it mtp_model_layer there, and loads --format torch_dist alone"
)


def describe_target(report: Report, layout: Layout, output: McoreTarget, config: ModelConfig, rows: int) -> None:
    """What kind of Megatron checkpoint of a model will be written; `rows`: of the embedding."""
    padding = rows - config.text.vocab
    sizes = {
        "TP": output.tensor_model_parallel_size,
        "PP": output.pipeline_model_parallel_size,
        "VPP": output.virtual_pipeline_model_parallel_size,
        "EP": output.expert_model_parallel_size,
        "ETP": output.expert_tensor_parallel_size or output.tensor_model_parallel_size,
    }
    shape = (
        ", ".join(f"{name} {size}" for name, size in sizes.items()) if output.format == "torch" else "for any topology"
    )
    report.fact(
        "written_as",
        f"{output.format}, {shape}, layout {layout.name} ({layout.trainers})",
        target_format=output.format,
        target_layout=layout.name,
        target_iteration=output.as_iteration,
        target_topology=sizes,
    )
    if layout.numbered and output.as_iteration is None:
        report.warnings.append(
            f"{layout.trainers} load no release: write it with --as-iteration 1, as their own converter does"
        )
    if config.text.mtp and output.format == "torch":
        report.warnings.append(HEAD_IN_RANK_FILES)
    report.fact(
        "rows_written",
        f"{rows} of embedding and output layer, {padding} of them padding (zeros)",
        brief=None if padding else "",
        target_padding_rows=padding,
        target_rows=rows,
    )


def describe_links(report: Report, links: Mapping[str, str]) -> None:
    """Second names of what is written."""
    for name, first in links.items():
        report.fact(
            "also_named",
            f"{shown(name)}, a link to {shown(first)}, for loaders that look for iter_*",
            brief="",
            links={name: first},
        )


def describe_side_files(report: Report, beside: SideFiles, told_apart: Collection[str] = ()) -> None:
    """Which files go along, which do not, and which a user will miss.

    Args:
        report: told.
        beside: the files.
        told_apart: of those that are missing, these are told elsewhere.
    """
    report.fact(
        "beside",
        _some([p.name for p in beside.copy]) or "no files beside the weights",
        brief="",
        side_files=[p.name for p in beside.copy],
    )
    for name, why in beside.skipped[:LISTED]:
        report.warnings.append(f"{shown(name)} is not copied: {why}")
    if len(beside.skipped) > LISTED:
        report.warnings.append(f"{len(beside.skipped) - LISTED} more files are not copied")
    if beside.missing:
        needed = [name for name in beside.missing if name in told_apart]
        others = [name for name in beside.missing if name not in needed]
        if others:
            report.warnings.append(f"absent beside the weights, for want of a file to copy: {', '.join(others)}")
        report.data["missing_side_files"] = beside.missing


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:LISTED])) + f" and {len(names) - LISTED} more" * (len(names) > LISTED)


def describe_specials(report: Report, specials: Specials) -> None:
    """NaN and infinite numbers among what was written."""
    report.data["special_numbers"] = {name: count._asdict() for name, count in specials.found.items()}
    if specials.found:
        report.warnings.append(f"not all weights are numbers: {specials}")
    else:
        report.fact("numbers", "no NaN, no infinity", brief="")


def describe_rounded(report: Report, counts: Mapping[str, Rounded]) -> None:
    """How many elements of those that are computed have no exact result."""
    if not counts:
        return
    elements, rounded = sum(c.elements for c in counts.values()), sum(c.rounded for c in counts.values())
    report.fact(
        "rounded",
        f"{rounded:,} of {elements:,} elements in {len(counts)} computed tensors were rounded, the others are exact",
        rounded={
            "elements": elements,
            "rounded": rounded,
            "tensors": {name: count.rounded for name, count in counts.items()},
        },
    )


def describe_integrity(report: Report, found: Vouched) -> None:
    """Whole files agree with what integrity.json states of them."""
    report.fact(
        "integrity",
        f"{len(found.listed)} files agree with integrity.json (SHA-256)",
        brief="",
        integrity={"vouched": found.listed, "unlisted": found.unlisted, "agree": True},
    )


class Items(NamedTuple):
    """Items of Megatron checkpoints that were read, known after the last byte was: how many, of which kind."""

    checked: int  # agree with their checksums
    unsummed: int  # state none


def items_of(checkpoints: Sequence[Summed]) -> Items:
    """The items of all of them."""
    return Items(sum(one.chunks.checked for one in checkpoints), sum(one.chunks.unsummed for one in checkpoints))


def unsummed(checkpoints: Sequence[Summed]) -> str:
    """The warning that items state no checksum; "" where all do. Known after the last byte was read."""
    items = items_of(checkpoints)
    if not items.unsummed:
        return ""
    return f"{items.unsummed} of {sum(items)} items state no checksum: damage in them would not be seen"


def describe_checksums(report: Report, checkpoints: Sequence[Summed]) -> None:
    """How much of the source its own checksums vouch for."""
    items = items_of(checkpoints)
    without = f", {items.unsummed} whose file states none" if items.unsummed else ""
    report.fact(
        "checksums",
        f"{items.checked} items agree with their CRC-32{without}",
        brief="",
        checksums={"checked": items.checked, "none_stated": items.unsummed},
    )


def describe_read_back(report: Report, written: Sequence[WrittenFile], *, passed_by: bool) -> None:
    """That what came back from the disk is what was written."""
    how = "" if passed_by else " (this file system gives it out of the system's memory at will)"
    report.fact(
        "read_back",
        f"{sized(sum(file.nbytes for file in written))} read again from the disk: every checksum is right{how}",
        brief="",
        read_back={"past_the_cache": passed_by},
    )


def describe_written(report: Report, files: Sequence[OutFile], copied: int, seconds: float) -> None:
    """What was written, and how fast."""
    nbytes, weights = sum(f.size for f in files), sum(bool(f.pieces) for f in files)
    rate = sized(int(nbytes / max(seconds, 1e-9)))
    report.fact(
        "written",
        f"{sized(nbytes)} in {len(files)} files, {weights} of them with weights, and {copied} copied, in "
        f"{seconds:.1f} s ({rate}/s)",
        brief="; ".join(["every element once", *_checked(report.data)]),
        seconds=round(seconds, 3),
        weight_files=weights,
        copied_files=copied,
    )


def _checked(data: Mapping[str, Any]) -> Iterator[str]:
    """What was found right on the way, in a few words each."""
    if sums := data.get("checksums"):
        yield f"{sums['checked']} checksums right"
    if (integrity := data.get("integrity")) and integrity["agree"]:
        yield f"{len(integrity['vouched'])} files agree with integrity.json"
    if not data["special_numbers"]:
        yield "no NaN, no infinity"
    if "read_back" in data:
        yield "read again from the disk"
