"""What the files of a Megatron checkpoint show by themselves.

Tensors without wrappers' prefixes, the trainer's naming, and what the checkpoint states of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..adapters.names import TITLES, Found, separate
from ..adapters.read import check_format
from ..errors import MismatchError, UnsupportedError, shown
from ..formats.directory.statements import Stated, statements
from ..formats.opened import Opened
from ..layouts import detect, named
from ..layouts.layout import Layout
from ..layouts.refusals import refuse, stripped
from ..tensors.spec import TensorSpec


@dataclass(frozen=True)
class Recognised:
    """A checkpoint whose trainer is known.

    Attributes:
        opened: the files.
        names: name without wrappers' prefixes -> name in the files.
        specs: the tensors by names without prefixes.
        layout: the trainer's naming.
        seen_by: by what it was recognised, in words.
        stated: what the checkpoint states of itself.
        told: the user named the layout.
        adapter: low-rank changes of the weights (LoRA) that it holds, too; None: none.
    """

    opened: Opened
    names: Mapping[str, str]
    specs: Mapping[str, TensorSpec]
    layout: Layout
    seen_by: str
    stated: list[Stated]
    told: bool = False
    adapter: Found | None = None


def recognise(opened: Opened, layout: str | None) -> Recognised:
    """Recognise an open checkpoint.

    Args:
        opened: its files.
        layout: the trainer's naming, where the user says it.

    Raises:
        UnsupportedError: something that is not converted, refused by name; or no layout fits, or several.
        MismatchError: one tensor under two names, or no layout of that name.
        CorruptError: what it states of itself cannot be read.
    """
    names, adapter = separate(without_wrappers(opened.specs))
    if adapter:
        check_format(opened)
    if adapter and not names:
        raise UnsupportedError(
            f"the checkpoint holds an adapter (LoRA) alone, in {TITLES[adapter.family]}, and not the model that it "
            "changes",
            "Merge it: vlconv mcore2hf ADAPTER OUT --base HF_OR_MCORE, with the model that was trained; verify takes "
            "--base, too.",
        )
    specs = {new: opened.specs[old] for new, old in names.items()}
    refuse(specs)
    chosen = named(layout) if layout else detect(specs)
    seen_by = f"--layout {chosen.name}" if layout else chosen.why
    return Recognised(
        opened, names, specs, chosen, seen_by, statements(opened.directory, opened.args), bool(layout), adapter
    )


def without_wrappers(specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """Name without wrappers' prefixes -> name in the file."""
    names: dict[str, str] = {}
    for name in specs:
        short = stripped(name)
        if short in names:
            raise MismatchError(
                f"{shown(name)} and {shown(names[short])} are the same tensor behind different prefixes",
                "The checkpoint holds two models.",
            )
        names[short] = name
    return names
