"""Hugging Face directories for the models of tests/mcore: a reference to convert with, whole directories to convert
from, and what vlconv wrote, read back.

Reading is safetensors' own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny import tiny_config, write_side_files, write_weights
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig, TextConfig, VisionConfig


def reference_config(config: ModelConfig) -> dict[str, Any]:
    """A config.json with the integers of `config`, and with the rope that the fixture's args state."""
    vision = _vision(config.vision) if config.vision else None
    made = tiny_config(config.model_type, tied=config.text.tied, text=_text(config.text), vision=vision)
    text = made.get("text_config", made)
    if "rope_parameters" in text:
        # A quarter of a head turns: the sections add up to half of that.
        text["rope_parameters"] |= {"rope_theta": 5000000, "mrope_section": [1, 1, 0]}
    else:
        text["rope_theta"] = 5000000
    if config.vision and "rope_scaling" in text:
        text["rope_scaling"] |= {"mrope_section": [4, 2, 2]}
    if config.model_type in ("qwen2_5_vl", "qwen2"):
        del text["head_dim"]  # no such field: heads x head_dim is hidden
    return made


def _text(c: TextConfig) -> dict[str, Any]:
    fields = {
        "num_hidden_layers": c.layers,
        "hidden_size": c.hidden,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.groups,
        "head_dim": c.head_dim,
        "intermediate_size": c.ffn or None,
        "vocab_size": c.vocab,
    }
    experts = {"num_experts": c.experts, "moe_intermediate_size": c.moe_ffn, "mlp_only_layers": sorted(c.dense_layers)}
    delta_net = {
        "layer_types": [("full", "linear")[c.is_linear(layer)] + "_attention" for layer in range(c.layers)],
        "linear_num_key_heads": c.key_heads,
        "linear_num_value_heads": c.value_heads,
        "linear_key_head_dim": c.key_dim,
        "linear_value_head_dim": c.value_dim,
        "linear_conv_kernel_dim": c.kernel,
        "mtp_num_hidden_layers": c.mtp,
    }
    shared = {"shared_expert_intermediate_size": c.shared_ffn}
    fields |= experts if c.experts else {}
    return fields | (delta_net if c.kernel else {}) | (shared if c.shared_ffn else {})


def _vision(c: VisionConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "depth": c.depth,
        "hidden_size": c.hidden,
        "num_heads": c.heads,
        "intermediate_size": c.ffn,
        "out_hidden_size": c.out_hidden,
        "patch_size": c.patch,
        "temporal_patch_size": c.temporal_patch,
        "spatial_merge_size": c.merge,
    }
    if not c.positions:
        return fields | {"fullatt_block_indexes": [1]}
    return fields | {"num_position_embeddings": c.positions, "deepstack_visual_indexes": list(c.deepstack)}


def write_reference(directory: Path, config: ModelConfig) -> Path:
    """A directory as a trainer leaves it beside a checkpoint: config and tokenizer files, no weights."""
    directory.mkdir(parents=True, exist_ok=True)
    made = reference_config(config)
    (directory / "config.json").write_text(json.dumps(made, indent=2) + "\n")
    write_side_files(directory, made)
    return directory


def write_hf(directory: Path, config: ModelConfig, hf: dict[str, Tensor], shards: int = 2) -> Path:
    """A whole Hugging Face directory of these tensors."""
    write_reference(directory, config)
    write_weights(directory, hf, shards)
    return directory


def read_hf(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a Hugging Face directory, in the files that the index names."""
    from safetensors.torch import load_file

    index = directory / "model.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    return {name: tensor for file in sorted(files) for name, tensor in load_file(directory / file).items()}


def differing(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Names of tensors that are missing, surplus, or not the same bit for bit; shape and dtype count too."""
    return sorted(
        n
        for n in found.keys() | expected.keys()
        if n not in found or n not in expected or not same_bits(found[n], expected[n])
    )


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether shape, dtype and every bit are the same: a NaN equals itself, -0 is not 0."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
    )
