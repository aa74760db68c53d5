"""The tensors of a Megatron checkpoint held against the table of its config: all there, none besides, of its shapes.

By names and shapes alone: no tensor is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..errors import shown_path
from ..layouts.layout import Layout
from ..layouts.shared.splits import split_of
from ..models import model_of
from ..models.shared.config import ModelConfig
from ..tensors.rules import table
from ..tensors.sharding import Split
from ..tensors.spec import Shape, TensorSpec
from ..tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from .absent.mtp import MEGATRON
from .configure import Configured
from .consistency import check_complete
from .mapping import Naming, mapped_table
from .recognise import Recognised
from .shape_errors import check_shapes


class Matched(NamedTuple):
    """A checkpoint whose tensors are those of its table.

    Attributes:
        layout: the trainer's naming, with what only the tensors show.
        naming: the mapping.
        found: name in the table -> name in the files.
        config: what is read of the checkpoint.
        where: how to call the checkpoint in a message.
    """

    layout: Layout
    naming: Naming
    found: dict[str, str]
    config: ModelConfig
    where: str

    @property
    def splits(self) -> dict[str, Split]:
        """Name in the files -> how the tensor is cut among ranks."""
        traits = model_of(self.config).traits
        return {old: split_of(name, self.layout, traits, self.config.text) for name, old in self.found.items()}

    def check_shapes(self, have: Mapping[str, TensorSpec]) -> None:
        """Raises MismatchError where a whole tensor, by its name in the table, is not of the table's shape."""
        want, config = self.naming.table.left(), self.config
        rows = next((shape[0] for name, shape in want.items() if name.endswith(EMBEDDING)), 0)

        def shapes(changed: ModelConfig) -> dict[str, Shape]:
            return table(self.layout.rules(changed, max(rows, changed.text.vocab))).left()

        check_shapes(have, want, config, shapes, self.where)


def match(seen: Recognised, known: Configured) -> Matched:
    """The tensors that the table of the config wants, by name.

    Raises:
        MismatchError: some are missing, or there are others.
    """
    opened, where, config = seen.opened, shown_path(seen.opened.directory), known.config
    layout = _settled(seen, config)
    naming = mapped_table(layout, config, known.rows)
    found = _respelled(seen.names, layout, config)
    found = {name: old for name, old in found.items() if not (known.head.dropped and MEGATRON in name)}
    if config.text.tied and opened.tied_copy:
        found = {name: old for name, old in found.items() if not name.endswith(OUTPUT_LAYER)}
    check_complete({name: opened.specs[old] for name, old in found.items()}, naming.table.left(), layout, where)
    return Matched(layout, naming, found, config, where)


def _settled(seen: Recognised, config: ModelConfig) -> Layout:
    """The layout with what only the tensors' shapes show."""
    layout = seen.layout
    if layout.settle is None:
        return layout
    return layout.settle(layout, {name: spec.shape for name, spec in seen.specs.items()}, config)


def _respelled(names: Mapping[str, str], layout: Layout, config: ModelConfig) -> dict[str, str]:
    """The table's name -> name in the file, where the file has another spelling of it."""
    found = dict(names)
    for other, ours in layout.spellings(config):
        if other in found and ours not in found:
            found[ours] = found.pop(other)
    return found
