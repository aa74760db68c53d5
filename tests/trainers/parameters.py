"""A trainer's parameters as it has them while it runs: each whole, experts one by one under their numbers."""

from __future__ import annotations

from typing import Any

import torch

from .decoder import Tensors
from .places import TRAINERS
from .sizes import sizes


def parameters(layout: str, config: dict[str, Any], hf: Tensors) -> Tensors:
    """Of a model with these Hugging Face tensors, under a layout's names: global layers, global experts."""
    whole = TRAINERS[layout].names(sizes(config), hf)
    return dict(one for name, t in whole.items() for one in _experts(name, t))


def _experts(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """A parameter, or those of a grouped module: one for each expert."""
    if ".experts.experts." not in name:
        return [(name, tensor)]
    return [(f"{name.replace('.experts.experts.', '.experts.')}{e}", one) for e, one in enumerate(tensor)]


def one_by_one(hf: Tensors, turned: bool = True) -> Tensors:
    """The Hub's tensors, experts as three matrices of each.

    Args:
        hf: as on the Hub.
        turned: where one tensor has all experts it has inputs by outputs (Qwen3-VL-MoE), else outputs by inputs.
    """
    out = {}
    for name, t in hf.items():
        stem, _, part = name.rpartition(".")
        if not stem.endswith(".experts"):
            out[name] = t
            continue
        for e, one in enumerate(t.transpose(1, 2) if turned else t):
            parts = zip(("gate", "up"), one.chunk(2), strict=True) if part == "gate_up_proj" else [("down", one)]
            out |= {f"{stem}.{e}.{which}_proj.weight": each for which, each in parts}
    return out


def same(found: list[tuple[str, torch.Tensor]], wanted: Tensors) -> None:
    """Each once, under the same names, and equal."""
    assert len(found) == len(wanted)
    assert {name for name, _ in found} == set(wanted)
    for name, t in found:
        assert t.dtype == wanted[name].dtype and torch.equal(t, wanted[name]), name
