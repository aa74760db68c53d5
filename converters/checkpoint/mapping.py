"""A layout's table for a config, proven; and tensors read through it, either way.

Nearly all of it is moves. What a layout holds minus one is computed: one is added before the copies to the Hugging Face
side, and subtracted after those from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..adapters.merged import Merged
from ..errors import MismatchError, shown
from ..layouts.layout import Layout
from ..models import model_of
from ..models.shared.config import ModelConfig
from ..tensors.cast import Cast
from ..tensors.mapped import Mapped, prove
from ..tensors.offset import Offset
from ..tensors.rules import Table, flipped, table
from ..tensors.spec import Reader
from .absent.union import Union, only, without
from .collector import paused

REPORT = "This is a fault of vlconv: please report it with the config.json."


class HfView(NamedTuple):
    """A checkpoint's tensors under their Hugging Face names, and the steps on the way that compute.

    Attributes:
        reader: the tensors.
        step: adds what the layout holds them less.
        merged: adds an adapter; None: there is none.
    """

    reader: Reader
    step: Offset
    merged: Merged | None = None


@dataclass(frozen=True)
class Naming:
    """The table of a layout for a config.

    Attributes:
        table: the moves.
        less_one: name in the layout -> name on the Hub, of the tensors that the layout holds minus one.
    """

    table: Table
    less_one: Mapping[str, str] = field(default_factory=dict)

    def to_hf(self, reader: Reader, leave: Collection[str] = (), dtypes: Mapping[str, str] | None = None) -> HfView:
        """The layout's tensors under their Hugging Face names.

        Args:
            reader: holds every left tensor of the table.
            leave: names on the Hub of tensors that stay minus one.
            dtypes: of single tensors, by their names on the Hub; each must be one tensor of the layout, too.
        """
        lefts = {right: left for left, right in alone(self.table, rights=dtypes or ()).items()}
        plus = [left for left, right in self.less_one.items() if right not in leave]
        step = Offset(reader, plus, 1.0, {lefts[right]: dtype for right, dtype in (dtypes or {}).items()})
        return HfView(Mapped(step, self.table.copies), step)

    def from_hf(self, reader: Reader, leave: Collection[str] = (), dtype: str | None = None) -> Offset:
        """Hugging Face tensors under the layout's names; padding reads as zeros.

        Args:
            reader: holds every right tensor of the table.
            leave: names on the Hub of tensors that are minus one already.
            dtype: of all tensors; what is computed is rounded to it at once. None: as they are.
        """
        minus = {left: right for left, right in self.less_one.items() if right not in leave}
        if dtype:
            names = set(minus.values())
            reader = Union(Cast(without(reader, names), dtype), only(reader, names))
        moved = Mapped(reader, flipped(self.table.copies), self.table.pads)
        return Offset(moved, minus, -1.0, dict.fromkeys(minus, dtype) if dtype else None)


@paused()
def mapped_table(layout: Layout, config: ModelConfig, rows: int) -> Naming:
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
        raise MismatchError(f"layout {layout.name} does not map every tensor of this {config.model_type}", REPORT)
    return Naming(mapping, alone(mapping, lefts=layout.less_one(config)))


def alone(mapping: Table, lefts: Iterable[str] = (), rights: Iterable[str] = ()) -> dict[str, str]:
    """Left name -> right name of tensors, named on either side, that are one tensor on both.

    Raises:
        MismatchError: one is several on the other side, or not there: a fault of vlconv.
    """
    lefts, rights = list(lefts), list(rights)
    if not lefts and not rights:
        return {}
    there: dict[str, set[str]] = {}
    back: dict[str, set[str]] = {}
    for copy in mapping.copies:
        there.setdefault(copy.left.name, set()).add(copy.right.name)
        back.setdefault(copy.right.name, set()).add(copy.left.name)
    pairs = {left: next(iter(there.get(left, ())), "") for left in lefts}
    pairs |= {next(iter(back.get(right, ())), ""): right for right in rights}
    for left, right in pairs.items():
        if there.get(left) != {right} or back.get(right) != {left}:
            raise MismatchError(f"{shown(left or right)} is not one tensor of both sides", REPORT)
    return pairs
