"""verify: two models of either side held against each other bit by bit, or one against its own round trip, or against what a foreign reader makes of it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .compare import Comparison, compare
from .convert import hf2mcore, mcore2hf, threads_of
from .errors import NotComparable, VlconvError
from .formats import hf
from .layouts import DEFAULTS, named
from .options import Hf2McoreOptions, Mcore2HfOptions, VerifyOptions
from .plan import Mapped
from .report import Observer, Report, Silent
from .rules import Table
from .sides import HfSide, McoreSide, from_hf, mapped_table, open_hf_side, open_mcore_side
from .tell import describe_comparison, describe_hf, describe_mcore
from .tensors import Box, Reader
from .witness import MegatronCore, Transformers, open_witness

Side = HfSide | McoreSide
Work = Callable[[int, Observer, bool], Comparison]
"""A comparison that is ready to run: threads, who watches, and whether equal values are enough."""


def verify(a: Path, b: Path | None, options: VerifyOptions, observer: Observer) -> Report:
    """Compare every element of two models, of one and its round trip, or of one and a witness.

    Args:
        a, b: Megatron or Hugging Face directories; b None: the round trip of a, or `options.witness`.

    Returns:
        a report whose status is "same" or "different" ("planned" for a dry run).

    Raises:
        NotComparable: a side cannot be read or is another model; nothing is said about equality then.
    """
    try:
        return _verify(a, b, options, observer)
    except NotComparable:
        raise
    except VlconvError as error:
        raise NotComparable(error.what, error.hint) from error


def _verify(a: Path, b: Path | None, options: VerifyOptions, observer: Observer) -> Report:
    report = Report("verify", "planned")
    begin = time.monotonic()
    if b is None:
        side = open_side(a, options, 0)
        _describe(report, side)
        work: Work = _witness(report, side, options) if options.witness else _round_trip(report, side, options)
    else:
        if options.witness or options.on_disk:
            raise NotComparable("a witness and --on-disk go with one checkpoint", "Leave B out.")
        work = _pair(report, *open_pair(a, b, options))
    observer.planned(report)
    if options.dry_run:
        return report
    found = work(threads_of(options.threads), observer, options.values)
    report.status = "different" if found.differences else "same"
    describe = describe_comparison if found.elements else _describe_names
    describe(report, found, time.monotonic() - begin)
    return report


class _Work:
    """Two readers, and which boxes count."""

    def __init__(self, a: Reader, b: Reader, boxes: list[Box] | None = None) -> None:
        self.a, self.b, self.boxes = a, b, boxes

    def __call__(self, threads: int, observer: Observer, values: bool) -> Comparison:
        return compare(self.a, self.b, threads, observer, self.boxes, values=values)


def open_side(path: Path, options: VerifyOptions, number: int, beside: Path | None = None) -> Side:
    """Open a directory as what it is.

    Args:
        path: a Megatron or Hugging Face directory.
        number: 0 for A, 1 for B: which of the references is meant.
        beside: a Hugging Face directory to fall back on as reference.
    """
    if hf.holds(path):
        return open_hf_side(path, options.experts_form)
    given = options.references[min(number, len(options.references) - 1)] if options.references else None
    return open_mcore_side(
        path,
        reference=given or (str(beside) if beside else None),
        revision=options.revision,
        iteration=options.iteration,
        layout=options.layout,
        divisor=options.make_vocab_size_divisible_by,
        trust_reference=options.trust_reference,
    )


def open_pair(a: Path, b: Path, options: VerifyOptions) -> tuple[Side, Side]:
    """Open both; where only one is a Hugging Face directory it serves the other as reference."""
    return open_side(a, options, 0, b if hf.holds(b) else None), open_side(b, options, 1, a if hf.holds(a) else None)


def _describe(report: Report, side: Side) -> None:
    if isinstance(side, McoreSide):
        describe_mcore(report, side)
    else:
        describe_hf(report, side)


def _pair(report: Report, a: Side, b: Side) -> Work:
    for name, side in (("A", a), ("B", b)):
        part = Report("verify", "")
        _describe(part, side)
        report.facts += [(f"{name} {label}", text) for label, text in part.facts if label in ("source", "layout", "config from", "vocabulary", "overridden", "not provable")]
        report.data[name.lower()] = part.data
        report.warnings += [f"{name}: {w}" for w in part.warnings]
    if a.model.model_type != b.model.model_type:
        raise NotComparable(f"A is a {a.model.model_type}, B a {b.model.model_type}", "Only two copies of one model can be compared.")
    return _Pair(a, b)


class _Pair:
    """Two sides under their Hugging Face names and, where both are Megatron's and padded, their common padding rows."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b

    def __call__(self, threads: int, observer: Observer, values: bool) -> Comparison:
        found = compare(_as_hf(self.a), _as_hf(self.b), threads, observer, values=values)
        if isinstance(self.a, McoreSide) and isinstance(self.b, McoreSide) and self.a.layout.name == self.b.layout.name:
            boxes = list(_common(self.a.table.pads, self.b.table.pads))
            padding = compare(self.a.reader, self.b.reader, threads, Silent(), boxes, values=values)
            return Comparison([*found.differences, *padding.differences], found.tensors, found.elements + padding.elements)
        return found


