"""Tiny FP8 models as quantisers write them, with torch's own FP8 casts; and the formulas of those who read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config, tiny_shapes, tiny_weights, write_side_files, write_weights
from torch import Tensor
from typer.testing import CliRunner, Result

from vlconv.app import app

Tensors = dict[str, Tensor]
FP8 = torch.float8_e4m3fn


def quantised(weight: Tensor, block: tuple[int, int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The rule, block by block: the scale rounded to what it is stored in, then the nearest FP8 number with that scale.

    Args:
        weight: of two axes, or of three with experts first.
        block: rows and columns; columns 0: all.
        dtype: of the scales.
    """
    if weight.dim() == 3:
        codes, scales = zip(*(quantised(one, block, dtype) for one in weight), strict=True)
        return torch.stack(codes), torch.stack(scales)
    rows, columns = block[0], block[1] or weight.shape[1]
    bands = [band.split(columns, 1) for band in weight.float().split(rows)]
    scales = torch.tensor([[float(part.abs().max()) for part in band] for band in bands]) / 448
    scales[scales == 0] = 1
    stored = power_above(scales) if dtype == torch.float8_e8m0fnu else scales.to(dtype)
    made = [
        torch.cat([(part / s).clamp(-448, 448) for part, s in zip(band, row, strict=True)], 1)
        for band, row in zip(bands, stored.float(), strict=True)
    ]
    return torch.cat(made).to(FP8), stored


def power_above(scales: Tensor) -> Tensor:
    """Scales as powers of two that are not smaller."""
    return torch.exp2(torch.ceil(torch.log2(scales.double()))).float().to(torch.float8_e8m0fnu)


