"""What is said of a side, an output, a set of files: sentences for people and the same as data, in one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from .compare import Comparison
from .config.reference import SideFiles
from .formats.files import OutFile
from .models.config import ModelConfig
from .models.hf_dialects import Dialect
from .report import Report
from .sides import HfSide, McoreSide
from .tensors import Reader
from .write import WINDOW


def describe_mcore(report: Report, side: McoreSide, dtype: str | None = None) -> None:
    """What was recognised in a Megatron checkpoint, and on whose word."""
    report.fact("source", f"{side.directory}: Megatron {side.opened.format}, {side.opened.form}", source=str(side.directory), format=side.opened.format, form=side.opened.form)
    report.fact("layout", f"{side.layout.name} ({side.layout.trainers}), because {side.seen_by}", layout=side.layout.name, layout_because=side.seen_by)
    _model(report, side.config)
    report.fact("config from", f"{side.reference.directory} ({side.reference.said})", reference=str(side.reference.directory), reference_because=side.reference.said)
    checked = ", ".join(s.where for s in side.stated)
    if checked and not side.overridden:
        report.fact("agrees with", checked, agrees_with=[s.where for s in side.stated])
    if side.overridden:
        report.fact("overridden", "; ".join(side.overridden), overridden=side.overridden)
        report.warnings.append("the reference contradicts the checkpoint, and --trust-reference made it win")
    if side.unproven:
        report.fact("not provable", "taken from the reference, this checkpoint cannot show them: " + ", ".join(side.unproven), not_provable=side.unproven)
    report.fact("embeddings", f"{'tied' if side.config.text.tied else 'not tied'}, by {side.tie.said}", tied=side.config.text.tied, tie_because=side.tie.said)
    _padding(report, side)
    _dtypes(report, side.reader, dtype)
    if side.opened.ignored:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(side.opened.ignored.items()))
        report.fact("ignored", f"entries that are no weights: {listed}", ignored=side.opened.ignored)


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
    report.fact("embeddings", f"{'tied' if side.config.text.tied else 'not tied'}, by {side.tie.said}", tied=side.config.text.tied, tie_because=side.tie.said)
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


def _dtypes(report: Report, reader: Reader, dtype: str | None) -> None:
    counts = Counter(spec.dtype for spec in reader.specs.values())
    text = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    report.fact("dtypes", f"{text} tensors" + (f", all cast to {dtype}" if dtype else ", kept as they are"), dtypes=dict(counts), cast_to=dtype)


def describe_output(report: Report, target: Path, reader: Reader, files: Sequence[OutFile], threads: int, counted: Reader) -> None:
    """What will be written."""
    nbytes = sum(f.size for f in files)
    elements = sum(prod(spec.shape) for spec in counted.specs.values())
    data: dict[str, Any] = {"target": str(target), "tensors": len(reader.specs), "parameters": elements, "bytes": nbytes, "files": [f.name for f in files]}
    report.fact("output", f"{target}: {len(reader.specs)} tensors, {elements:,} elements, {nbytes / 1e9:.2f} GB in {len(files)} files", **data)
    memory = threads * (2 * WINDOW + (4 << 20))
    report.fact("needs", f"{nbytes / 1e9:.2f} GB of disk, about {memory >> 20} MiB of buffers", disk=nbytes, memory=memory)
    report.fact("proven", "the mapping covers every element of every tensor exactly once, on both sides (padding aside)", covered=True)


def describe_side_files(report: Report, beside: SideFiles) -> None:
    """Which files go along, which do not, and which a user will miss."""
    report.fact("beside", ", ".join(p.name for p in beside.copy) or "no files beside the weights", side_files=[p.name for p in beside.copy])
    for name, why in beside.skipped:
        report.warnings.append(f"{name} is not copied: {why}")
    if beside.missing:
        report.warnings.append(f"the reference lacks {', '.join(beside.missing)}")
        report.data["missing_side_files"] = beside.missing



def describe_comparison(report: Report, found: Comparison, seconds: float) -> None:
    """The result of a verify."""
    report.differences = found.differences
    verdict = "bit for bit the same" if not found.differences else f"{len(found.differences)} tensors differ"
    report.fact("compared", f"{found.tensors} tensors, {found.elements:,} elements in {seconds:.1f} s: {verdict}", tensors=found.tensors, elements=found.elements, seconds=round(seconds, 3))
