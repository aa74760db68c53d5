"""The formulas of experts, in each of the Hub's forms."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from .slices import Tensors, columns, rows
from .topology import Place

_EXPERT = re.compile(r"mlp\.experts\.(?:local_experts\.(\d+)\.)?linear_fc([12])\.weight(\d*)")


def expert(kind: str, h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    """One local expert's fc1 or fc2.

    Args:
        kind: the parameter's name within its layer, `mlp.experts.…`, expert number local.
        h: the Hub's name of the layer.
        place: where the rank stands.
        config: the model.
        hf: Hugging Face tensors.
    """
    found = _EXPERT.fullmatch(kind)
    assert found, f"no formula for {kind}"
    number = place.ep_rank * (config.text.experts // place.ep) + int(found[1] or found[3])
    gate, up, down = _halves(f"{h}.mlp.experts", number, config, hf)
    if found[2] == "2":
        return columns(down, place.etp, place.etp_rank).contiguous()
    return torch.cat([rows(gate, place.etp, place.etp_rank), rows(up, place.etp, place.etp_rank)])


def _halves(h: str, number: int, config: ModelConfig, hf: Tensors) -> tuple[Tensor, Tensor, Tensor]:
    """Gate [M, H], up [M, H], down [H, M] of one expert."""
    if f"{h}.{number}.gate_proj.weight" in hf:
        gate, up, down = (hf[f"{h}.{number}.{part}_proj.weight"] for part in ("gate", "up", "down"))
        return gate, up, down
    fc1, fc2 = hf[f"{h}.gate_up_proj"][number], hf[f"{h}.down_proj"][number]
    if config.model_type == "qwen3_vl_moe":  # holds gate and up side by side as columns, and every expert transposed
        fc1, fc2 = fc1.T, fc2.T
    gate, up = fc1.split(config.text.moe_ffn)
    return gate, up, fc2
