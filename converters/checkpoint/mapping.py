"""A layout's table for a config, proven; and Hugging Face tensors read through one."""

from __future__ import annotations

from ..errors import MismatchError
from ..layouts.layout import Layout
from ..models import model_of
from ..models.shared.config import ModelConfig
from ..tensors.mapped import Mapped, prove
from ..tensors.rules import Table, flipped, table
from ..tensors.spec import Reader


def mapped_table(layout: Layout, config: ModelConfig, rows: int) -> Table:
    """The table of a layout for a config.

    Proven to cover both sides, its right side being exactly the model's tensors.

    Args:
        layout: the trainer's naming.
        config: the model.
        rows: of the embedding on the mcore side, padding included.

    Raises:
        MismatchError: the table does not fit the model: a fault of vlconv.
    """
    mapping = table(layout.rules(config, rows))
    prove(mapping)
    if mapping.right() != model_of(config).hf_tensors(config):
        raise MismatchError(
            f"layout {layout.name} does not map every tensor of this {config.model_type}",
            "This is a fault of vlconv: please report it with the config.json.",
        )
    return mapping


def from_hf(side: Reader, mapping: Table) -> Mapped:
    """Hugging Face tensors under the names of a table's left side; padding reads as zeros."""
    return Mapped(side, flipped(mapping.copies), mapping.pads)
