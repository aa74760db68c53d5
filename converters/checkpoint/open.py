"""The two sides of a conversion, opened.

What a directory holds, how that is known, and a Reader of its tensors under the names of the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config.from_facts import config_from_facts
from ..config.hf_config import read_config
from ..config.reference import Reference, find_reference
from ..config.shape_facts import visible_traits
from ..errors import MismatchError, shown
from ..formats import open_mcore, safetensors
from ..formats.chunks import ChunkReader
from ..formats.opened import Opened
from ..formats.statements import Stated, statements
from ..layouts import detect, named
from ..layouts.layout import Layout
from ..layouts.refusals import refuse, stripped
from ..layouts.splits import split_of
from ..models import model_for, model_of, model_with
from ..models.config import ModelConfig
from ..models.fields import Tie, decide_tie
from ..models.hf_dialects import Dialect, dialect_copies, read_dialect
from ..models.model import Model
from ..tensors.mapped import Mapped, Renamed, check_names, prove
from ..tensors.rules import Table, flipped, hulls, table
from ..tensors.spec import Reader, Shape, TensorSpec
from ..tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from .consistency import agreed_facts, agreed_model, agreed_rows, agreed_tie, check_complete
from .shape_errors import check_shapes


@dataclass(frozen=True)
class HfSide:
    """A Hugging Face directory."""

    directory: Path
    hf_config: dict[str, Any]
    model: Model
    config: ModelConfig
    tie: Tie
    dialect: Dialect
    reader: Reader  # canonical names


@dataclass(frozen=True)
class McoreSide:
    """A Megatron checkpoint."""

    opened: Opened
    layout: Layout
    seen_by: str
    reference: Reference
    model: Model
    config: ModelConfig
    tie: Tie
    stated: list[Stated]
    overridden: list[str]  # contradictions that --trust-reference settled
    unproven: list[str]  # what only the reference says
    padding: str  # why there are more rows than the vocabulary has; "" without
    table: Table
    reader: Reader  # the names of the table's left side
    chunks: ChunkReader  # below it

    @property
    def directory(self) -> Path:
        """The folder that holds the files."""
        return self.opened.directory

    @cached_property
    def as_hf(self) -> Mapped:
        """The same tensors under their Hugging Face names."""
        return Mapped(self.reader, self.table.copies)

    @property
    def rows(self) -> int:
        """Rows of the embedding, padding included."""
        return next(spec.shape[0] for name, spec in self.reader.specs.items() if name.endswith(EMBEDDING))


def open_hf_side(directory: Path, experts_form: str | None = None) -> HfSide:
    """Open a Hugging Face directory; every name and shape is checked against its config.

    Args:
        directory: with config.json and safetensors weights.
        experts_form: how its experts are oriented, where their shape cannot show it.

    Raises:
        VlconvError: of every kind that errors.py names for a source.
    """
    hf_config = read_config(directory)
    model = model_for(hf_config)
    raw = safetensors.open_hf(directory)
    refuse_quantised(raw.specs)
    tie = decide_tie(hf_config, "lm_head.weight" in raw.specs)
    config = model.config(hf_config, tie.tied)
    dialect = read_dialect({name: spec.shape for name, spec in raw.specs.items()}, config, experts_form)
    check_names(raw.specs, dialect_shapes(config, dialect), str(directory))
    check_shapes(
        raw.specs, dialect_shapes(config, dialect), config, lambda c: dialect_shapes(c, dialect), str(directory)
    )
    return HfSide(directory, hf_config, model, config, tie, dialect, Mapped(raw, dialect_copies(config, dialect)))


def dialect_shapes(config: ModelConfig, dialect: Dialect) -> dict[str, Shape]:
    """Names and shapes of a model in a dialect."""
    return hulls(copy.left for copy in dialect_copies(config, dialect))


def refuse_quantised(specs: Mapping[str, TensorSpec]) -> None:
    """Refuse weights that are no plain floats."""
    for name, spec in specs.items():
        if not spec.dtype.startswith(("float16", "float32", "float64", "bfloat16")):
            raise MismatchError(
                f"{shown(name)} has dtype {spec.dtype}", "Only plain, unquantised floating-point weights are converted."
            )


def open_mcore_side(
    source: Path,
    *,
    reference: str | None = None,
    revision: str | None = None,
    iteration: int | None = None,
    layout: str | None = None,
    divisor: int | None = None,
    trust_reference: bool = False,
) -> McoreSide:
    """Open a Megatron checkpoint of any format and layout; every name, shape and stated fact is checked against the reference config.

    Args:
        source: the checkpoint's directory or one above it.
        reference, revision: see find_reference.
        iteration: which of several.
        layout: overrides recognition.
        divisor: --make-vocab-size-divisible-by, to explain padding.
        trust_reference: the reference wins over what the checkpoint states of itself.

    Raises:
        VlconvError: of every kind that errors.py names for a source.
    """
    opened = open_mcore(source, iteration)
    names = _strip(opened.specs)
    specs = {new: opened.specs[old] for new, old in names.items()}
    refuse(specs)
    chosen = named(layout) if layout else detect(specs)
    stated = statements(opened.directory, opened.args)
    found = find_reference(reference, revision, near=opened.directory) or _own_config(
        opened, names, chosen, stated, divisor
    )
    model = agreed_model(found, chosen)
    output = any(n.endswith(OUTPUT_LAYER) for n in specs)
    tie = agreed_tie(found.config, None if output and opened.tied_copy else output, chosen)
    config = model.config(found.config, tie.tied)
    overridden, unproven = agreed_facts(found, config, stated, trust_reference)
    rows, padding = agreed_rows(specs, config, divisor, stated)
    settled = (
        chosen.settle(chosen, {name: spec.shape for name, spec in specs.items()}, config) if chosen.settle else chosen
    )
    mapping = mapped_table(settled, config, rows)
    reader, chunks = _reader(opened, names, settled, config, mapping)
    return McoreSide(
        opened=opened,
        layout=settled,
        seen_by=f"--layout {chosen.name}" if layout else chosen.why,
        reference=found,
        model=model,
        config=config,
        tie=tie,
        stated=stated,
        overridden=overridden,
        unproven=unproven,
        padding=padding,
        table=mapping,
        reader=reader,
        chunks=chunks,
    )


def _own_config(
    opened: Opened, names: Mapping[str, str], layout: Layout, stated: list[Stated], divisor: int | None
) -> Reference:
    """The config that the checkpoint itself gives: by what it states, by its shapes, or by the one release that they fit.

    Raises:
        ReferenceFault: it does not suffice; lists what is missing.
    """
    traits = model_with(visible_traits(names)).traits
    shapes = opened.shapes({old: split_of(new, layout, traits) for new, old in names.items()})
    made = config_from_facts(
        {new: shapes[old] for new, old in names.items()},
        [(s.where, s.values) for s in stated],
        divisor=divisor,
        tie_shown=not opened.tied_copy,
    )
    return Reference(None, "the checkpoint itself", made.hf_config, made.sources, made.release)


def _reader(
    opened: Opened, names: Mapping[str, str], layout: Layout, config: ModelConfig, mapping: Table
) -> tuple[Reader, ChunkReader]:
    """The checkpoint's tensors under the table's names, complete and of the right shapes, their chunks tiling them."""
    where, want = str(opened.directory), mapping.left()
    found = _respell(names, layout, config)
    if config.text.tied and opened.tied_copy:
        found = {name: old for name, old in found.items() if not name.endswith(OUTPUT_LAYER)}
    check_complete({name: opened.specs[old] for name, old in found.items()}, want, where)
    whole = opened.assemble({old: split_of(name, layout, model_of(config).traits) for name, old in found.items()})
    reader = Renamed(whole, found)
    rows = next((shape[0] for name, shape in want.items() if name.endswith(EMBEDDING)), 0)
    check_shapes(reader.specs, want, config, lambda c: table(layout.rules(c, max(rows, c.text.vocab))).left(), where)
    whole.check_tiling()
    return reader, whole


def mapped_table(layout: Layout, config: ModelConfig, rows: int) -> Table:
    """The table of a layout for a config, proven to cover both sides, its right side being exactly the model's tensors."""
    mapping = table(layout.rules(config, rows))
    prove(mapping)
    if mapping.right() != model_of(config).hf_tensors(config):
        raise MismatchError(
            f"layout {layout.name} does not map every tensor of this {config.model_type}",
            "This is a fault of vlconv: please report it with the config.json.",
        )
    return mapping


def in_dialect(reader: Reader, config: ModelConfig, dialect: Dialect) -> Mapped:
    """Tensors under the Hub's names, in another dialect."""
    return Mapped(reader, flipped(dialect_copies(config, dialect)))


def from_hf(side: Reader, mapping: Table) -> Mapped:
    """Hugging Face tensors under the names of a table's left side; padding reads as zeros."""
    return Mapped(side, flipped(mapping.copies), mapping.pads)


def _strip(specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """Name without wrappers -> name in the file."""
    names: dict[str, str] = {}
    for name in specs:
        short = stripped(name)
        if short in names:
            raise MismatchError(
                f"{shown(name)} and {shown(names[short])} are the same tensor behind different prefixes",
                "The checkpoint holds two models.",
            )
        names[short] = name
    return names


def _respell(names: Mapping[str, str], layout: Layout, config: ModelConfig) -> dict[str, str]:
    """The table's name -> name in the file, where the file has another spelling of it."""
    found = dict(names)
    for other, ours in layout.spellings(config):
        if other in found and ours not in found:
            found[ours] = found.pop(other)
    return found
