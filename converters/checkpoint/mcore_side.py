"""A Megatron checkpoint, opened: found, recognised, given a config, mapped, and read under the names of its table.

Each step hands the next one what it needs: `recognise` -> Recognised, `configure` -> Configured, `mapped_table` ->
Table, `read` -> Reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import shown_path
from ..formats import open_mcore
from ..formats.chunks import ChunkReader
from ..formats.opened import Opened
from ..formats.seen_files import SeenFiles
from ..layouts.layout import Layout
from ..layouts.shared.splits import split_of
from ..models import model_of
from ..models.shared.config import ModelConfig
from ..models.shared.model import Model
from ..options import McoreSource
from ..tensors.mapped import Mapped, Renamed
from ..tensors.rules import Table, table
from ..tensors.spec import Reader
from ..tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from .configure import Configured, configure
from .consistency import check_complete
from .mapping import mapped_table
from .recognise import Recognised, recognise
from .shape_errors import check_shapes


@dataclass(frozen=True)
class McoreSide:
    """A Megatron checkpoint.

    Attributes:
        seen: what was recognised in its files.
        known: the config that it is read with, and on whose word.
        layout: the trainer's naming, with what only the tensors show.
        table: the mapping.
        reader: the tensors under the names of the table's left side.
        chunks: the reader below it.
        files: all files that were opened.
    """

    seen: Recognised
    known: Configured
    layout: Layout
    table: Table
    reader: Reader
    chunks: ChunkReader
    files: SeenFiles

    @property
    def opened(self) -> Opened:
        """The files."""
        return self.seen.opened

    @property
    def directory(self) -> Path:
        """The folder that holds the files."""
        return self.opened.directory

    @property
    def model(self) -> Model:
        """Whose tensors they are."""
        return self.known.model

    @property
    def config(self) -> ModelConfig:
        """The model's integers."""
        return self.known.config

    @cached_property
    def as_hf(self) -> Mapped:
        """The same tensors under their Hugging Face names."""
        return Mapped(self.reader, self.table.copies)


def open_mcore_side(source: Path, asked: McoreSource) -> McoreSide:
    """Open a Megatron checkpoint of any format and layout.

    Every name, shape and stated fact is checked against the reference config.

    Args:
        source: the checkpoint's directory or one above it.
        asked: how it is to be read.

    Raises:
        VlconvError: of every kind that errors.py names for a source.
    """
    files = SeenFiles()
    with files.noting():
        seen = recognise(open_mcore(source, asked.iteration), asked.layout)
        known = configure(seen, asked)
        layout = _settled(seen, known.config)
        mapping = mapped_table(layout, known.config, known.rows)
        reader, chunks = _read(seen, layout, known.config, mapping)
    return McoreSide(seen, known, layout, mapping, reader, chunks, files)


def _settled(seen: Recognised, config: ModelConfig) -> Layout:
    """The layout with what only the tensors' shapes show."""
    layout = seen.layout
    if layout.settle is None:
        return layout
    return layout.settle(layout, {name: spec.shape for name, spec in seen.specs.items()}, config)


def _read(seen: Recognised, layout: Layout, config: ModelConfig, mapping: Table) -> tuple[Reader, ChunkReader]:
    """The checkpoint's tensors under the table's names, complete and of the right shapes, their chunks tiling them."""
    opened, where, want = seen.opened, shown_path(seen.opened.directory), mapping.left()
    found = _respelled(seen.names, layout, config)
    if config.text.tied and opened.tied_copy:
        found = {name: old for name, old in found.items() if not name.endswith(OUTPUT_LAYER)}
    check_complete({name: opened.specs[old] for name, old in found.items()}, want, layout, where)
    traits = model_of(config).traits
    whole = opened.assemble({old: split_of(name, layout, traits) for name, old in found.items()})
    reader = Renamed(whole, found)
    rows = next((shape[0] for name, shape in want.items() if name.endswith(EMBEDDING)), 0)
    check_shapes(reader.specs, want, config, lambda c: table(layout.rules(c, max(rows, c.text.vocab))).left(), where)
    whole.check_tiling()
    return reader, whole


def _respelled(names: Mapping[str, str], layout: Layout, config: ModelConfig) -> dict[str, str]:
    """The table's name -> name in the file, where the file has another spelling of it."""
    found = dict(names)
    for other, ours in layout.spellings(config):
        if other in found and ours not in found:
            found[ours] = found.pop(other)
    return found
