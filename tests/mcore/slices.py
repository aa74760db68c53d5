"""What tensor parallelism cuts: a rank's rows of a column-parallel layer, its columns of a row-parallel one."""

from __future__ import annotations

import torch
from torch import Tensor

from .topology import Place

Tensors = dict[str, Tensor]


def rows(tensor: Tensor, size: int, rank: int) -> Tensor:
    """A column-parallel layer's part: output rows."""
    return tensor.chunk(size, dim=0)[rank]


def columns(tensor: Tensor, size: int, rank: int) -> Tensor:
    """A row-parallel layer's part: input columns."""
    return tensor.chunk(size, dim=1)[rank]


def gated(fc: str, last: str, mlp: str, place: Place, hf: Tensors) -> Tensor:
    """A gated MLP's part: fc1 is the rank's rows of gate, then the rank's rows of up, weight and bias alike.

    Args:
        fc: linear_fc1 or linear_fc2.
        last: weight or bias.
        mlp: the Hub's name of the MLP.
        place: where the rank stands.
        hf: Hugging Face tensors.
    """
    if fc == "linear_fc1":
        return torch.cat([rows(hf[f"{mlp}.{half}_proj.{last}"], place.tp, place.tp_rank) for half in ("gate", "up")])
    down = hf[f"{mlp}.down_proj.{last}"]
    return columns(down, place.tp, place.tp_rank) if last == "weight" else down
