"""A Megatron checkpoint, opened: found, recognised, given a config, mapped, and read under the names of its table.

Each step hands the next one what it needs: `recognise` -> Recognised, `configure` -> Configured, `match` -> Matched,
`read` -> Reader. Up to the last one no tensor is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from ..adapters.adapter import Adapter
from ..adapters.expert_copies import copies_told
from ..adapters.merged import Merged
from ..adapters.read import Base, adapter_of
from ..config.reference_weights import Dtypes, reference_dtypes, reference_names
from ..errors import ReferenceFault, shown_path
from ..formats import FORMATS, open_mcore
from ..formats.chunks import ChunkReader
from ..formats.opened import Opened, Summed
from ..formats.seen_files import SeenFiles
from ..layouts.layout import Layout
from ..models.shared.config import ModelConfig
from ..models.shared.hf_dialects import packs_head
from ..models.shared.model import Model
from ..options import McoreSource
from ..tensors.mapped import Renamed
from ..tensors.rules import Table
from ..tensors.spec import Reader
from .absent.mtp import MEGATRON
from .absent.union import Union
from .collector import paused
from .configure import Configured, configure
from .gated_order import check_gated_order
from .lora.adapter_side import AdapterSide, told
from .mapping import HfView, Naming
from .matched import Matched, match
from .recognise import Recognised, recognise

if TYPE_CHECKING:
    from .lora.peft_side import PeftAdapter


@dataclass(frozen=True)
class McoreSide:
    """A Megatron checkpoint.

    Attributes:
        seen: what was recognised in its files.
        known: the config that it is read with, and on whose word.
        layout: the trainer's naming, with what only the tensors show.
        naming: the mapping.
        reader: the tensors under the names of the table's left side.
        chunks: the reader below it.
        files: all files that were opened.
        adapter: low-rank changes of the weights (LoRA), which go into them on the way to Hugging Face; None: none.
        apart: where they are from, if not from this checkpoint.
    """

    seen: Recognised
    known: Configured
    layout: Layout
    naming: Naming
    reader: Reader
    chunks: ChunkReader
    files: SeenFiles
    adapter: Adapter | None = None
    apart: AdapterSide | PeftAdapter | None = None

    @property
    def opened(self) -> Opened:
        """The files."""
        return self.seen.opened

    @property
    def checkpoints(self) -> tuple[Summed, ...]:
        """This one, and that of an adapter that lies apart."""
        return (Summed(self.chunks, self.opened.integrity), *(self.apart.checkpoints if self.apart else ()))

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
        """The integers of what the checkpoint holds."""
        return self.known.config

    @property
    def whole(self) -> ModelConfig:
        """The integers of the model to write: that, and what goes along."""
        return self.known.whole

    @property
    def table(self) -> Table:
        """The mapping, as far as it moves."""
        return self.naming.table

    def to_hf(
        self,
        leave: Collection[str] = (),
        dtypes: Mapping[str, str] | None = None,
        merged: Mapping[str, str] | None = None,
    ) -> HfView:
        """The checkpoint's own tensors under their Hugging Face names, an adapter merged into them.

        Args:
            leave, dtypes: see Naming.to_hf.
            merged: dtypes of tensors that an adapter changes; others keep their own.
        """
        view = self.naming.to_hf(self.reader, leave, dtypes)
        if self.adapter is None:
            return view
        step = Merged(view.reader, self.adapter, merged)
        return HfView(step, view.step, step)

    def with_carried(self, reader: Reader) -> Reader:
        """Tensors under their Hugging Face names, and those that go along."""
        carried = self.known.carried
        return Union(reader, carried.reader, carried.others) if carried else reader

    @cached_property
    def as_hf(self) -> Reader:
        """All tensors under their Hugging Face names, what goes along included, in the dtypes that they have."""
        return self.with_carried(self.to_hf().reader)

    @cached_property
    def reference_dtypes(self) -> Dtypes:
        """The dtypes of what releases may hold in float32, in the reference's weights, as far as they are at hand."""
        with self.files.noting():
            return reference_dtypes(self.known.reference, self.model.float32_tensors(self.config))

    @cached_property
    def head_packed(self) -> bool:
        """Whether the reference's weights pack the experts of a multi-token-prediction head."""
        if not (self.config.text.mtp and self.config.text.experts):
            return False
        with self.files.noting():
            return packs_head(reference_names(self.known.reference))

    @property
    def left_behind(self) -> list[str]:
        """The checkpoint's tensors that are not wanted: of a multi-token-prediction head that is dropped."""
        return [name for name in self.seen.names if MEGATRON in name] if self.known.head.dropped else []


@paused()
def open_mcore_side(source: Path, asked: McoreSource, *, filling: bool = False) -> McoreSide:
    """Open a Megatron checkpoint of any format and layout.

    Every name, shape and stated fact is checked against the reference config.

    Args:
        source: the checkpoint's directory or one above it.
        asked: how it is to be read.
        filling: of what is to go along the checkpoint may hold some itself.

    Raises:
        VlconvError: of every kind that errors.py names for a source.
    """
    files = SeenFiles()
    with files.noting():
        seen = recognise(open_mcore(source, asked.iteration), asked.layout)
        with _saying_what_was_recognised(seen):
            known = configure(seen, asked, filling=filling)
        matched = match(seen, known)
        reader, chunks = _read(seen, matched)
        check_gated_order(seen, reader)
        adapter = _adapter(seen, matched, asked, chunks)
    return McoreSide(seen, known, matched.layout, matched.naming, reader, chunks, files, adapter)


def _adapter(seen: Recognised, matched: Matched, asked: McoreSource, chunks: ChunkReader) -> Adapter | None:
    """What the checkpoint holds beside its base; see `adapter_of`."""
    if seen.adapter is None:
        return None
    said = told(seen.opened, asked.lora_alpha)
    base = Base(matched.layout, matched.config, matched.naming.table)
    adapter = adapter_of(seen.adapter, said, base, seen.opened, chunks)
    seen.opened.warnings += copies_told(seen.adapter, said, chunks)
    return adapter


@contextmanager
def _saying_what_was_recognised(seen: Recognised) -> Iterator[None]:
    """Add it to a refusal for want of a reference, which comes before anything is told."""
    try:
        yield
    except ReferenceFault as fault:
        opened, layout = seen.opened, seen.layout
        fault.add_note(
            f"Recognised: {FORMATS[opened.format].title}, {opened.form}; layout {layout.name} ({layout.trainers}). "
            f"For more: vlconv inspect {quote(shown_path(opened.directory))}"
        )
        raise


def _read(seen: Recognised, matched: Matched) -> tuple[Reader, ChunkReader]:
    """The checkpoint's tensors under the table's names, of the right shapes, their chunks tiling them."""
    whole = seen.opened.assemble(matched.splits)
    reader = Renamed(whole, matched.found)
    matched.check_shapes(reader.specs)
    whole.check_tiling()
    return reader, whole
