"""Text-only models and hybrids there and back: transformers opens what is written and computes what it did, and
config.json is the reference's but for what the weights force.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from converting import slow
from logits import logits
from references import differing, read_hf
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf

SAMPLED = 2

KINDS = ["qwen2", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"]
RANKS: dict[str, Any] = {"format": "torch", "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(tmp_path: Path, kind: str) -> None:
    config = tiny_config(kind, tied=kind in ("qwen2", "qwen3_5"))
    tensors = write_tiny_hf(tmp_path / "original", config)
    options = RANKS if kind in ("qwen3_moe", "qwen3_5_text") else {}
    hf2mcore(tmp_path / "original", tmp_path / "mcore", Hf2McoreOptions(**options))
    mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(reference=str(tmp_path / "original")))
    assert differing(read_hf(tmp_path / "back"), tensors) == []
    assert torch.equal(logits(tmp_path / "back"), logits(tmp_path / "original"))
    made = json.loads((tmp_path / "back" / "config.json").read_text())
    assert made == config | {"dtype": "bfloat16"}
    beside = {p.name for p in (tmp_path / "original").iterdir()}
    assert {p.name for p in (tmp_path / "back").iterdir()} == beside | {"vlconv.json"}


@pytest.mark.parametrize("kind", ["qwen3_5", slow("qwen3_5_moe_text")])
def test_a_config_without_its_head_opens_too(tmp_path: Path, kind: str) -> None:
    config = tiny_config(kind)
    tensors = write_tiny_hf(tmp_path / "original", config)
    hf2mcore(tmp_path / "original", tmp_path / "mcore")
    mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(mtp="drop"))
    left = {name for name in tensors if name.startswith("mtp.")}
    assert left and tensors.keys() - read_hf(tmp_path / "back").keys() == left
    made = json.loads((tmp_path / "back" / "config.json").read_text())
    text = config.get("text_config", config)
    text["mtp_num_hidden_layers"] = 0
    assert made == config | {"dtype": "bfloat16"}
    assert torch.allclose(logits(tmp_path / "back"), logits(tmp_path / "original"), atol=1e-4)


@pytest.mark.parametrize("kind", ["qwen3_5_moe", slow("qwen3_5_moe_text")])
def test_experts_one_by_one_open_too(tmp_path: Path, kind: str) -> None:
    """The Hub has them packed."""
    config = tiny_config(kind)
    write_tiny_hf(tmp_path / "original", config)
    hf2mcore(tmp_path / "original", tmp_path / "mcore")
    mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(experts="per-expert"))
    assert not any(name.endswith("mlp.experts.gate_up_proj") for name in read_hf(tmp_path / "back"))
    assert torch.allclose(logits(tmp_path / "back"), logits(tmp_path / "original"), atol=1e-4)
