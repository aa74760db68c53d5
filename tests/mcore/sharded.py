"""Checkpoints of fully sharded trainers: Megatron-FSDP's `fsdp_dtensor`, and plain saves of torch's fully_shard, from
DTensors on a gloo mesh.

save_fsdp(tmp_path / "ckpt", config, hf, wrapper="module.")     # names of mbridge's modules
save_plain(tmp_path / "ckpt", hf)                               # the names given
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch

from vlconv.converters.models.shared.config import ModelConfig

from . import ranks
from .families import old_tower
from .fill import whole
from .formulas import Tensors
from .hybrid.names import side_by_side

TP = 2  # of fsdp.write_megatron

_ROWS = re.compile(
    r"(word_embeddings|output_layer|linear_qkv|linear_fc1|in_proj|conv1d|eh_proj)\.(weight|bias)(\d*_[wv])?$|A_log$|dt_bias$"
)
_COLUMNS = re.compile(r"(linear_proj|linear_fc2|out_proj)\.weight\d*$")
_FC1 = re.compile(r"\.mlp\.(experts\.|shared_experts\.)?linear_fc1\.(weight|bias)\d*$")


def save_fsdp(
    directory: Path,
    config: ModelConfig,
    hf: Tensors,
    wrapper: str = "",
    args: dict[str, Any] | None = None,
    bare: bool | None = None,
) -> Path:
    """Save as Megatron-LM does with `--ckpt-format fsdp_dtensor`: four ranks, of two tensor-parallel ones each.

    Args:
        directory: made here.
        config: the model.
        hf: Hugging Face tensors under the Hub's names.
        wrapper: before every name within `model.`.
        args: what the args state besides; the tensor parallel size is stated unless this says otherwise.
        bare: whether the language model stands alone, its names without a prefix; None: as the family has it.
    """
    directory.mkdir(parents=True)
    stated = {"num_layers": config.text.layers, "hidden_size": config.text.hidden, "tensor_model_parallel_size": TP} | (
        args or {}
    )
    common = {"args": argparse.Namespace(**stated), "checkpoint_version": 3.0, "iteration": 5}
    tensors = {wrapper + name: t for name, t in _saved(config, hf, bare).items()}
    cut = {name: 0 if _ROWS.search(name) else 1 for name in tensors if _ROWS.search(name) or _COLUMNS.search(name)}
    ranks.run(4, "mcore.fsdp:write_megatron", str(directory), tensors, cut, common)
    return directory


def save_plain(directory: Path, tensors: Tensors, prefix: str = "") -> Path:
    """Save as a trainer on FSDP2 does, from three ranks."""
    directory.mkdir(parents=True)
    ranks.run(3, "mcore.fsdp:write_plain", str(directory), tensors, prefix)
    return directory


def _saved(config: ModelConfig, hf: Tensors, bare: bool | None) -> Tensors:
    """Experts one by one, and every fc1 behind an `mlp.` in two halves, whether it is gated or not:
    Megatron-LM asks only what it is called. A Gated DeltaNet's tensors are the ranks' own, side by side.
    """
    tensors: Tensors = {}
    for name, t in whole(config, hf, bare=bare).items():
        if name.endswith(("self_attention.in_proj.weight", "self_attention.conv1d.weight")):
            tensors[name] = side_by_side(t, config, TP)
            continue
        one_by_one = (
            {f"{name.replace('.experts.experts.', '.experts.')}{e}": t[e] for e in range(len(t))}
            if ".experts.experts." in name
            else {name: t}
        )
        for key, tensor in one_by_one.items():
            tensors |= (
                _halves(key, tensor, not key.startswith("vision_model.") or old_tower(config))
                if _FC1.search(key)
                else {key: tensor}
            )
    return tensors


def _halves(name: str, fc1: torch.Tensor, gated: bool) -> Tensors:
    """The first and second half of every tensor-parallel rank's rows. Of a gated one a rank has [gate.

    Up], so the halves are gate and up.
    """
    mine = [
        torch.cat([half.chunk(TP)[rank] for half in fc1.chunk(2)]) if gated else fc1.chunk(TP)[rank]
        for rank in range(TP)
    ]
    return {f"{name}_{letter}": torch.cat([part.chunk(2)[half] for part in mine]) for half, letter in enumerate("wv")}
