"""What is said of an opened side: sentences for people and the same as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..config.reference import Reference
from ..errors import shown, shown_path, sized
from ..formats import FORMATS
from ..formats.holes import told as told_holes
from ..models import model_of
from ..models.shared.config import ModelConfig
from ..models.shared.fields import Tie
from ..models.shared.hf_dialects import Dialect
from ..report import Report
from ..tensors.spec import Reader
from .hf_side import HfSide
from .mcore_side import McoreSide

SAID = 20
"""Warnings of one kind that are shown: two checkpoints mixed up would give hundreds."""


LISTED = 3
"""Tensors that a sentence names; the data has them all."""


def describe_mcore(report: Report, side: McoreSide, dtype: str | None = None) -> None:
    """What was recognised in a Megatron checkpoint, and on whose word."""
    opened, layout = side.opened, side.layout
    report.fact(
        "source",
        f"{shown_path(side.directory)}: {FORMATS[opened.format].title}, {opened.form}",
        source=str(side.directory),
        format=opened.format,
        form=opened.form,
    )
    report.fact(
        "layout",
        f"{layout.name} ({layout.trainers}), because {side.seen.seen_by}",
        layout=layout.name,
        layout_because=side.seen.seen_by,
    )
    _model(report, side.config)
    _config_from(report, side.known.reference)
    _agreement(report, side)
    _tie(report, side.config, side.known.tie)
    _padding(report, side)
    _dtypes(report, side.reader, dtype)
    if opened.ignored:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(opened.ignored.items()))
        report.fact("ignored", f"entries that are no weights: {listed}", ignored=opened.ignored)
    _unclaimed(report, opened.unclaimed)
    _integrity(report, side)
    report.warnings += told_holes(side.chunks.holes)
    told = opened.warnings[:SAID]
    report.warnings += told + [f"… and {len(opened.warnings) - SAID} more tensors that differ between ranks"] * (
        len(opened.warnings) > SAID
    )


def _config_from(report: Report, found: Reference) -> None:
    if found.directory:
        report.fact(
            "config_from",
            f"{shown_path(found.directory)} ({found.said})",
            reference=str(found.directory),
            reference_because=found.said,
        )
        return
    by_place: dict[str, list[str]] = {}
    for source, fields in found.sources.items():
        by_place.setdefault(source.rpartition(" in ")[2], []).extend(fields)
    listed = "".join(f"\n{place}: {', '.join(fields)}" for place, fields in by_place.items())
    report.fact(
        "config_from",
        f"{found.said}, for want of a reference{listed}",
        reference=None,
        reference_because=found.said,
        config_from=found.sources,
    )


def _unclaimed(report: Report, found: Mapping[str, int]) -> None:
    """Bytes that nothing in the checkpoint lays claim to: left by another save, or hidden there."""
    if found:
        most = sorted(found, key=lambda file: -found[file])
        listed = ", ".join(f"{sized(found[file])} in {shown(file)}" for file in most[:LISTED])
        more = f" and {len(most) - LISTED} more files" if len(most) > LISTED else ""
        text = f"bytes in the files that belong to nothing the checkpoint describes: {listed}{more}"
        report.fact("unclaimed", text, unclaimed=dict(found))


def _agreement(report: Report, side: McoreSide) -> None:
    """What the checkpoint confirms, contradicts and cannot show."""
    known, stated = side.known, [s.where for s in side.seen.stated]
    if stated and not known.overridden and known.reference.directory:
        report.fact("agrees_with", ", ".join(stated), agrees_with=stated)
    if known.overridden:
        report.fact("overridden", "; ".join(known.overridden), overridden=known.overridden)
        report.warnings.append("the reference contradicts the checkpoint, and --trust-reference made it win")
    if known.unproven:
        whose = "the reference" if known.reference.directory else known.reference.release
        report.fact(
            "not_provable",
            f"taken from {whose}, this checkpoint cannot show them: {', '.join(known.unproven)}",
            not_provable=known.unproven,
        )


def _integrity(report: Report, side: McoreSide) -> None:
    """What integrity.json vouches for, where there is one, and what not."""
    integrity = side.opened.integrity
    if integrity is None:
        return
    vouched, unlisted = integrity.vouched(side.files), integrity.unlisted(side.files)
    others = f"; it does not list {_some(unlisted)}" if unlisted else ""
    report.fact(
        "to_hash",
        f"{len(vouched)} files that integrity.json lists, {sized(integrity.nbytes(side.files))}, before the weights "
        f"are read (SHA-256){others}",
        integrity={"vouched": vouched, "unlisted": unlisted, "agree": None},
    )


def _padding(report: Report, side: McoreSide) -> None:
    known = side.known
    cut = known.rows - side.config.text.vocab
    names = sorted({box.name for box in side.table.pads})
    text = (
        f"{cut} padding rows cut from each of {', '.join(names)} ({known.padding})"
        if cut
        else f"no padding: {known.rows} rows"
    )
    report.fact("vocabulary", text, padding_rows=cut, padded_tensors=names, padding_because=known.padding)


def describe_hf(report: Report, side: HfSide) -> None:
    """What was recognised in a Hugging Face directory."""
    report.fact(
        "source", f"{shown_path(side.directory)}: Hugging Face safetensors", source=str(side.directory), format="hf"
    )
    _model(report, side.config)
    describe_dialect(report, side.config, side.dialect)
    _tie(report, side.config, side.tie)
    if side.copy:
        report.fact("dropped", f"{shown(side.copy)}, bit for bit the embedding that it is tied to", dropped=side.copy)
    _dtypes(report, side.reader, None)
    report.warnings += told_holes(side.chunks.holes)


def describe_dialect(report: Report, config: ModelConfig, dialect: Dialect) -> None:
    """How the Hugging Face side spells what can be spelled several ways."""
    if config.text.experts:
        report.fact("experts", dialect.experts, experts_form=dialect.experts)
    if model_of(config).traits.later_prefixes:
        report.fact("hf_names", dialect.hf_names, hf_names=dialect.hf_names)


def _model(report: Report, config: ModelConfig) -> None:
    t, v = config.text, config.vision
    moe = f", {t.experts} experts of {t.moe_ffn}" if t.experts else ""
    text = (
        f"{config.model_type}: {t.layers} layers of {t.hidden}, {t.heads}/{t.groups} heads{moe}, vocabulary {t.vocab}; "
        f"vision {v.depth} blocks of {v.hidden}"
    )
    report.fact("model", text, model_type=config.model_type)


def _tie(report: Report, config: ModelConfig, tie: Tie) -> None:
    report.fact(
        "embeddings",
        f"{'tied' if config.text.tied else 'not tied'}, by {tie.said}",
        tied=config.text.tied,
        tie_because=tie.said,
    )


def _dtypes(report: Report, reader: Reader, dtype: str | None) -> None:
    """How many tensors of each dtype; the few that differ from the rest by name."""
    counts = Counter(spec.dtype for spec in reader.specs.values())
    (most, count), *others = counts.most_common()
    names = {kind: [n for n, spec in reader.specs.items() if spec.dtype == kind] for kind, _ in others}
    few = " and ".join(f"{len(listed)} {kind} ({_some(listed)})" for kind, listed in names.items())
    text = f"{few} among {count} {most}" if few else f"{count} {most}"
    report.fact(
        "dtypes",
        f"all cast to {dtype}: {text}" if dtype else f"kept as they are: {text}",
        dtypes=dict(counts),
        cast_to=dtype,
        other_dtypes=names,
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:LISTED])) + (f", … {len(names) - LISTED} more" if len(names) > LISTED else "")