def plain(codes: Tensor, scales: Tensor, block: tuple[int, int], dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """vLLM's block dequantisation, as published: scales repeated over their blocks, cropped, times numbers."""
    rows, columns = block[0], block[1] or codes.shape[-1]
    wide = scales.float().repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    return (codes.float() * wide[..., : codes.shape[-2], : codes.shape[-1]]).to(dtype)


def fine_grained(block: tuple[int, int] = (128, 128), keep: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """quantization_config as Qwen's releases have it."""
    return {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "modules_to_not_convert": keep or [],
        "quant_method": "fp8",
        "weight_block_size": list(block),
        **more,
    }


def compressed(block: tuple[int, int] = (1, 0), keep: list[str] | None = None) -> dict[str, Any]:
    """quantization_config as llm-compressor writes it."""
    weights = {
        "actorder": None,
        "block_structure": list(block) if block[1] else None,
        "dynamic": False,
        "group_size": None,
        "num_bits": 8,
        "observer": "minmax",
        "strategy": "block" if block[1] else "channel",
        "symmetric": True,
        "type": "float",
    }
    inputs = {"dynamic": True, "num_bits": 8, "strategy": "token", "symmetric": True, "type": "float"}
    return {
        "config_groups": {"group_0": {"input_activations": inputs, "targets": ["Linear"], "weights": weights}},
        "format": "float-quantized",
        "global_compression_ratio": None,
        "ignore": keep or [],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }


def is_linear(name: str) -> bool:
    """Which parameters Qwen's releases hold in FP8: projections of the language model and of its experts."""
    inside = ".layers." in name and not name.startswith("model.visual.")
    narrow = (".in_proj_a.", ".in_proj_b.", ".gate.", ".shared_expert_gate.", "norm", ".conv1d.", "bias")
    return inside and "_proj" in name and not any(part in name for part in narrow)


def suffix_of(stated: dict[str, Any]) -> str:
    return "_scale_inv" if stated["quant_method"] == "fp8" else "_scale"


def block_of(stated: dict[str, Any]) -> tuple[int, int]:
    if stated["quant_method"] == "fp8":
        rows, columns = stated["weight_block_size"]
        return rows, columns
    weights = stated["config_groups"]["group_0"]["weights"]
    return tuple(weights["block_structure"] or (1, 0))


def quantised_model(
    tensors: Tensors,
    stated: dict[str, Any],
    dtype: torch.dtype = torch.bfloat16,
    which: Callable[[str], bool] = is_linear,
) -> Tensors:
    """A model's tensors, some of them in FP8 with their scales beside them."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if which(name):
            made[name], made[name + suffix_of(stated)] = quantised(tensor, block_of(stated), dtype)
        else:
            made[name] = tensor
    return made


def plain_model(tensors: Tensors, stated: dict[str, Any], dtype: torch.dtype = torch.bfloat16) -> Tensors:
    """The same, as plain tensors: what a reader of FP8 computes with."""
    end = suffix_of(stated)
    return {
        name: plain(t, tensors[name + end], block_of(stated), dtype) if t.dtype == FP8 else t
        for name, t in tensors.items()
        if not name.endswith(end)
    }


def one_by_one(tensors: Tensors) -> Tensors:
    """Packed experts [E, 2M, H] and [E, H, M] as each by itself, as Qwen3.5's FP8 releases have them."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".")
        if not stem.endswith(".mlp.experts"):
            made[name] = tensor
            continue
        for number, one in enumerate(tensor):
            parts = zip(("gate_proj", "up_proj"), one.chunk(2), strict=True) if last == "gate_up_proj" else ()
            made |= {f"{stem}.{number}.{part}.weight": t.contiguous() for part, t in parts}
            if last == "down_proj":
                made[f"{stem}.{number}.down_proj.weight"] = one.contiguous()
    return made


def write_fp8(directory: Path, config: dict[str, Any], tensors: Tensors, stated: dict[str, Any]) -> Tensors:
    """A Hugging Face directory of these tensors, with a quantization_config."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": stated}, indent=2) + "\n")
    write_side_files(directory, config)
    write_weights(directory, {name: t.contiguous() for name, t in tensors.items()})
    return tensors


def tiny_fp8(
    directory: Path,
    kind: str = "qwen3_vl",
    stated: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    *,
    apart: bool = False,
    seed: int = 0,
    **changes: Any,
) -> Tensors:
    """A tiny FP8 model, and its tensors.

    Args:
        directory: to write.
        kind: model_type.
        stated: quantization_config; None: blocks of 32 x 16, so that a matrix has several of them, the last ones short.
        dtype: of the scales.
        apart: packed experts are written one by one.
        seed: other numbers.
        changes: fields of config.json, as tiny_config takes them.
    """
    stated = fine_grained((32, 16), ["lm_head", "model.visual"]) if stated is None else stated
    config = tiny_config(kind, **changes)
    tensors = tiny_weights(tiny_shapes(config), seed, delta_dtype="bfloat16")
    tensors = quantised_model(one_by_one(tensors) if apart else tensors, stated, dtype)
    return write_fp8(directory, config, tensors, stated)


KEPT = ["lm_head", "model.visual"]
SMALL = fine_grained((32, 16), KEPT)
"""Name -> model_type, quantization_config, dtype of scales, whether packed experts are written one by one."""
FORMS: dict[str, tuple[str, dict[str, Any], torch.dtype, bool]] = {
    "Qwen3-VL": ("qwen3_vl", SMALL, torch.bfloat16, False),
    "Qwen3-VL-MoE, fused": ("qwen3_vl_moe", SMALL, torch.float32, False),
    "Qwen3.5-MoE, one by one": ("qwen3_5_moe", SMALL, torch.bfloat16, True),
    "Qwen3.5, powers of two": ("qwen3_5", SMALL | {"scale_fmt": "ue8m0"}, torch.float8_e8m0fnu, False),
    "Qwen3-MoE": ("qwen3_moe", fine_grained((128, 128)), torch.float32, False),
    "FP8_DYNAMIC": ("qwen3", compressed((1, 0), ["lm_head"]), torch.bfloat16, False),
    "FP8_BLOCK": ("qwen3_5_text", compressed((32, 16), ["re:.*lm_head"]), torch.bfloat16, False),
}

QUICK = ("Qwen3-VL-MoE, fused", "Qwen3.5-MoE, one by one", "FP8_DYNAMIC")
EVERY_FORM = [form if form in QUICK else pytest.param(form, marks=pytest.mark.slow) for form in FORMS]


def run(*args: object, code: int = 0) -> Result:
    ran = CliRunner().invoke(app, [str(arg) for arg in args], prog_name="vlconv", env={"COLUMNS": "200"})
    assert ran.exit_code == code, ran.output
    return ran


def document(*args: object, code: int = 0) -> Any:
    return json.loads(run(*args, "--json", code=code).stdout)