def _common(ours: Iterable[Box], theirs: Iterable[Box]) -> Iterable[Box]:
    others = {box.name: box for box in theirs}
    for box in ours:
        other = others.get(box.name)
        if other is not None and other.offsets == box.offsets:  # else the vocabularies differ, which is told already
            yield box._replace(lengths=(min(box.lengths[0], other.lengths[0]), *box.lengths[1:]))


def _as_hf(side: Side) -> Reader:
    return side.as_hf if isinstance(side, McoreSide) else side.reader


def _round_trip(report: Report, side: Side, options: VerifyOptions) -> Work:
    where = "on disk" if options.on_disk else "in memory"
    report.fact("round trip", f"through the other side and back, {where}", round_trip=where)
    report.fact(
        "not proven",
        "that the layout is right: both ways share one table, so a wrong order would come back equal. --witness, and the forward passes in vlconv's tests, are what shows that",
    )
    if options.on_disk:
        return _OnDisk(side, options.on_disk, options.make_vocab_size_divisible_by)
    if isinstance(side, McoreSide):
        return _Work(side.reader, from_hf(side.as_hf, side.table), list(unpadded(side.table)))
    mapping = mapped_table(named(DEFAULTS[side.config.model_type]), side.config, side.config.text.vocab)
    return _Work(side.reader, Mapped(from_hf(side.reader, mapping), mapping.copies))


def unpadded(mapping: Table) -> Iterable[Box]:
    """Every left tensor's box without its padding rows."""
    rows = {box.name: box.offsets[0] for box in mapping.pads}
    for name, shape in mapping.left().items():
        yield Box(name, (0,) * len(shape), (rows.get(name, shape[0]), *shape[1:]) if shape else shape)


class _OnDisk:
    """The round trip with both outputs really written, in a folder that is removed afterwards."""

    def __init__(self, side: Side, place: Path, divisor: int | None) -> None:
        self.side, self.place, self.divisor = side, place, divisor

    def __call__(self, threads: int, observer: Observer, values: bool) -> Comparison:
        folder = Path(tempfile.mkdtemp(prefix="vlconv-verify-", dir=self.place))
        try:
            return self._there_and_back(folder, threads, observer)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _there_and_back(self, folder: Path, threads: int, observer: Observer) -> Comparison:
        side = self.side
        there, back = Mcore2HfOptions(threads=threads), Hf2McoreOptions(threads=threads)
        if isinstance(side, HfSide):
            hf2mcore(side.directory, folder / "mcore", back, observer)
            mcore2hf(folder / "mcore", folder / "hf", there, observer)
            return compare(side.reader, open_hf_side(folder / "hf").reader, threads, observer)
        mcore2hf(side.directory, folder / "hf", _same_source(side, self.divisor), observer)
        hf2mcore(folder / "hf", folder / "mcore", Hf2McoreOptions(threads=threads, layout=side.layout.name), observer)
        again = open_mcore_side(folder / "mcore")
        return compare(side.reader, again.reader, threads, observer, list(unpadded(side.table)))


def _same_source(side: McoreSide, divisor: int | None) -> Mcore2HfOptions:
    """Options that open the same side again."""
    where = str(side.reference.directory) if side.reference.directory else None
    return Mcore2HfOptions(reference=where, layout=side.layout.name, trust_reference=True, make_vocab_size_divisible_by=divisor)


def _witness(report: Report, side: Side, options: VerifyOptions) -> Work:
    if options.on_disk:
        raise NotComparable("a witness and --on-disk are two checks", "Give one of them at a time.")
    assert options.witness
    return open_witness(report, side, options.witness)


def _describe_names(report: Report, found: Comparison, seconds: float) -> None:
    """The result where no element was compared: nothing is said about them."""
    report.differences = found.differences
    verdict = f"{len(found.differences)} of them differ" if found.differences else "the same"
    text = f"{found.tensors} tensors by name and shape, no element, in {seconds:.1f} s: {verdict}"
    report.fact("compared", text, tensors=found.tensors, elements=0, seconds=round(seconds, 3))
