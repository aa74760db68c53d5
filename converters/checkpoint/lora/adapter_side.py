"""An adapter (LoRA) in a Megatron checkpoint: beside its base, or alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...adapters.adapter import Adapter, Kind
from ...adapters.expert_copies import copies_told
from ...adapters.names import TITLES, Found, separate
from ...adapters.read import Base, adapter_of, check_format
from ...adapters.stated import Told, told_of
from ...errors import UnsupportedError, shown
from ...formats import open_mcore
from ...formats.chunks import ChunkReader
from ...formats.directory.statements import adapter_statements, statements
from ...formats.holes import told as told_holes
from ...formats.opened import Opened, Summed
from ...formats.seen_files import SeenFiles
from ...layouts import LAYOUTS, named
from ...layouts.layout import Layout
from ...layouts.shared.splits import split_of
from ...models import model_of
from ...models.shared.config import ModelConfig
from ...options import McoreSource
from ...tensors.rules import Copy, table
from ...tensors.vocabulary import OUTPUT_LAYER
from ..collector import paused
from ..mapping import mapped_table
from ..recognise import without_wrappers


@dataclass(frozen=True)
class AdapterFiles:
    """A checkpoint that holds an adapter alone, opened; whose it is only its base tells.

    Attributes:
        opened: its files.
        found: the adapter by its names.
        told: what is stated of it.
        files: all files that were opened.
    """

    opened: Opened
    found: Found
    told: Told
    files: SeenFiles

    @property
    def directory(self) -> Path:
        """The folder that holds the files."""
        return self.opened.directory


@dataclass(frozen=True)
class AdapterSide:
    """The same with its base.

    Attributes:
        alone: the files.
        layout: whose names its modules have.
        adapter: every change.
        chunks: the reader below it.
    """

    alone: AdapterFiles
    layout: Layout
    adapter: Adapter
    chunks: ChunkReader

    @property
    def directory(self) -> Path:
        """The folder that holds the files."""
        return self.alone.directory

    @property
    def kind(self) -> Kind:
        """What it is by its names."""
        return self.alone.found.kind

    @property
    def checkpoints(self) -> tuple[Summed, ...]:
        """The checkpoint, with what vouches for its bytes."""
        return (Summed(self.chunks, self.alone.opened.integrity),)

    @property
    def warnings(self) -> list[str]:
        """What is to be told of the files."""
        return [*told_holes(self.chunks.holes), *self.alone.opened.warnings]


@paused()
def open_adapter_files(source: Path, asked: McoreSource) -> AdapterFiles | None:
    """Open a checkpoint that holds an adapter alone; None: it holds something else.

    Raises:
        VlconvError: of every kind that errors.py names for a source.
    """
    files = SeenFiles()
    with files.noting():
        opened = open_mcore(source, asked.iteration)
        separated = separate(without_wrappers(opened.specs))
        if separated.adapter is None or separated.base:
            return None
        check_format(opened)
        return AdapterFiles(opened, separated.adapter, told(opened, asked.lora_alpha), files)


def told(opened: Opened, alpha: float | None) -> Told:
    """What a checkpoint states of its adapter; `alpha`: --lora-alpha."""
    directory = opened.directory
    return told_of(adapter_statements(directory, statements(directory, opened.args)), alpha)


@paused()
def open_adapter_side(alone: AdapterFiles, config: ModelConfig, layout: str | None) -> AdapterSide:
    """Read an adapter with its base's config.

    Args:
        alone: its files.
        config: of the base.
        layout: whose names the modules have, where the user says it.

    Raises:
        MismatchError, UnsupportedError: it does not fit; see `adapter_of`.
    """
    if alone.told.changes_base:
        raise UnsupportedError(
            f"the adapter began as {shown(alone.told.changes_base)}, which changes the base's weights before the first "
            "step, and the checkpoint does not hold that base",
            "Merge it with the trainer.",
        )
    found = alone.found
    chosen = named(layout) if layout else _layout_of(found, config)
    naming = mapped_table(chosen, config, _rows(alone, config))
    with alone.files.noting():
        chunks = alone.opened.assemble({})
        chunks.check_tiling()
        base = Base(chosen, config, naming.table)
        adapter = adapter_of(found, alone.told, base, alone.opened, chunks)
        alone.opened.warnings += copies_told(found, alone.told, chunks)
    return AdapterSide(alone, chosen, adapter, chunks)


def _rows(alone: AdapterFiles, config: ModelConfig) -> int:
    """Rows of the vocabulary: of an adapter of the output layer, else those without padding."""
    specs = alone.opened.specs
    ours = [h.b for place, h in alone.found.halves.items() if f"{place.module}.weight".endswith(OUTPUT_LAYER)]
    return max([config.text.vocab, *(specs[b].shape[0] for b in ours if specs[b].shape)])


def _layout_of(found: Found, config: ModelConfig) -> Layout:
    """Whose names the modules have. Several trainers have the same: then what the rows are must be the same, too.

    Raises:
        UnsupportedError: no layout of this model has such modules, or they mean different things.
    """
    model = config.model_type
    served = [x for x in LAYOUTS.values() if model in x.models and found.family in x.adapters]
    meanings = {layout.name: _meaning(found, layout, config) for layout in served}
    known = {name: meaning for name, meaning in meanings.items() if meaning is not None}
    if not known:
        place = next(iter(found.halves))
        raise UnsupportedError(
            f"the adapter changes modules such as {shown(place.module)}, in {TITLES[found.family]}, and no trainer's "
            f"{model} has all of these modules",
            f"The base is another model, or --layout says whose names they are: {', '.join(LAYOUTS)}.",
        )
    first, *others = known
    if any(known[other] != known[first] for other in others):
        raise UnsupportedError(
            "trainers keep the rows of these modules in different orders, under the same names",
            f"Say who saved it: --layout {' or --layout '.join(known)}.",
        )
    return LAYOUTS[first]


def _meaning(found: Found, layout: Layout, config: ModelConfig) -> list[object] | None:
    """What a layout says of the modules; None: it has not all of them."""
    weights: dict[str, list[Copy]] = {}
    for copy in table(layout.rules(config, config.text.vocab)).copies:
        weights.setdefault(copy.left.name, []).append(copy)
    spelled, traits = dict(layout.spellings(config)), model_of(config).traits
    meaning: list[object] = []
    for place in found.halves:
        name = f"{place.module}.weight"
        name = spelled.get(name, name)
        if name not in weights:
            return None
        meaning += [weights[name], split_of(name, layout, traits, config.text)]
    return meaning
