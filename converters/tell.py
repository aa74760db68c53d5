"""What is said of a side, an output, a set of files: sentences for people and the same as data, in one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from .compare import Comparison
from .config.reference import Reference, SideFiles
from .errors import shown, sized
from .formats.chunks import ChunkReader
from .formats.files import OutFile
from .layouts.layout import Layout
from .models import Tie
from .models.config import ModelConfig
from .models.hf_dialects import Dialect
from .options import McoreOutput
from .report import Report
from .sides import HfSide, McoreSide
from .specials import Specials
from .tensors import Reader, TensorSpec
from .write import WINDOW

SAID = 20
"""Warnings of one kind that are shown: two checkpoints mixed up would give hundreds."""

LISTED = 3
"""Tensors that a sentence names; the data has them all."""


def describe_mcore(report: Report, side: McoreSide, dtype: str | None = None) -> None:
    """What was recognised in a Megatron checkpoint, and on whose word."""
    opened, layout = side.opened, side.layout
    report.fact("source", f"{side.directory}: Megatron {opened.format}, {opened.form}", source=str(side.directory), format=opened.format, form=opened.form)
    report.fact("layout", f"{layout.name} ({layout.trainers}), because {side.seen_by}", layout=layout.name, layout_because=side.seen_by)
    _model(report, side.config)
    _config_from(report, side.reference)
    _agreement(report, side)
    _tie(report, side.config, side.tie)
    _padding(report, side)
    _dtypes(report, side.reader, dtype)
    if opened.ignored:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(opened.ignored.items()))
        report.fact("ignored", f"entries that are no weights: {listed}", ignored=opened.ignored)
    told = opened.warnings[:SAID]
    report.warnings += told + [f"… and {len(opened.warnings) - SAID} more tensors that differ between ranks"] * (len(opened.warnings) > SAID)


def _config_from(report: Report, found: Reference) -> None:
    if found.directory:
        report.fact("config from", f"{found.directory} ({found.said})", reference=str(found.directory), reference_because=found.said)
        return
    by_place: dict[str, list[str]] = {}
    for source, fields in found.sources.items():
        by_place.setdefault(source.rpartition(" in ")[2], []).extend(fields)
    listed = "".join(f"\n{place}: {', '.join(fields)}" for place, fields in by_place.items())
    report.fact("config from", f"{found.said}, for want of a reference{listed}", reference=None, reference_because=found.said, config_from=found.sources)


def _agreement(report: Report, side: McoreSide) -> None:
    """What the checkpoint confirms, contradicts and cannot show."""
    stated = [s.where for s in side.stated]
    if stated and not side.overridden and side.reference.directory:
        report.fact("agrees with", ", ".join(stated), agrees_with=stated)
    if side.overridden:
        report.fact("overridden", "; ".join(side.overridden), overridden=side.overridden)
        report.warnings.append("the reference contradicts the checkpoint, and --trust-reference made it win")
    if side.unproven:
        whose = "the reference" if side.reference.directory else side.reference.release
        report.fact("not provable", f"taken from {whose}, this checkpoint cannot show them: {', '.join(side.unproven)}", not_provable=side.unproven)


def _padding(report: Report, side: McoreSide) -> None:
    cut = side.rows - side.config.text.vocab
    names = sorted({box.name for box in side.table.pads})
    text = f"{cut} padding rows cut from each of {', '.join(names)} ({side.padding})" if cut else f"no padding: {side.rows} rows"
    report.fact("vocabulary", text, padding_rows=cut, padded_tensors=names, padding_because=side.padding)


def describe_hf(report: Report, side: HfSide) -> None:
    """What was recognised in a Hugging Face directory."""
    report.fact("source", f"{side.directory}: Hugging Face safetensors", source=str(side.directory), format="hf")
    _model(report, side.config)
    describe_dialect(report, side.config, side.dialect)
    _tie(report, side.config, side.tie)
    _dtypes(report, side.reader, None)


def describe_dialect(report: Report, config: ModelConfig, dialect: Dialect) -> None:
    """How the Hugging Face side spells what can be spelled several ways."""
    if config.text.experts:
        report.fact("experts", dialect.experts, experts_form=dialect.experts)
    if config.model_type == "qwen2_5_vl":
        report.fact("HF names", dialect.hf_names, hf_names=dialect.hf_names)


def _model(report: Report, config: ModelConfig) -> None:
    t, v = config.text, config.vision
    moe = f", {t.experts} experts of {t.moe_ffn}" if t.experts else ""
    text = f"{config.model_type}: {t.layers} layers of {t.hidden}, {t.heads}/{t.groups} heads{moe}, vocabulary {t.vocab}; vision {v.depth} blocks of {v.hidden}"
    report.fact("model", text, model_type=config.model_type)


def _tie(report: Report, config: ModelConfig, tie: Tie) -> None:
    report.fact("embeddings", f"{'tied' if config.text.tied else 'not tied'}, by {tie.said}", tied=config.text.tied, tie_because=tie.said)


def _dtypes(report: Report, reader: Reader, dtype: str | None) -> None:
    """How many tensors of each dtype; the few that differ from the rest by name."""
    counts = Counter(spec.dtype for spec in reader.specs.values())
    (most, count), *others = counts.most_common()
    names = {kind: [n for n, spec in reader.specs.items() if spec.dtype == kind] for kind, _ in others}
    few = " and ".join(f"{len(listed)} {kind} ({_some(listed)})" for kind, listed in names.items())
    text = f"{few} among {count} {most}" if few else f"{count} {most}"
    report.fact("dtypes", f"all cast to {dtype}: {text}" if dtype else f"kept as they are: {text}", dtypes=dict(counts), cast_to=dtype, other_dtypes=names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:LISTED])) + (f", … {len(names) - LISTED} more" if len(names) > LISTED else "")


def describe_output(report: Report, target: Path, reader: Reader, files: Sequence[OutFile], threads: int, counted: Reader) -> None:
    """What will be written."""
    nbytes, elements, names = sum(f.size for f in files), _elements(counted.specs), [f.name for f in files]
    report.fact(
        "output",
        f"{target}: {len(reader.specs)} tensors, {elements:,} elements, {sized(nbytes)} in {len(files)} files",
        target=str(target),
        tensors=len(reader.specs),
        parameters=elements,
        bytes=nbytes,
        files=names,
    )
    memory = threads * (2 * WINDOW + (4 << 20))
    report.fact("needs", f"{sized(nbytes)} of disk, about {sized(memory)} of buffers", disk=nbytes, memory=memory)
    report.fact("proven", "the mapping covers every element of every tensor exactly once, on both sides (padding aside)", covered=True)


def _elements(specs: Mapping[str, TensorSpec]) -> int:
    return sum(prod(spec.shape) for spec in specs.values())


def describe_target(report: Report, layout: Layout, output: McoreOutput, padding: int, rows: int) -> None:
    """What kind of Megatron checkpoint will be written."""
    sizes = {
        "TP": output.tensor_model_parallel_size,
        "PP": output.pipeline_model_parallel_size,
        "VPP": output.virtual_pipeline_model_parallel_size,
        "EP": output.expert_model_parallel_size,
        "ETP": output.expert_tensor_parallel_size or output.tensor_model_parallel_size,
    }
    shape = ", ".join(f"{name} {size}" for name, size in sizes.items()) if output.format == "torch" else "for any topology"
    report.fact(
        "written as",
        f"{output.format}, {shape}, layout {layout.name} ({layout.trainers})",
        target_format=output.format,
        target_layout=layout.name,
        target_topology=sizes,
    )
    report.fact("rows written", f"{rows} of embedding and output layer, {padding} of them padding (zeros)", target_padding_rows=padding, target_rows=rows)


def describe_side_files(report: Report, beside: SideFiles) -> None:
    """Which files go along, which do not, and which a user will miss."""
    report.fact("beside", ", ".join(p.name for p in beside.copy) or "no files beside the weights", side_files=[p.name for p in beside.copy])
    for name, why in beside.skipped:
        report.warnings.append(f"{name} is not copied: {why}")
    if beside.missing:
        report.warnings.append(f"absent beside the weights, for want of a file to copy: {', '.join(beside.missing)}")
        report.data["missing_side_files"] = beside.missing


def describe_specials(report: Report, specials: Specials) -> None:
    """NaN and infinite numbers among what was written."""
    report.data["special_numbers"] = {name: count._asdict() for name, count in specials.found.items()}
    if specials.found:
        report.warnings.append(f"not all weights are numbers: {specials}")
    else:
        report.fact("numbers", "no NaN, no infinity")


def describe_checksums(report: Report, chunks: ChunkReader) -> None:
    """How much of the source its own checksums vouch for."""
    without = f", {chunks.unsummed} whose file states none" if chunks.unsummed else ""
    report.fact("checksums", f"{chunks.checked} items agree with their CRC-32{without}", checksums={"checked": chunks.checked, "none_stated": chunks.unsummed})


def describe_written(report: Report, files: Sequence[OutFile], copied: int, seconds: float) -> None:
    """What was written, and how fast."""
    nbytes, weights = sum(f.size for f in files), sum(bool(f.pieces) for f in files)
    rate = sized(int(nbytes / max(seconds, 1e-9)))
    report.fact(
        "written",
        f"{sized(nbytes)} in {len(files)} files, {weights} of them with weights, and {copied} copied, in {seconds:.1f} s ({rate}/s)",
        seconds=round(seconds, 3),
        weight_files=weights,
        copied_files=copied,
    )


def describe_comparison(report: Report, found: Comparison, seconds: float) -> None:
    """The result of a verify."""
    report.differences = found.differences
    verdict = "bit for bit the same" if not found.differences else f"{len(found.differences)} tensors differ"
    report.fact(
        "compared",
        f"{found.tensors} tensors, {found.elements:,} elements in {seconds:.1f} s: {verdict}",
        tensors=found.tensors,
        elements=found.elements,
        seconds=round(seconds, 3),
    )
