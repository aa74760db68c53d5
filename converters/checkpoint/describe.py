"""What is said of an opened side: sentences for people and the same as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..config.reference import Reference
from ..errors import shown, shown_path, sized
from ..formats import FORMATS
from ..formats.dcp.integrity import vouched
from ..formats.directory.locate import iteration_of
from ..formats.holes import told as told_holes
from ..formats.opened import Summed
from ..formats.seen_files import SeenFiles
from ..hub.cached import cached_id
from ..report import Report
from ..tensors.fp8.dequantised import RULE as DEQUANTISED
from ..tensors.offset import RULE, Offset
from ..tensors.spec import Reader
from .absent.carried import Carried
from .absent.mtp import FIELD
from .describe_model import describe_dialect, describe_model, describe_tie
from .hf_side import HfSide
from .lora.describe_adapter import describe_adapter, describe_apart
from .mapping import alone
from .mcore_side import McoreSide

SAID = 20
"""Warnings of one kind that are shown: two checkpoints mixed up would give hundreds."""


LISTED = 3
"""Tensors that a sentence names; the data has them all."""

HEAD = "tensors of a multi-token-prediction head"
"""What is ignored where one is dropped."""


def describe_mcore(report: Report, side: McoreSide, dtype: str | None = None) -> None:
    """What was recognised in a Megatron checkpoint, and on whose word."""
    opened, layout = side.opened, side.layout
    report.fact(
        "source",
        f"{shown_path(side.directory)}: {FORMATS[opened.format].title}, {opened.form}",
        source=str(side.directory),
        format=opened.format,
        form=opened.form,
        iteration=iteration_of(side.directory),
    )
    report.fact(
        "layout",
        f"{layout.name} ({layout.trainers}), because {side.seen.seen_by}",
        brief=f"{layout.name} ({layout.trainers})",
        layout=layout.name,
        layout_because=side.seen.seen_by,
    )
    describe_model(report, side.whole)
    _config_from(report, side.known.reference)
    _agreement(report, side)
    describe_tie(report, side.config, side.known.tie)
    _padding(report, side)
    _dtypes(report, side.reader, dtype)
    _carried(report, side)
    if side.apart:
        describe_apart(report, side.apart, side.directory)
    elif side.adapter and side.seen.adapter:
        describe_adapter(report, side.adapter, side.seen.adapter.kind, "its base is in the checkpoint, too")
    if opened.ignored:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(opened.ignored.items()))
        report.fact("ignored", f"entries that are no weights: {listed}", brief="", ignored=opened.ignored)
    _left_behind(report, side.left_behind, restated=side.known.head.restated)
    _unclaimed(report, opened.unclaimed)
    _integrity(report, side.checkpoints, side.files)
    report.warnings += told_holes(side.chunks.holes)
    told = opened.warnings[:SAID]
    report.warnings += told + [f"… and {len(opened.warnings) - SAID} more tensors that differ between ranks"] * (
        len(opened.warnings) > SAID
    )


def _config_from(report: Report, found: Reference) -> None:
    if found.directory:
        less = "; its quantization_config stays behind" if found.quantization else ""
        report.fact(
            "config_from",
            f"{shown_path(found.directory)} ({found.said}){less}",
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
        brief=f"{found.said}, for want of a reference",
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
        report.fact("agrees_with", ", ".join(stated), brief="", agrees_with=stated)
    if known.overridden:
        report.fact("overridden", "; ".join(known.overridden), overridden=known.overridden)
        report.warnings.append("the reference contradicts the checkpoint, and --trust-reference made it win")
    if known.unproven:
        found = known.reference
        whose = "the reference" if found.directory else found.release
        alone = shown(found.hub_id) if found.hub_id else shown_path(found.directory) if found.directory else whose
        names = [place.rpartition(".")[2] for place in known.unproven]
        listed = ", ".join(names[:LISTED]) + ", …" * (len(names) > LISTED)
        count = f"{len(names)} facts rest" if len(names) > 1 else "1 fact rests"
        report.fact(
            "not_provable",
            f"taken from {whose}, this checkpoint cannot show them: {', '.join(known.unproven)}",
            brief=f"{count} on {alone} alone: {listed}; --verbose lists them",
            not_provable=known.unproven,
        )


def _integrity(report: Report, checkpoints: Sequence[Summed], files: SeenFiles) -> None:
    """What integrity.json vouches for, where there is one, and what not."""
    found = [one.integrity for one in checkpoints if one.integrity]
    if not found:
        return
    listed, unlisted, nbytes = vouched(found, files)
    others = f"; it does not list {_some(unlisted)}" if unlisted else ""
    report.fact(
        "to_hash",
        f"{len(listed)} files that integrity.json lists, {sized(nbytes)}, before the weights are read (SHA-256)"
        f"{others}",
        brief="",
        integrity={"vouched": listed, "unlisted": unlisted, "agree": None},
    )


def _padding(report: Report, side: McoreSide) -> None:
    known = side.known
    config_rows = side.config.text.vocab
    cut = known.rows - config_rows
    names = sorted({box.name for box in side.table.pads})
    text = (
        f"{cut} padding rows cut from each of {', '.join(names)} ({known.padding})"
        if cut
        else f"no padding: {known.rows} rows"
    )
    brief = f"{cut} padding rows cut: {config_rows} are left" if cut else ""
    report.fact("vocabulary", text, brief=brief, padding_rows=cut, padded_tensors=names, padding_because=known.padding)


def describe_hf(report: Report, side: HfSide) -> None:
    """What was recognised in a Hugging Face directory."""
    hub = cached_id(side.directory)
    of = f", {shown(hub.repo)} of the Hub at {shown(hub.revision, 13)}" if hub else ""
    report.fact(
        "source",
        f"{shown_path(side.directory)}: Hugging Face safetensors{of}",
        source=str(side.directory),
        format="hf",
    )
    describe_model(report, side.config)
    describe_dialect(report, side.config, side.dialect)
    describe_tie(report, side.config, side.tie)
    if side.copy:
        report.fact(
            "dropped", f"{shown(side.copy)}, bit for bit the embedding that it is tied to", brief="", dropped=side.copy
        )
    _as_it_is(report, side)
    _dequantised(report, side)
    _dtypes(report, side.reader, None)
    if side.adapter:
        describe_apart(report, side.adapter, side.directory)
    _left_behind(report, side.left_behind, restated=side.head_restated)
    _integrity(report, side.checkpoints, side.files)
    report.warnings += told_holes(side.chunks.holes)


def _as_it_is(report: Report, side: HfSide) -> None:
    """What is wrong with the two tensors that have a row per token."""
    if side.uncut:
        rows = side.config.text.vocab
        text = f"config.json counts {rows - side.uncut} tokens, and there are {rows} rows: {side.uncut} too many"
        report.fact("vocabulary", text, padding_rows=side.uncut)
    if side.stale:
        report.warnings.append(
            f"the model is tied, but its output layer is no copy of its embedding: {side.stale}; transformers 5 takes "
            "it, transformers 4.57 and vLLM drop it: two models"
        )


def _dequantised(report: Report, side: HfSide) -> None:
    """FP8 tensors that are made plain ones."""
    if side.step is None or side.quantization is None:
        return
    names, dtype = side.step.computed, side.step.dtype
    scales = " and ".join(side.step.scale_dtypes)
    report.fact(
        "dequantised",
        f"{len(names)} tensors are {side.quantization.title} with {scales} scales, and become {dtype}: "
        f"{DEQUANTISED}; config.json goes along without quantization_config",
        brief=f"{len(names)} tensors, {side.quantization.title}, become {dtype}",
        dequantised={
            "form": side.quantization.title,
            "scales": list(side.step.scale_dtypes),
            "dtype": dtype,
            "rule": DEQUANTISED,
            "tensors": names,
        },
    )


def _left_behind(report: Report, names: Sequence[str], *, restated: bool) -> None:
    """A multi-token-prediction head that is dropped, or the promise of one."""
    said = [f"{len(names)} tensors of a multi-token-prediction head ({_some(names)})"] * bool(names)
    said += [f"the promise of a multi-token-prediction head: {FIELD} becomes 0 in config.json"] * restated
    if said:
        report.fact("left_behind", "; ".join(said), left_behind=list(names), head_promise_taken_back=restated)
    if names:
        report.data["ignored"] = {**report.data.get("ignored", {}), HEAD: len(names)}


def _carried(report: Report, side: McoreSide) -> None:
    """What goes along from the reference."""
    carried = side.known.carried
    if carried is None:
        return
    specs = [*carried.reader.specs.values(), *carried.others.specs.values()]
    nbytes, count = sum(spec.nbytes for spec in specs), sum(carried.prefixes.values())
    listed = ", ".join(f"{number} {shown(prefix)}*" for prefix, number in carried.prefixes.items())
    reference = side.known.reference
    report.fact(
        "carried",
        f"{listed} from {shown_path(reference.directory)} ({reference.said}), {_as_what(carried)}: {sized(nbytes)} "
        "that the checkpoint does not hold, and that were not trained with it",
        carried={
            "tensors": count,
            "prefixes": dict(carried.prefixes),
            "bytes": nbytes,
            "from": str(reference.directory),
            "files": {path.name: path.stat().st_size for path in carried.files},
            "untrained": True,
        },
    )


def _as_what(carried: Carried) -> str:
    if carried.step is None:
        return "byte for byte"
    return f"byte for byte, but for {len(carried.step.computed)} that are FP8 there and become {carried.step.dtype}"


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
        brief=None if dtype or few else most,
        dtypes=dict(counts),
        cast_to=dtype,
        other_dtypes=names,
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:LISTED])) + (f", … {len(names) - LISTED} more" if len(names) > LISTED else "")


def describe_computed(report: Report, steps: Sequence[Offset]) -> None:
    """What is computed instead of moved, before it is."""
    adding = [step for step in steps if step.names]
    if adding:
        listed = " and ".join(
            f"{len(step.names)} tensors are the source's {'plus' if step.amount > 0 else 'minus'} one "
            f"({_some(step.names)})"
            for step in adding
        )
        report.fact(
            "computed",
            f"{listed}: {RULE}",
            brief=listed,
            computed=[{"tensors": step.names, "added": step.amount, "rule": RULE} for step in adding],
        )


def describe_reference_dtypes(report: Report, side: McoreSide, dtypes: Mapping[str, str]) -> None:
    """Tensors that get the dtype which the reference's weights have."""
    have = {hf: side.reader.specs[name].dtype for name, hf in alone(side.table, rights=dtypes).items()}
    changed = {name: dtype for name, dtype in dtypes.items() if have[name] != dtype}
    if changed:
        kinds = Counter(f"{have[name]} to {dtype}" for name, dtype in changed.items())
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        report.fact(
            "reference_dtypes",
            f"as the reference's weights have them: {listed} ({_some(list(changed))})",
            reference_dtypes=changed,
        )
    if side.reference_dtypes.why_not:
        report.warnings.append(
            f"dtypes are the checkpoint's alone, those of the reference's weights could not be had: "
            f"{side.reference_dtypes.why_not}"
        )
