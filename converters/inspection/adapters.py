"""An adapter (LoRA) in a Megatron checkpoint, described from names, shapes and what lies beside it."""

from __future__ import annotations

from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING

from ..adapters.names import TITLES, Found, separate
from ..adapters.read import Base, adapter_of
from ..adapters.stated import Told
from ..checkpoint.lora.adapter_side import told
from ..checkpoint.matched import Matched
from ..checkpoint.recognise import without_wrappers
from ..errors import CorruptError, VlconvError
from ..formats.opened import Opened
from ..tensors.spec import Box
from .inspection import AdapterSeen

if TYPE_CHECKING:
    from ..tensors.spec import Array

ALPHA_UNKNOWN = "nobody states it: --lora-alpha"


def adapter_seen(opened: Opened) -> AdapterSeen | None:
    """The adapter of an open checkpoint; None: it has none, or one of a form that is refused."""
    with suppress(VlconvError):
        base, found = separate(without_wrappers(opened.specs))
        if found:
            return _described(opened, found, base_here=bool(base))
    return None


def _described(opened: Opened, found: Found, *, base_here: bool) -> AdapterSeen:
    said = Told()
    why = ALPHA_UNKNOWN
    try:
        said = told(opened, None)
    except VlconvError as fault:
        why = fault.what
    shapes = [opened.specs[name].shape for halves in found.halves.values() for name in halves]
    ranks = {shape[-1] for shape in shapes[1::2] if shape}
    return AdapterSeen(
        family=found.family,
        title=TITLES[found.family],
        modules=len(found.halves),
        targets=found.targets,
        ranks=tuple(sorted(ranks)),
        alpha=said.alpha.value if said.alpha else None,
        alpha_from=said.alpha.where if said.alpha else why,
        rslora=said.rslora,
        parameters=sum(map(prod, shapes)),
        base_here=base_here,
    )


def check_adapter(found: Found, matched: Matched, opened: Opened) -> None:
    """What a conversion checks of an adapter beside its base before it reads a tensor; errors as `adapter_of`."""
    base = Base(matched.layout, matched.config, matched.naming.table)
    adapter_of(found, told(opened, None), base, opened, _Unread(opened))


class _Unread:
    """Tensors of which no number is read."""

    def __init__(self, opened: Opened) -> None:
        self.specs = opened.specs

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        raise CorruptError("a tensor is read where only its metadata are")

    def finish(self) -> None:
        """See Reader."""
