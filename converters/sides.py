"""The two sides of a conversion, opened: what a directory holds, how that is known, and a Reader of its tensors under the names of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from .blame import check_shapes
from .config.facts import geometry_facts, runtime_facts
from .config.hf_config import read_config
from .config.megatron_args import contradictions
from .config.megatron_args import stated as facts_of
from .config.reference import Reference, find_reference
from .errors import MismatchError, shown
from .formats import hf, open_mcore
from .formats.opened import Opened
from .formats.statements import Stated, statements
from .layouts import Layout, detect, named
from .layouts.refusals import refuse, stripped
from .layouts.splits import split_of
from .models import MODELS, Model, ModelConfig, Tie, decide_tie, model_for
from .models.hf_dialects import Dialect, dialect_copies, read_dialect
from .plan import Mapped, Renamed, check_names, prove
from .rules import Table, flipped, hulls, table
from .tensors import Reader, Shape, TensorSpec
from .vocabulary import explain

EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT = "output_layer.weight"


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
    raw = hf.open_hf(directory)
    refuse_quantised(raw.specs)
    tie = decide_tie(hf_config, "lm_head.weight" in raw.specs)
    config = model.config(hf_config, tie.tied)
    dialect = read_dialect({name: spec.shape for name, spec in raw.specs.items()}, config, experts_form)
    check_names(raw.specs, dialect_shapes(config, dialect), str(directory))
    check_shapes(raw.specs, dialect_shapes(config, dialect), config, lambda c: dialect_shapes(c, dialect), str(directory))
    return HfSide(directory, hf_config, model, config, tie, dialect, Mapped(raw, dialect_copies(config, dialect)))


def dialect_shapes(config: ModelConfig, dialect: Dialect) -> dict[str, Shape]:
    """Names and shapes of a model in a dialect."""
    return hulls(copy.left for copy in dialect_copies(config, dialect))


def refuse_quantised(specs: Mapping[str, TensorSpec]) -> None:
    """Refuse weights that are no plain floats."""
    for name, spec in specs.items():
        if not spec.dtype.startswith(("float16", "float32", "float64", "bfloat16")):
            raise MismatchError(f"{shown(name)} has dtype {spec.dtype}", "Only plain, unquantised floating-point weights are converted.")


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
    found = find_reference(reference, revision, near=opened.directory)
    model = _model(found, chosen)
    output = any(n.endswith(OUTPUT) for n in specs)
    tie = _tie(found.config, None if output and opened.tied_copy else output, chosen)
    config = model.config(found.config, tie.tied)
    overridden, unproven = _agree(found.config, config, stated, trust_reference)
    rows, padding = _rows(specs, config, divisor, stated)
    mapping = mapped_table(chosen, config, rows)
    reader = _reader(opened, names, chosen, config, mapping)
    return McoreSide(
        opened=opened,
        layout=chosen,
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
    )


def _model(reference: Reference, layout: Layout) -> Model:
    model = model_for(reference.config)
    if model.model_type not in layout.models:
        raise MismatchError(
            f"the checkpoint's layout {layout.name} is one of {', '.join(layout.models)}; the reference is a {model.model_type}", f"The reference is {reference.directory}."
        )
    return model


def _reader(opened: Opened, names: Mapping[str, str], layout: Layout, config: ModelConfig, mapping: Table) -> Reader:
    """The checkpoint's tensors under the table's names, complete and of the right shapes, their chunks tiling them."""
    where, want = str(opened.directory), mapping.left()
    found = _respell(names, layout, config)
    if config.text.tied and opened.tied_copy:
        found = {name: old for name, old in found.items() if not name.endswith(OUTPUT)}
    _complete({name: opened.specs[old] for name, old in found.items()}, want, where)
    whole = opened.assemble({old: split_of(name, layout, config) for name, old in found.items()})
    reader = Renamed(whole, found)
    rows = next((shape[0] for name, shape in want.items() if name.endswith(EMBEDDING)), 0)
    check_shapes(reader.specs, want, config, lambda c: table(layout.rules(c, max(rows, c.text.vocab))).left(), where)
    whole.check_tiling()
    return reader


def mapped_table(layout: Layout, config: ModelConfig, rows: int) -> Table:
    """The table of a layout for a config, proven to cover both sides, its right side being exactly the model's tensors."""
    mapping = table(layout.rules(config, rows))
    prove(mapping)
    if mapping.right() != MODELS[config.model_type].hf_tensors(config):
        raise MismatchError(f"layout {layout.name} does not map every tensor of this {config.model_type}", "This is a fault of vlconv: please report it with the config.json.")
    return mapping


