"""A side that is an adapter alone, in a Megatron checkpoint or a PEFT directory, read with its base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checkpoint.hf_side import HfSide
from ..checkpoint.lora.adapter_side import AdapterSide, open_adapter_files
from ..checkpoint.mcore_side import McoreSide
from ..errors import NotComparable, shown_path
from ..formats.directory.contents import ADAPTER_CONFIG
from ..formats.open_files import is_file
from ..options import McoreSource, VerifyOptions
from .side_path import SidePath

if TYPE_CHECKING:
    from ..checkpoint.lora.peft_side import PeftAdapter

Side = HfSide | McoreSide


def with_base(named: SidePath, options: VerifyOptions, asked: McoreSource) -> Side | None:
    """An adapter that lies alone, merged into its base; None: there is no such one.

    Args:
        named: the side.
        options: with the base.
        asked: how the side is read.

    Raises:
        NotComparable: a PEFT directory, and nobody says which model it changes.
    """
    if is_file(named.path / ADAPTER_CONFIG):
        if options.base is None:
            raise NotComparable(
                f"{shown_path(named.path)} is a PEFT adapter, and not the model that it changes",
                "Give that model: --base with a Hugging Face directory, a hub id or a Megatron checkpoint.",
            )
        from ..adapters.peft.opened import open_peft
        from ..checkpoint.lora.merged_side import open_merged_peft

        return open_merged_peft(open_peft(named.path), options.base, asked, options.experts_form)[1]
    if options.base is not None and (alone := open_adapter_files(named.path, asked)):
        from ..checkpoint.lora.merged_side import open_merged

        return open_merged(alone, options.base, asked, options.experts_form)[1]
    return None


def apart_of(side: Side) -> AdapterSide | PeftAdapter | None:
    """The adapter of a side that is one alone with its base; None: of any other."""
    return side.apart if isinstance(side, McoreSide) else side.adapter
