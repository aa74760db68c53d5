"""The three forms of experts hold the same numbers: each pair of forms, against matrices laid out by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from vlconv.converters.models.shared.config import TextConfig
from vlconv.converters.models.shared.experts import expert_copies, expert_shapes, hf_experts

E, H, M = 3, 5, 2
CONFIG = TextConfig(1, H, 1, 1, 1, 0, 7, False, E, M)
FORMS = ("packed", "transposed", "per-expert")


def by_hand(form: str) -> dict[str, Any]:
    """Every expert's three matrices, filled with numbers that occur once, in a form."""
    numbers = iter(range(10_000))
    gate, up, down = (
        [np.array([next(numbers) for _ in range(M * H)]).reshape(shape) for _ in range(E)]
        for shape in ((M, H), (M, H), (H, M))
    )
    if form == "per-expert":
        parts = {"gate_proj": gate, "up_proj": up, "down_proj": down}
        return {f"x.{e}.{part}.weight": ones[e] for part, ones in parts.items() for e in range(E)}
    packed = np.stack([np.concatenate([g, u]) for g, u in zip(gate, up, strict=True)])
    both = {"x.gate_up_proj": packed, "x.down_proj": np.stack(down)}
    return both if form == "packed" else {name: value.transpose(0, 2, 1) for name, value in both.items()}


@pytest.mark.parametrize("form", FORMS)
def test_names_and_shapes(form: Any) -> None:
    assert expert_shapes(hf_experts("x", form), CONFIG) == {n: t.shape for n, t in by_hand(form).items()}


@pytest.mark.parametrize(("ours", "theirs"), product(FORMS, FORMS))
def test_one_form_from_another(ours: Any, theirs: Any) -> None:
    left, right = by_hand(ours), {name: np.full_like(t, -1) for name, t in by_hand(theirs).items()}
    for copy in expert_copies(hf_experts("x", ours), hf_experts("x", theirs), CONFIG):
        source, target = (
            tensors[box.name][tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))]
            for tensors, box in ((left, copy.left), (right, copy.right))
        )
        target[...] = (source.swapaxes(-1, -2) if copy.transpose else source).reshape(target.shape)
    wanted = by_hand(theirs)
    assert all((right[name] == wanted[name]).all() for name in wanted)