def in_dialect(reader: Reader, config: ModelConfig, dialect: Dialect) -> Mapped:
    """Tensors under the Hub's names, in another dialect."""
    return Mapped(reader, flipped(dialect_copies(config, dialect)))


def from_hf(side: Reader, mapping: Table) -> Mapped:
    """Hugging Face tensors under the names of a table's left side; padding reads as zeros."""
    return Mapped(side, flipped(mapping.copies), mapping.pads)


def _tie(hf_config: dict[str, Any], output_layer: bool | None, layout: Layout) -> Tie:
    try:
        return decide_tie(hf_config, output_layer)
    except MismatchError as error:
        raise MismatchError(error.what, layout.untied_hint if layout.untied_hint and output_layer is False else error.hint) from error


def _strip(specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """Name without wrappers -> name in the file."""
    names: dict[str, str] = {}
    for name in specs:
        short = stripped(name)
        if short in names:
            raise MismatchError(f"{shown(name)} and {shown(names[short])} are the same tensor behind different prefixes", "The checkpoint holds two models.")
        names[short] = name
    return names


def _respell(names: Mapping[str, str], layout: Layout, config: ModelConfig) -> dict[str, str]:
    """The table's name -> name in the file, where the file has another spelling of it."""
    found = dict(names)
    for other, ours in layout.spellings(config):
        if other in found and ours not in found:
            found[ours] = found.pop(other)
    return found


def _rows(specs: Mapping[str, TensorSpec], config: ModelConfig, divisor: int | None, stated: list[Stated]) -> tuple[int, str]:
    """Rows of the embedding and why there are so many."""
    shapes: list[Shape] = [spec.shape for name, spec in specs.items() if name.endswith((EMBEDDING, OUTPUT)) and spec.shape]
    rows = {shape[0] for shape in shapes}
    if len(rows) > 1:
        raise MismatchError(f"embedding and output layer have different numbers of rows: {' and '.join(map(str, sorted(rows)))}", "The checkpoint is damaged.")
    if not rows:
        return config.text.vocab, ""
    merged = {k: v for s in stated for k, v in s.values.items() if k in ("vocab_size", "padded_vocab_size")}
    return (count := rows.pop()), explain(count, config.text.vocab, divisor, merged)


def _agree(hf_config: dict[str, Any], config: ModelConfig, stated: list[Stated], trust_reference: bool) -> tuple[list[str], list[str]]:
    """What the checkpoint states otherwise than the reference, and the fields that nothing in the checkpoint shows or states."""
    runtime = runtime_facts(hf_config, config)
    facts = runtime | geometry_facts(hf_config, config)
    found = [f"{line} ({s.where})" for s in stated for line in contradictions(facts, s.values)]
    if found and not trust_reference:
        listed = "\n".join(f"  {line}" for line in found[:10])
        raise MismatchError(f"the reference config contradicts the checkpoint:\n{listed}", "Give the right --reference; --trust-reference overrides, and is recorded.")
    said = {name for s in stated for name in facts_of(s.values)}
    return found, [fact.place for name, fact in runtime.items() if name not in said and name != "tied"]


def _complete(have: Mapping[str, TensorSpec], want: Mapping[str, Shape], where: str) -> None:
    """check_names, but a wrong number of layers is said as such."""
    for tower, what, field in ((False, "decoder layers", "text_config.num_hidden_layers"), (True, "vision blocks", "vision_config.depth")):
        found, expected = _layers(have, tower), _layers(want, tower)
        if found and found != expected:
            raise MismatchError(f"{where}: has {found} {what} where the reference's {field} is {expected}", "The reference config belongs to another model or size.")
    check_names(have, want, where)


def _layers(names: Iterable[str], tower: bool) -> int:
    """How many layers the names number, in the vision tower or outside it."""
    parts = (name.split(".") for name in names if ("vis" in name or "image_encoder" in name) == tower)
    return len({part for name in parts for before, part in pairwise(name) if before in ("layers", "blocks") and part.isdigit()})
