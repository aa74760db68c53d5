"""verify of one checkpoint: there and back, in memory window by window, or really written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.absent.union import only
from ..checkpoint.hf_side import HfReading, HfSide, open_hf_side
from ..checkpoint.mapping import Naming, mapped_table
from ..checkpoint.mcore_side import McoreSide, open_mcore_side
from ..conversion.convert import hf2mcore, mcore2hf
from ..layouts import named
from ..options import Hf2McoreOptions, Mcore2HfOptions, McoreSource, VerifyOptions
from ..output.staging.scratch import Scratch
from ..report import Observer, Phase, Report, tell_phase
from ..tensors.rules import Table
from ..tensors.spec import Box
from .comparison.by_rule import counting, there_and_back
from .comparison.compare import Comparison, Work

UNPROVEN = (
    "that the layout is right: both ways share one table, so a wrong order would come back equal. "
    "--forward shows it of the language model; of vision towers the forward passes in vlconv's tests do"
)


def round_trip(report: Report, side: HfSide | McoreSide, options: VerifyOptions) -> Work:
    """A side against what comes back from the other side, ready to run; told in the report."""
    where = "on disk" if options.on_disk else "in memory"
    report.fact("round_trip", f"through the other side and back, {where}", round_trip=where)
    if not options.forward:
        brief = "that the layout is right: both ways share one table. --forward shows that"
        report.fact("not_proven", UNPROVEN, brief=brief)
    if options.on_disk:
        return OnDisk(side, options.on_disk, options)
    if isinstance(side, McoreSide):
        back = side.naming.from_hf(side.to_hf().reader)
        return there_and_back(side.reader, back, side.naming.less_one, 1.0, list(unpadded(side.table)))
    naming = usual_naming(side)
    there = only(side.reader, naming.table.right())
    return there_and_back(there, naming.to_hf(naming.from_hf(there)).reader, naming.less_one.values(), -1.0)


def usual_naming(side: HfSide) -> Naming:
    """The table of the layout that a model is written in unless another is asked for."""
    return mapped_table(named(side.model.default_layout), side.config, side.config.text.vocab)


def unpadded(mapping: Table) -> Iterable[Box]:
    """Every left tensor's box without its padding rows."""
    rows = {box.name: box.offsets[0] for box in mapping.pads}
    for name, shape in mapping.left().items():
        yield Box(name, (0,) * len(shape), (rows.get(name, shape[0]), *shape[1:]) if shape else shape)


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The round trip with both outputs really written, in a folder below `place` that is removed afterwards."""

    side: HfSide | McoreSide
    place: Path
    options: VerifyOptions

    def __call__(self, threads: int, observer: Observer, values: bool) -> Comparison:
        """Write there, write back, compare."""
        scratch, watch = Scratch(self.place, "vlconv-verify"), _Watch(observer)
        try:
            with scratch as folder:
                back = (
                    self._from_hf(self.side, folder, threads, watch)
                    if isinstance(self.side, HfSide)
                    else self._from_mcore(self.side, folder, threads, watch)
                )
                return back(threads, observer, values)
        finally:
            scratch.remove()

    def _from_hf(self, side: HfSide, folder: Path, threads: int, watch: Observer) -> Work:
        bare = self.options.no_output_layer
        there = Hf2McoreOptions(
            threads=threads,
            experts_form=self.options.experts_form,
            mtp=self.options.mtp_of_hf,
            no_output_layer=bare,
        )
        hf2mcore(side.directory, folder / "mcore", there, watch)
        mcore2hf(folder / "mcore", folder / "hf", Mcore2HfOptions(threads=threads, no_output_layer=bare), watch)
        back = open_hf_side(folder / "hf", HfReading("hub", no_output_layer=bare))
        return there_and_back(side.reader, back.reader, usual_naming(side).less_one.values(), -1.0)

    def _from_mcore(self, side: McoreSide, folder: Path, threads: int, watch: Observer) -> Work:
        there = Mcore2HfOptions(
            reference=str(side.known.reference.directory) if side.known.reference.directory else None,
            layout=side.layout.name,
            make_vocab_size_divisible_by=self.options.make_vocab_size_divisible_by,
            trust_reference=True,
            mtp=self.options.mtp,
            carry=self.options.carry,
            no_output_layer=self.options.no_output_layer,
            threads=threads,
        )
        mcore2hf(side.directory, folder / "hf", there, watch)
        # A layout that is only read, or that has no names for what goes along, comes back in the model's usual one.
        same = "torch_dist" in side.layout.writes and side.known.carried is None
        layout = side.layout.name if same else None
        bare = self.options.no_output_layer
        options = Hf2McoreOptions(threads=threads, as_layout=layout, experts_form="hub", no_output_layer=bare)
        hf2mcore(folder / "hf", folder / "mcore", options, watch)
        back = open_mcore_side(folder / "mcore", McoreSource(no_output_layer=bare))
        view = side.to_hf(dtypes=side.reference_dtypes.found)
        ours = side.with_carried(view.reader)
        work = there_and_back(ours, back.as_hf, back.naming.less_one.values(), -1.0)
        return counting(work, side.naming, view.step)


class _Watch:
    """Hears of the phases and bytes of inner commands, but not of their plans."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.progress = observer.progress

    def phase(self, phase: Phase) -> None:
        """Tell it."""
        tell_phase(self._observer, phase)

    def planned(self, report: Report) -> None:
        """Ignore it."""
