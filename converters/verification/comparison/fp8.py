"""An FP8 side held against plain weights: made of them by the rule, or how far off.

What is dequantised equals what it was quantised of only by chance. So of every tensor that differs the rule is applied
to the plain weights, which gives the other side's codes and scales to the bit, or does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ...checkpoint.absent.union import only
from ...checkpoint.hf_side import HfSide
from ...errors import MismatchError
from ...models.shared.hf_dialects import dialect_copies
from ...report import Silent
from ...tensors.counting import Rounded
from ...tensors.dtypes import storage, widen
from ...tensors.fp8.codes import scale_numbers
from ...tensors.fp8.dequantised import Dequantised
from ...tensors.fp8.quantised import Quantised
from ...tensors.fp8.scaled import Scaled
from ...tensors.mapped import Mapped, Renamed
from ...tensors.rules import Copy, flipped
from ...tensors.spec import Box, Reader, whole
from .compare import compare

if TYPE_CHECKING:
    from ...tensors.spec import Array

HALF_STEP = 2.0**-4
"""Of e4m3, relative to the number: no rounding to nearest is further off."""

TILE = 1 << 18


class Fp8Found(NamedTuple):
    """What was found of tensors that differ.

    Attributes:
        by_rule: equal by the rule -> what became of their elements.
        errors: of the others, the largest relative error; a number below the least normal FP8 number of its block is
            taken for one of that size.
    """

    by_rule: dict[str, Rounded]
    errors: dict[str, float]


def held_by_rule(plain: Reader, side: HfSide, wrong: Collection[str], threads: int) -> Fp8Found:
    """The tensors of an FP8 side that are not equal to plain ones, held against what the rule makes of those.

    Args:
        plain: the other side, under the Hub's names.
        side: the FP8 one.
        wrong: names on the Hub of tensors in which both differ.
        threads: that compare.
    """
    assert side.step
    assert side.quantization
    scaled = {one.name: one for one in side.step.scaled}
    made = _made_of(side, scaled, {name for name in wrong if name in plain.specs}, plain)
    files = {name for names in made.values() for name in names}
    if not files:
        return Fp8Found({}, {})
    copies = [copy for copy in _copies(side) if copy.left.name in files]
    there = Mapped(plain, flipped(copies))
    ours = [scaled[name] for name in there.specs]
    rule = Quantised(
        there,
        ours,
        {one.scale: side.chunks.specs[one.scale].dtype for one in ours},
        power_of_two=side.quantization.power_of_two,
    )
    try:
        found = compare(rule, only(side.chunks, {*rule.specs}), threads, Silent())
        unlike, counts = {d.tensor for d in found.differences}, rule.counted()
    except MismatchError:  # numbers that FP8 has no place for: it was not made of them
        unlike, counts = {*rule.specs}, {}
    bad = {one.name for one in ours if {one.name, one.scale} & unlike}
    by_rule, errors = {}, {}
    for name, parts in made.items():
        if not bad & parts:
            by_rule[name] = Rounded(*map(sum, zip(*(counts[part] for part in parts), strict=True)))
        else:
            errors[name] = max(_furthest(there, side, scaled[part]) for part in parts)
    return Fp8Found(by_rule, errors)


def _copies(side: HfSide) -> list[Copy]:
    return dialect_copies(side.config, side.dialect)


def _made_of(side: HfSide, scaled: Mapping[str, Scaled], wrong: Collection[str], plain: Reader) -> dict[str, set[str]]:
    """Name on the Hub -> the side's tensors that it is made of, where all of them are FP8 and known to both sides."""
    made: dict[str, set[str]] = {}
    needs: dict[str, set[str]] = {}
    for copy in _copies(side):
        made.setdefault(copy.right.name, set()).add(copy.left.name)
        needs.setdefault(copy.left.name, set()).add(copy.right.name)
    return {
        name: parts
        for name, parts in made.items()
        if name in wrong and all(part in scaled and needs[part] <= plain.specs.keys() for part in parts)
    }


def _furthest(there: Reader, side: HfSide, one: Scaled) -> float:
    """The largest relative error of a tensor's numbers."""
    import numpy as np

    spec = there.specs[one.name]
    two = Renamed(side.chunks, {name: name for name in (one.name, one.scale)})  # not a whole model's specifications
    step, largest = Dequantised(two, [one], "float32"), 0.0
    rows, columns = one.blocks(spec.shape)
    for tile in one.tiles(whole(spec), spec.shape, TILE):
        known = _numbers(there, tile)
        found = _numbers(step, tile)
        at = one.scales_of(tile, spec.shape)
        bits = np.empty(at.lengths, storage(side.chunks.specs[one.scale].dtype))
        side.chunks.read_into(at, bits)
        scale = scale_numbers(bits, side.chunks.specs[one.scale].dtype)
        wide = scale[..., np.arange(tile.lengths[-2]) // rows, :][..., np.arange(tile.lengths[-1]) // columns]
        size = np.maximum(np.abs(known), wide * 2.0**-6)
        off = np.abs(found - known)
        relative = np.divide(off, size, out=np.where(off == 0, 0.0, np.inf), where=size > 0)
        largest = max(largest, float(np.nan_to_num(relative, nan=np.inf, posinf=np.inf).max()))
    return largest


def _numbers(reader: Reader, box: Box) -> Array:
    import numpy as np

    dtype = reader.specs[box.name].dtype
    bits = np.empty(box.lengths, storage(dtype))
    reader.read_into(box, bits)
    return widen(bits, dtype, "float64")
