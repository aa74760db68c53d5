"""The experts of a layer, in the forms that files hold them, as equal boxes of one another.

Letters: E experts, H hidden, M expert FFN width. In every form gate stands before up.

| form         | gate and up                             | down                          |
|--------------|-----------------------------------------|-------------------------------|
| packed       | one tensor [E, 2M, H]                   | one tensor [E, H, M]          |
| transposed   | one tensor [E, H, 2M]                   | one tensor [E, M, H]          |
| per-expert   | gate_proj [M, H], up_proj [M, H] of each | down_proj [H, M] of each      |

Megatron's experts are packed: linear_fc1 [E, 2M, H] and linear_fc2 [E, H, M].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...tensors.rules import Copy, rename, transposed
from ...tensors.spec import Box, Shape
from .config import TextConfig
from .traits import ExpertsOnHub


class Experts(NamedTuple):
    """All experts of one layer, in one form.

    Attributes:
        form: see the table above.
        gate_up, down: names of the tensors of the first two forms.
        stem: what the names of the third form begin with: `{stem}.{expert}.gate_proj.weight`.
    """

    form: ExpertsOnHub
    gate_up: str
    down: str
    stem: str = ""


def hf_experts(stem: str, form: ExpertsOnHub) -> Experts:
    """Under Hugging Face names: `{stem}.gate_up_proj`, `{stem}.down_proj`, or `{stem}.{expert}.gate_proj.weight`."""
    return Experts(form, f"{stem}.gate_up_proj", f"{stem}.down_proj", stem)


def expert_shapes(experts: Experts, c: TextConfig) -> dict[str, Shape]:
    """Names and shapes."""
    if experts.form == "per-expert":
        one = {"gate_proj": (c.moe_ffn, c.hidden), "up_proj": (c.moe_ffn, c.hidden), "down_proj": (c.hidden, c.moe_ffn)}
        return {f"{experts.stem}.{e}.{part}.weight": shape for e in range(c.experts) for part, shape in one.items()}
    gate_up, down = _packed_shapes(c)
    if experts.form == "transposed":
        gate_up, down = _turned(gate_up), _turned(down)
    return {experts.gate_up: gate_up, experts.down: down}


def expert_copies(left: Experts, right: Experts, c: TextConfig) -> Iterator[Copy]:
    """The same experts in two forms."""
    if "per-expert" in (left.form, right.form):
        turned = (left.form == "transposed") != (right.form == "transposed")
        for ours, theirs in zip(expert_boxes(left, c), expert_boxes(right, c), strict=True):
            yield Copy(ours, theirs, turned)
        return
    pairs = zip(expert_shapes(left, c).items(), (right.gate_up, right.down), strict=True)
    for (name, shape), other in pairs:
        yield from rename(name, other, shape) if left.form == right.form else transposed(name, other, shape)


def _packed_shapes(c: TextConfig) -> tuple[Shape, Shape]:
    return (c.experts, 2 * c.moe_ffn, c.hidden), (c.experts, c.hidden, c.moe_ffn)


def _turned(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2])


def expert_boxes(experts: Experts, c: TextConfig) -> Iterator[Box]:
    """Gate, up and down of each expert in turn: where they lie in the tensors of a form."""
    for e in range(c.experts):
        for part, start, rows, columns in (
            ("gate_proj", 0, c.moe_ffn, c.hidden),
            ("up_proj", c.moe_ffn, c.moe_ffn, c.hidden),
            ("down_proj", 0, c.hidden, c.moe_ffn),
        ):
            name = experts.down if part == "down_proj" else experts.gate_up
            if experts.form == "per-expert":
                yield Box(f"{experts.stem}.{e}.{part}.weight", (0, 0), (rows, columns))
            elif experts.form == "packed":
                yield Box(name, (e, start, 0), (1, rows, columns))
            else:
                yield Box(name, (e, 0, start), (1, columns, rows))
