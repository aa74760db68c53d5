"""Adapters of experts that peft before 0.19.1 saved: it took a parameter [E, out, in] for [E, in, out].

The formulas of the two forms are peft's own (ParamWrapper.get_delta_weight), written down here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters_of_peft import ALPHA, EXPERTS, RANK, save_adapter
from safetensors.torch import save_file
from tiny import tiny_config, write_tiny_hf
from torch import Tensor

from vlconv.converters import MismatchError
from vlconv.converters.adapters.adapter import Adapter
from vlconv.converters.adapters.peft.opened import open_peft
from vlconv.converters.adapters.peft.read import adapter_of
from vlconv.converters.adapters.peft.written import to_write
from vlconv.converters.models import ModelConfig, model_for
from vlconv.converters.tensors.spec import whole

SQUARE = {"hidden_size": 64, "moe_intermediate_size": 32}
"""gate and up together have as many rows as columns."""


def experts_of(lora_a: Tensor, lora_b: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    return lora_a.reshape(experts, -1, lora_a.shape[1]), lora_b.reshape(lora_b.shape[0], -1, experts)


def since(lora_a: Tensor, lora_b: Tensor, experts: int) -> Tensor:
    """The change of a parameter [E, out, in] since 0.19.1."""
    a, b = experts_of(lora_a, lora_b, experts)
    return torch.einsum("ore,eri->eoi", b, a) * (ALPHA / RANK)


def before(lora_a: Tensor, lora_b: Tensor, experts: int) -> Tensor:
    """The change of the same one before."""
    a, b = experts_of(lora_a, lora_b, experts)
    return torch.einsum("ore,eri->eio", b, a) * (ALPHA / RANK)


def turned(lora_a: Tensor, lora_b: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Of one form the two tensors that change the model in the same way in the other."""
    a, b = experts_of(lora_a, lora_b, experts)
    return b.permute(2, 1, 0).reshape(-1, b.shape[0]).contiguous(), a.permute(2, 1, 0).reshape(
        a.shape[2], -1
    ).contiguous()


def made(
    tmp_path: Path, kind: str, version: str | None, text: dict[str, Any]
) -> tuple[Path, ModelConfig, dict[str, Any]]:
    """A directory as peft saved it before, and the change of every parameter by its formula."""
    config = tiny_config(kind, text=text)
    write_tiny_hf(tmp_path / "hf", config, dtype="float32")
    tensors, changes = save_adapter(tmp_path / "hf", tmp_path / "made", **EXPERTS), dict[str, Tensor]()
    model = model_for(config).config(config)
    for name in [n for n in tensors if n.endswith("lora_A.weight")]:
        other = name.replace("lora_A", "lora_B")
        pair = tensors[name], tensors[other]
        tensors[name], tensors[other] = turned(*pair, model.text.experts)
        changes[name] = before(tensors[name], tensors[other], model.text.experts)
        torch.testing.assert_close(changes[name], since(*pair, model.text.experts))
    save_file(tensors, tmp_path / "made/adapter_model.safetensors")
    stated = json.loads((tmp_path / "made/adapter_config.json").read_text())
    (tmp_path / "made/adapter_config.json").write_text(json.dumps(stated | {"peft_version": version}))
    return tmp_path / "made", model, changes


def change(adapter: Adapter, stem: str, parts: tuple[str, ...], experts: int) -> Tensor:
    """B x A of each expert, its parts one below the other."""
    by_module = {pair.module: pair for pair in adapter.pairs}

    def product(module: str) -> Tensor:
        pair = by_module[module]
        return pair.scale * (tensor_of(adapter, pair.b) @ tensor_of(adapter, pair.a))

    return torch.stack([torch.cat([product(f"{stem}.{e}.{part}") for part in parts]) for e in range(experts)])


def tensor_of(adapter: Adapter, name: str) -> Tensor:
    spec = adapter.reader.specs[name]
    out = np.empty(spec.shape, np.uint32)
    adapter.reader.read_into(whole(spec), out)
    return torch.from_numpy(out).view(torch.float32)


@pytest.mark.parametrize(
    ("kind", "version", "text"),
    [
        ("qwen3_moe", "0.18.1", {}),
        ("qwen3_moe", None, {}),
        ("qwen3_vl_moe", "0.18.0", {}),
        ("qwen3_moe", "0.19.0", SQUARE),
    ],
)
def test_each_change_is_what_it_was(tmp_path: Path, kind: str, version: str | None, text: dict[str, Any]) -> None:
    directory, model, changes = made(tmp_path, kind, version, text)
    adapter, experts = adapter_of(open_peft(directory), model), model.text.experts
    prefix = "model.language_model." if kind == "qwen3_vl_moe" else "model."
    for layer in range(model.text.layers):
        stem = f"{prefix}layers.{layer}.mlp.experts"
        for inside, parts in ((".base_layer", ("gate_proj", "up_proj")), ("", ("down_proj",))):
            expected = changes[f"base_model.model.{stem}{inside}.lora_A.weight"]
            torch.testing.assert_close(change(adapter, stem, parts, experts), expected)


@pytest.mark.parametrize("version", [None, "0.19.1.dev0"])
def test_square_matrices_of_no_version(tmp_path: Path, version: str | None) -> None:
    directory, model, _ = made(tmp_path, "qwen3_moe", version, SQUARE)
    with pytest.raises(MismatchError, match=r"square matrices.*\n.*peft_version"):
        adapter_of(open_peft(directory), model)


def test_square_matrices_that_transformers_4_has_the_other_way_round(tmp_path: Path) -> None:
    directory, model, _ = made(tmp_path, "qwen3_vl_moe", "0.18.1", SQUARE)
    with pytest.raises(MismatchError, match="square matrices"):
        adapter_of(open_peft(directory), model)


def test_what_is_written_says_its_form(tmp_path: Path) -> None:
    """Square matrices are read again."""
    directory, model, _ = made(tmp_path, "qwen3_moe", "0.18.1", SQUARE)
    written = to_write(adapter_of(open_peft(directory), model), model, packed=True)
    assert written.config["peft_version"] == "0.19.1"
    assert "peft_version" not in to_write(adapter_of(open_peft(directory), model), model, packed=False).config
