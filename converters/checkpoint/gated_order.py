"""Two trainers keep gated attention under the same names and shapes, in two row orders: which one has to show.

It is decided once for a checkpoint, by its layout, and held here against all that shows it. megatron-core's own module
saves its projection in pieces and its output norm minus one; ms-swift's does neither.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import MismatchError, shown, shown_path
from ..formats.dcp.torch_dist import NAME as TORCH_DIST
from ..tensors.dtypes import storage, widen
from ..tensors.spec import Reader, whole
from .recognise import Recognised

if TYPE_CHECKING:
    from ..tensors.spec import Array

PROJECTION, KERNELS = ".self_attention.in_proj.weight", ".self_attention.conv1d.weight"
"""What megatron-core's module saves in pieces."""

OUTPUT_NORM = ".self_attention.out_norm.weight"

NEAR_NOUGHT, NEAR_ONE = 0.2, 0.8
"""Means of all output norms: they begin at 0 where one is added to them, and at 1 elsewhere."""


def check_gated_order(seen: Recognised, reader: Reader) -> None:
    """Refuse a checkpoint whose keys or numbers show another order of gated attention than its layout's.

    Args:
        seen: the checkpoint.
        reader: its tensors, under any names that end as megatron-core's.

    Raises:
        MismatchError: says what shows it.
    """
    if seen.layout.gdn == "replicated":  # Hugging Face's own module, under names that no other has
        return
    core = seen.layout.gdn == "core"
    for end in (PROJECTION, KERNELS):
        found = sorted(name for name in seen.names.values() if name.endswith(end))
        pieces = [name for name in found if name in seen.opened.sectioned]
        whole_ones = [name for name in found if name not in seen.opened.sectioned]
        if pieces and not core:
            raise _refused(seen, f"{shown(pieces[0])} is in pieces, as megatron-core's own module saves it")
        if whole_ones and core and (pieces or seen.opened.format == TORCH_DIST):
            what = "in one piece, as megatron-core's own module never saves it"
            raise _refused(seen, f"{shown(whole_ones[0])} is {what}")
        if end == PROJECTION and whole_ones and not seen.told:
            _check_norms(seen, reader, core=core)


def _check_norms(seen: Recognised, reader: Reader, *, core: bool) -> None:
    """By the numbers, where the keys show nothing and nobody said which layout it is."""
    found = (_numbers(reader, name) for name in reader.specs if name.endswith(OUTPUT_NORM))
    norms = [norm for norm in found if norm.size]
    mean = sum(float(norm.mean()) for norm in norms) / len(norms) if norms else math.nan
    if mean > NEAR_ONE if core else mean < NEAR_NOUGHT:
        raise _refused(seen, f"the output norms of its Gated DeltaNets are {mean:.2f} on average")


def _numbers(reader: Reader, name: str) -> Array:
    """Of a tensor, those that are finite: one diverged layer shall not hide the others."""
    import numpy as np

    spec = reader.specs[name]
    bits = np.empty(spec.shape, storage(spec.dtype))
    reader.read_into(whole(spec), bits)
    wide = widen(bits, spec.dtype, "float64")
    return wide[np.isfinite(wide)]


def _refused(seen: Recognised, what: str) -> MismatchError:
    layout = seen.layout
    others = "in another order, under the same names and shapes"
    return MismatchError(
        f"{shown_path(seen.opened.directory)} is in layout {layout.name} by its names, but {what}: another "
        f"trainer keeps gated attention {others}",
        f"Find out who saved it. --layout {layout.name} takes it for what its names say, where only numbers speak "
        "against it.",
    )
