"""The Readers of a conversion: from what a side holds, through the Hub's names, to what is written.

Three things are not moves: --dtype, what a layout holds minus one, and what goes along from the reference.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from ..adapters.adapter import Adapter
from ..checkpoint.absent.union import Union
from ..checkpoint.fp8.form import Fp8Form
from ..checkpoint.hf_side import in_dialect
from ..checkpoint.mapping import Naming, mapped_table
from ..checkpoint.mcore_side import McoreSide
from ..errors import UnsupportedError, shown
from ..layouts import named
from ..models.shared.config import ModelConfig
from ..models.shared.hf_dialects import Dialect
from ..tensors.cast import Cast
from ..tensors.offset import Offset
from ..tensors.spec import Reader


class Weights(NamedTuple):
    """A model's weights under the Hub's names, wherever they lie.

    Attributes:
        reader: the weights.
        config: the model.
        hf_config: its config.json.
        less_one: names on the Hub of tensors that are minus one.
        step: what was computed on the way to the Hub's names.
    """

    reader: Reader
    config: ModelConfig
    hf_config: dict[str, Any]
    less_one: Collection[str] = ()
    step: Offset | None = None


def hf_dtypes(side: McoreSide, dtype: str | None, form: Fp8Form | None = None) -> dict[str, str]:
    """Dtypes of single tensors, by their names on the Hub: what is computed is rounded to the last one at once."""
    if dtype:
        return dict.fromkeys(side.naming.less_one.values(), dtype)
    if form:
        return form.plain_dtypes(side.model.float32_tensors(side.config))
    return dict(side.reference_dtypes.found)


def merged_dtypes(adapter: Adapter | None, dtype: str | None) -> dict[str, str]:
    """Dtypes of tensors that an adapter changes: they, too, are rounded to the last one at once."""
    return dict.fromkeys(adapter.changes, dtype) if adapter and dtype else {}


def hf_reader(side: McoreSide, reader: Reader, dialect: Dialect, dtype: str | None) -> Reader:
    """All tensors of the Hugging Face directory to write, what goes along included."""
    own, carried = in_dialect(reader, side.config, dialect), side.known.carried
    if carried is None:
        return _cast(own, dtype)
    return Union(_cast(Union(own, carried.in_dialect(dialect)), dtype), carried.others)


def mcore_reader(weights: Weights, naming: Naming, dtype: str | None) -> Offset:
    """The tensors under a layout's names."""
    return naming.from_hf(weights.reader, weights.less_one, dtype)


def kept_less_one(side: McoreSide, layout: str) -> set[str]:
    """The tensors, by their names on the Hub, that source and target both hold minus one: those are moved.

    There and back again they would be rounded twice.
    """
    ours = side.naming.less_one.values()
    theirs = named(layout)
    if not ours or side.model.model_type not in theirs.models:
        return set()
    return set(ours) & set(mapped_table(theirs, side.whole, side.known.rows).less_one.values())


def refuse_unlisted(side: McoreSide) -> None:
    """A Megatron checkpoint has no place for tensors that no model here lists.

    Raises:
        UnsupportedError: some would go along.
    """
    others = side.known.carried.others.specs if side.known.carried else {}
    if others:
        raise UnsupportedError(
            f"--carry takes {len(others)} tensors that no layout has a name for, such as {shown(next(iter(others)))}",
            "They can go along to a Hugging Face directory alone.",
        )


def _cast(reader: Reader, dtype: str | None) -> Reader:
    """The reader, with --dtype applied."""
    return Cast(reader, dtype) if dtype else reader
