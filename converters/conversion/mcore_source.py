"""A Megatron checkpoint as the source of a conversion: what is checked of it, and what else its output is made of."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..checkpoint.mcore_side import McoreSide
from ..errors import MismatchError, shown_path
from ..formats.holes import refuse_holes
from ..formats.opened import Opened
from ..tensors.counting import Rounding
from .plan import Plan


def dequantising(side: McoreSide) -> list[Rounding]:
    """What makes plain tensors of FP8 ones that go along."""
    carried = side.known.carried
    return [carried.step] if carried and carried.step else []


def of_mcore(plan: Plan, side: McoreSide) -> Plan:
    """The plan, with what is checked of a Megatron checkpoint while it is read."""
    return replace(plan, checkpoints=side.checkpoints, seen=side.files)


def refuse_warned(side: McoreSide) -> None:
    """--strict takes no checkpoint whose ranks disagree or whose files have holes.

    Raises:
        MismatchError: tensors that ranks hold whole differ among them.
        CorruptError: bytes of tensors were never written.
    """
    refuse_holes(side.chunks.holes)
    refuse_disagreeing(side.opened)


def refuse_disagreeing(opened: Opened) -> None:
    """--strict takes no checkpoint whose ranks disagree; raises MismatchError."""
    if opened.warnings:
        listed = "\n".join(f"  {line}" for line in opened.warnings[:10])
        raise MismatchError(
            f"{shown_path(opened.directory)}: ranks disagree:\n{listed}",
            "Without --strict the first one is taken, with a warning.",
        )


def sources_of(source: Path, side: McoreSide) -> list[Path]:
    """What the output is made of: files that go along may be links to another folder, as in the Hub's cache."""
    reference, carried = side.known.reference.directory, side.known.carried
    folders = {Path(os.path.realpath(file)).parent for file in carried.files} if carried else set()
    return [source, *([reference] if reference else []), *sorted(folders)]
