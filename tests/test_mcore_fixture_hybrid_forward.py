"""megatron-core against transformers, for hybrids: formulas that agree, and what mistakes cost."""

from __future__ import annotations

import sys
from pathlib import Path

import dcp
import pytest
import torch
from mcore.fill import whole
from mcore.forward import hf_text_logits, hf_vision_block, mcore_text_logits, mcore_vision_block
from mcore.hybrid import wrong
from mcore.hybrid.mtp import hf_mtp_logits, mcore_mtp_logits
from mcore.save import save
from mcore.theirs import vision_model
from mcore.tiny import hf_shapes, random_hf_tensors, tiny_hybrid
from mcore.topology import Topology

pytestmark = [pytest.mark.mcore_versions, pytest.mark.slow]  # those who use it fail with it

CONFIGS = {
    "dense": tiny_hybrid("qwen3_5"),
    "tied": tiny_hybrid("qwen3_5", tied=True),
    "moe": tiny_hybrid("qwen3_5_moe"),
    "text": tiny_hybrid("qwen3_5_text"),
    "text moe": tiny_hybrid("qwen3_5_moe_text"),
    "next": tiny_hybrid("qwen3_next"),
    "deep": tiny_hybrid("qwen3_5", layers=8),
    "no mtp": tiny_hybrid("qwen3_5_text", tied=True, mtp=0),
}


def ids() -> torch.Tensor:
    """Longer than one chunk of the delta rule, 64 positions."""
    return torch.randint(0, 248, (2, 70), generator=torch.Generator().manual_seed(1))


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    assert b.std() > 0.05  # something was computed
    return (a - b).abs().max().item()


SAME = 1e-5
"""float32: transformers solves for what megatron-core adds up row by row; 3e-6 was seen."""
OTHER = 0.1
"""What a wrong order costs at least; of those here the cheapest costs 0.14."""


@pytest.mark.parametrize("config", CONFIGS)
def test_formulas_agree_with_transformers(config: str) -> None:
    hf = random_hf_tensors(CONFIGS[config], scale=0.05)
    state = whole(CONFIGS[config], hf)
    assert gap(mcore_text_logits(state, CONFIGS[config], ids()), hf_text_logits(hf, CONFIGS[config], ids())) < SAME
    assert "fla" not in sys.modules


@pytest.mark.parametrize("config", ["dense", "next"])
@pytest.mark.parametrize("mistake", wrong.IN_MEGATRON)
def test_a_wrong_order_in_megatron_shows(config: str, mistake: str) -> None:
    hf = random_hf_tensors(CONFIGS[config], scale=0.05)
    state = wrong.IN_MEGATRON[mistake](whole(CONFIGS[config], hf), CONFIGS[config])
    assert gap(mcore_text_logits(state, CONFIGS[config], ids()), hf_text_logits(hf, CONFIGS[config], ids())) > OTHER


@pytest.mark.parametrize(("config", "mistake"), [("dense", "gates behind queries"), ("next", "key heads as if flat")])
def test_a_wrong_reading_of_the_hub_shows(config: str, mistake: str) -> None:
    hf = random_hf_tensors(CONFIGS[config], scale=0.05)
    state = whole(CONFIGS[config], wrong.ON_THE_HUB[mistake](hf, CONFIGS[config]))
    assert gap(mcore_text_logits(state, CONFIGS[config], ids()), hf_text_logits(hf, CONFIGS[config], ids())) > OTHER


def test_what_torch_dist_holds_in_parts_is_joined(tmp_path: Path) -> None:
    config = CONFIGS["text moe"]
    hf = random_hf_tensors(config, scale=0.05)
    found = dcp.unstacked(dcp.load(save(tmp_path / "ckpt", config, hf, Topology(tp=2, ep=2), optimizer=False)))
    assert gap(mcore_text_logits(found, config, ids()), hf_text_logits(hf, config, ids())) < SAME


@pytest.mark.parametrize("config", ["dense", "moe"])
def test_towers_agree_with_transformers(config: str) -> None:
    hf = random_hf_tensors(CONFIGS[config], scale=0.05)
    hidden = torch.randn(20, 32, generator=torch.Generator().manual_seed(2))
    ours = mcore_vision_block(whole(CONFIGS[config], hf), CONFIGS[config], 1, hidden)
    assert gap(ours, hf_vision_block(hf, CONFIGS[config], 1, hidden)) < SAME
    names = {name: shape for name, shape in hf_shapes(CONFIGS[config]).items() if name.startswith("model.visual.")}
    theirs = {name: tuple(t.shape) for name, t in vision_model(CONFIGS[config]).state_dict().items()}
    assert names == {f"model.visual.{name}": shape for name, shape in theirs.items()}


@pytest.mark.parametrize("config", ["tied", "moe", "next"])
def test_mtp_heads_agree_with_transformers(config: str) -> None:
    hf = random_hf_tensors(CONFIGS[config], scale=0.05)
    ours = mcore_mtp_logits(whole(CONFIGS[config], hf), CONFIGS[config], ids())[:, :-1]
    assert gap(ours, hf_mtp_logits(hf, CONFIGS[config], ids())) < SAME


@pytest.mark.parametrize("mistake", wrong.IN_MTP)
def test_a_wrong_mtp_head_shows(mistake: str) -> None:
    config = CONFIGS["text moe"]
    hf = random_hf_tensors(config, scale=0.05, packed_mtp=True)
    ours = mcore_mtp_logits(wrong.IN_MTP[mistake](whole(config, hf), config), config, ids())[:, :-1]
    assert gap(ours, hf_mtp_logits(hf, config, ids())) > OTHER
