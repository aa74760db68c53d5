"""verify --witness: one side held against what a foreign library makes of the same files."""

from __future__ import annotations

from ...checkpoint.hf_side import HfSide, dialect_shapes
from ...checkpoint.mcore_side import McoreSide
from ...errors import NotComparable, shown_path
from ...formats import FORMATS
from ...formats.dcp import torch_dist
from ...models.shared.hf_dialects import dialect_copies, read_dialect
from ...report import Difference, Observer, Phase, Report, tell_phase
from ...tensors.dtypes import FLOATS, ITEMSIZE
from ...tensors.mapped import Mapped
from ...tensors.spec import Shape
from ..comparison.compare import Comparison, compare
from . import foreign, megatron_core, transformers


class MegatronCore:
    """megatron-core reads a torch_dist checkpoint, and every element is compared, of padding rows too.

    Raises:
        NotComparable: another format, or megatron-core is missing.
    """

    def __init__(self, report: Report, side: McoreSide) -> None:
        self.side = side
        if side.opened.format != torch_dist.NAME:
            raise NotComparable(
                f"{shown_path(side.directory)} is {FORMATS[side.opened.format].title}, and "
                f"{megatron_core.LIBRARY} has a loader for torch_dist alone",
                "Leave --witness out, or compare with a Hugging Face directory.",
            )
        version = foreign.version(megatron_core.LIBRARY)
        report.fact(
            "witness",
            f"{megatron_core.LIBRARY} {version} reads the same directory with its own loader, which "
            "unpickles, and every element is compared",
            witness=megatron_core.LIBRARY,
            witness_version=version,
            witness_elements=True,
        )
        report.fact(
            "checks", "that keys, shapes, chunks and bytes are read as megatron-core reads them, padding rows included"
        )
        report.fact(
            "not_proven",
            "that the layout is right: which rows are which Hugging Face weights does not show in the files. The "
            "forward passes in vlconv's tests show that",
        )

    def __call__(self, threads: int, observer: Observer, values: bool) -> Comparison:
        """Read both ways, compare."""
        ours = self.side.opened.assemble({})  # as the keys say, before any layout is applied
        with megatron_core.read_by_megatron(self.side.directory) as theirs:
            return compare(ours, theirs, threads, observer, values=values)


class Transformers:
    """transformers makes a model of a Hugging Face directory: names and shapes are compared.

    Where the weights fit in free memory, every element is, too.

    Raises:
        NotComparable: transformers is missing.
    """

    def __init__(self, report: Report, side: HfSide) -> None:
        self.side = side
        if side.step:
            raise NotComparable(
                f"{shown_path(side.directory)} is FP8, and {transformers.LIBRARY} would not make plain weights of it",
                "Convert it, and have the plain weights read by the witness.",
            )
        self.version = foreign.version(transformers.LIBRARY)
        dtypes = {spec.dtype for spec in side.reader.specs.values()}
        self.widened = len(dtypes) > 1
        self.dtype = "float64" if "float64" in dtypes else "float32" if self.widened else min(dtypes)
        assert self.dtype in FLOATS
        need, free = (
            transformers.memory_needed(side.reader.specs, ITEMSIZE[self.dtype]),
            transformers.free_memory(),
        )
        self.loads = need <= free
        self._describe(report, need, free)

    def _describe(self, report: Report, need: int, free: int) -> None:
        what = f"every element of what from_pretrained loads as {self.dtype}" + (
            ", which holds all the files' dtypes exactly" if self.widened else ""
        )
        if not self.loads:
            what = "nothing more: names and shapes only"
            report.warnings.append(
                f"names and shapes only: loading the weights may take {need / 1e9:.1f} GB of memory, {free / 1e9:.1f} "
                "GB are free; no element is compared"
            )
        name = transformers.LIBRARY
        report.fact(
            "witness",
            f"{name} {self.version}: names and shapes of its empty model, and {what}",
            witness=name,
            witness_version=self.version,
            witness_elements=self.loads,
            memory_needed=need,
            memory_free=free,
        )
        elements = ", and that vlconv reads the same numbers" if self.loads else ""
        report.fact(
            "checks",
            f"that the directory holds all that {name} wants of it, under the right names and in the right "
            f"shapes{elements}",
        )
        report.fact(
            "not_proven",
            "that the weights are the right ones under their names: compare with the checkpoint they were made from",
        )

    def __call__(self, threads: int, observer: Observer, values: bool) -> Comparison:
        """Names and shapes; then elements, if nothing is wrong with those."""
        shapes = transformers.expected(self.side.directory)
        dialect = read_dialect(shapes, self.side.config)  # of the model in memory, whatever that of the files is
        ours = dialect_shapes(self.side.config, dialect)
        found = Comparison(differing_shapes(ours, shapes), len(ours), 0)
        if found.differences or not self.loads:
            return found
        tell_phase(observer, Phase.LOADING)
        theirs, faults = transformers.load(self.side.directory, self.dtype)
        if faults:
            return Comparison(faults, len(ours), 0)
        mapped = Mapped(theirs, dialect_copies(self.side.config, dialect))
        return compare(self.side.reader, mapped, threads, observer, values=values or self.widened)


def differing_shapes(a: dict[str, Shape], b: dict[str, Shape]) -> list[Difference]:
    """What two lists of names and shapes do not share."""
    found = [Difference(n, "only in A") for n in a if n not in b] + [
        Difference(n, "only in B") for n in b if n not in a
    ]
    return found + [
        Difference(n, "shape", note=f"{list(shape)} and {list(b[n])}")
        for n, shape in a.items()
        if n in b and b[n] != shape
    ]


def open_witness(report: Report, side: HfSide | McoreSide, library: str) -> MegatronCore | Transformers:
    """The witness of that name for a side, described in the report; it reads nothing before it is called.

    Raises:
        NotComparable: it is one for the other side, or missing.
    """
    if isinstance(side, McoreSide) and library == megatron_core.LIBRARY:
        return MegatronCore(report, side)
    if isinstance(side, HfSide) and library == transformers.LIBRARY:
        return Transformers(report, side)
    kind, other = ("Hugging Face", transformers) if isinstance(side, HfSide) else ("Megatron", megatron_core)
    raise NotComparable(
        f"{library} does not read {kind} directories such as {shown_path(side.directory)}",
        f"Use --witness {other.LIBRARY}.",
    )
