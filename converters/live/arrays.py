"""What is done with tensors in memory, torch's and numpy's alike: parts of them seen, laid together, and counted up.

torch is not imported: its tensors are asked by their own methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import MismatchError, shown
from ..tensors.dtypes import FLOATS, narrowed, widen
from ..tensors.spec import Box, Shape
from ..tensors.strided import Run

Tensor = Any
"""A torch.Tensor or a numpy.ndarray."""


class Assembly(NamedTuple):
    """A tensor laid together from parts of others.

    Attributes:
        name, shape: of the tensor.
        runs: its parts: from left to right, the right boxes being those of the tensor.
    """

    name: str
    shape: Shape
    runs: tuple[Run, ...]

    @property
    def is_view(self) -> bool:
        """Whether it is one part of one other tensor."""
        return len(self.runs) == 1 and self.runs[0].times == 1


def plain(tensor: Tensor, name: str) -> Tensor:
    """The tensor, without its gradient.

    Raises:
        MismatchError: it is no plain tensor: cut among ranks (DTensor), of a class of its own, or none at all.
    """
    kind = type(tensor)
    if hasattr(tensor, "full_tensor"):
        raise MismatchError(
            f"{shown(name)} is a DTensor", "Give tensor.full_tensor(), or its local part to placements."
        )
    if hasattr(tensor, "detach"):
        if kind.__module__.partition(".")[0] != "torch":  # a class of its own may hold scales besides
            raise MismatchError(
                f"{shown(name)} is a {shown(kind.__name__)} of {shown(kind.__module__)}, not a plain tensor",
                "Give plain numbers: a quantised tensor has .dequantize().",
            )
        return tensor.detach()
    if not hasattr(tensor, "strides"):
        raise MismatchError(f"{shown(name)} is a {shown(kind.__name__)}", "Give a torch tensor or a numpy array.")
    return tensor


def laid_together(assembly: Assembly, sources: Callable[[str], Tensor]) -> Tensor:
    """The tensor: a view where one part of another one is all of it, else a new one on the same device."""
    if assembly.is_view:
        copy = assembly.runs[0].copy
        return fitting(seen(sources(copy.left.name), copy.left), copy.transpose, len(assembly.shape))
    out = None
    for run in assembly.runs:
        source = sources(run.copy.left.name)
        out = empty(assembly.shape, source) if out is None else out
        _move(run, source, out)
    return out


def seen(tensor: Tensor, box: Box) -> Tensor:
    """The part of a tensor that is a box, as a view."""
    if tuple(tensor.shape) == box.lengths:
        return tensor
    return tensor[tuple([slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True)])]


def fitting(view: Tensor, transpose: bool, axes: int) -> Tensor:
    """A box seen as the other side of its copy has it."""
    if transpose:
        view = view.swapaxes(-1, -2)
    while view.ndim > axes:
        view = view[0]
    while view.ndim < axes:
        view = view[None]
    return view


def empty(shape: Shape, like: Tensor) -> Tensor:
    """A new tensor with another one's dtype and device."""
    if hasattr(like, "new_empty"):
        return like.new_empty(shape)
    import numpy as np

    return np.empty(shape, like.dtype)


def _move(run: Run, source: Tensor, out: Tensor) -> None:
    """Copy all of a run."""
    copy, times = run.copy, run.times
    if times == 1:
        part = seen(source, copy.left)
        target = seen(out, copy.right)
        target[...] = fitting(part, copy.transpose, target.ndim)
        return
    part, target = _repeated(source, copy.left, run.left_step, times), _repeated(out, copy.right, run.right_step, times)
    target[...] = part.swapaxes(-1, -2) if copy.transpose else part


def _repeated(tensor: Tensor, box: Box, step: int, count: int) -> Tensor:
    """A box and those that follow it at equal steps, on an axis before the box's own."""
    first = seen(tensor, box)
    shape = (count, *box.lengths)
    if hasattr(first, "as_strided"):
        strides = first.stride()
        return first.as_strided(shape, (strides[0] * step, *strides))
    from numpy.lib.stride_tricks import as_strided

    return as_strided(first, shape, (first.strides[0] * step, *first.strides))


def plus(tensor: Tensor, amount: float, name: str) -> Tensor:
    """Each element + amount, in float32 (float64 of float64), rounded once to nearest even: as tensors/offset.py."""
    torch_one = hasattr(tensor, "element_size")
    named = str(tensor.dtype).removeprefix("torch.")
    dtype = "bfloat16" if named == "uint16" and not torch_one else named
    if dtype not in FLOATS:
        raise MismatchError(
            f"{shown(name)} has dtype {shown(dtype)}", f"It is computed with: give one of {', '.join(FLOATS)}."
        )
    if torch_one:
        wide = tensor.double() if dtype == "float64" else tensor.float()
        return (wide + amount).to(tensor.dtype)
    bits = tensor.view(f"uint{8 * tensor.dtype.itemsize}")
    number = widen(bits, dtype, "float64" if dtype == "float64" else "float32")
    return narrowed(number + number.dtype.type(amount), dtype).view(tensor.dtype)
