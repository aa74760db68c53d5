"""Hybrids and text-only models, as in test_forward: megatron-core computes on the Megatron side of a conversion,
transformers on the other.

No formula and no table stands between the two computations but the one under test.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import dcp
import pytest
import torch
from converting import Tensors, slow, to_hf, to_mcore
from mcore.forward import hf_text_logits, hf_vision_block, language_part, mcore_text_logits, mcore_vision_block
from mcore.hybrid import wrong
from mcore.hybrid.mtp import hf_mtp_logits, mcore_mtp_logits
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny_hybrid, tiny_text
from mcore.topology import Topology

from vlconv.converters.models.shared.config import ModelConfig

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

CONFIGS = {
    "qwen2": tiny_text("qwen2"),
    "qwen3": tiny_text("qwen3", tied=True),
    "qwen3 moe": tiny_text("qwen3_moe"),
    "dense": tiny_hybrid("qwen3_5"),
    "tied": tiny_hybrid("qwen3_5", tied=True),
    "moe": tiny_hybrid("qwen3_5_moe"),
    "text": tiny_hybrid("qwen3_5_text"),
    "text moe": tiny_hybrid("qwen3_5_moe_text"),
    "next": tiny_hybrid("qwen3_next"),
    "no mtp": tiny_hybrid("qwen3_5_text", tied=True, mtp=0),
}
HEADS = ["tied", "moe", "text", "next"]

SAME = 2e-5
"""float32: transformers solves for what megatron-core adds up row by row; 1e-5 was seen."""
OTHER = 0.1
"""Far above rounding: what a wrong layout costs at least."""


def ids() -> torch.Tensor:
    """Longer than one chunk of the delta rule, 64 positions."""
    return torch.randint(0, 248, (2, 70), generator=torch.Generator().manual_seed(1))


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    assert b.std() > 0.05  # something was computed
    return (a - b).abs().max().item()


def random_weights(config: ModelConfig) -> Tensors:
    return random_hf_tensors(config, scale=0.05)


@cache
def right(name: str) -> torch.Tensor:
    """transformers' logits of a model."""
    return hf_text_logits(random_weights(CONFIGS[name]), CONFIGS[name], ids())


def mcore_side(tmp_path: Path, config: ModelConfig, hf: Tensors) -> Tensors:
    """Hugging Face weights through hf2mcore: the language model, one tensor for each layer, parts put together."""
    to_mcore(tmp_path, config, hf, make_vocab_size_divisible_by=128)
    return dcp.unstacked(dcp.load(tmp_path / "mcore" / "release"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tensors]:
    """The Megatron side of a model by its name, converted once."""

    @cache
    def side(name: str) -> Tensors:
        config = CONFIGS[name]
        return language_part(mcore_side(tmp_path_factory.mktemp("side"), config, random_weights(config)))

    return side


def logits(state: Tensors, config: ModelConfig) -> torch.Tensor:
    """megatron-core's, without those of the padding."""
    return mcore_text_logits(state, config, ids())[..., : config.text.vocab]


@pytest.mark.parametrize("name", CONFIGS)
def test_hf2mcore(converted: Callable[[str], Tensors], name: str) -> None:
    assert gap(logits(converted(name), CONFIGS[name]), right(name)) < SAME


@pytest.mark.parametrize("name", HEADS)
def test_hf2mcore_of_a_head(converted: Callable[[str], Tensors], name: str) -> None:
    config, hf = CONFIGS[name], random_weights(CONFIGS[name])
    ours = mcore_mtp_logits(converted(name), config, ids())[:, :-1, : config.text.vocab]
    assert gap(ours, hf_mtp_logits(hf, config, ids())) < SAME


@pytest.mark.parametrize("name", ["qwen2", slow("qwen3 moe"), "dense", slow("text moe"), "next"])
def test_mcore2hf(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    source = save(tmp_path / "ckpt", config, random_weights(config), Topology(tp=2), args=False)
    found, _ = to_hf(tmp_path, source, config)
    state = dcp.unstacked(dcp.load(source))
    assert gap(logits(state, config), hf_text_logits(found, config, ids())) < SAME
    if config.text.mtp:
        assert gap(mcore_mtp_logits(state, config, ids())[:, :-1], hf_mtp_logits(found, config, ids())) < SAME


@pytest.mark.parametrize("name", ["dense", slow("moe")])
def test_vision(tmp_path: Path, name: str) -> None:
    config, hf = CONFIGS[name], random_weights(CONFIGS[name])
    patches = torch.randn(20, config.tower.hidden, generator=torch.Generator().manual_seed(2))
    ours = mcore_vision_block(mcore_side(tmp_path, config, hf), config, 2, patches)
    assert gap(ours, hf_vision_block(hf, config, 2, patches)) < SAME


def keys_and_values_exchanged(state: Tensors, config: ModelConfig) -> Tensors:
    """The last two heads of every query group of attention."""
    c = config.text

    def change(qkv: torch.Tensor) -> torch.Tensor:
        heads = qkv.unflatten(0, (c.groups, -1, c.head_dim))
        return torch.cat([heads[:, :-2], heads[:, -1:], heads[:, -2:-1]], 1).flatten(0, 2)

    return {name: change(t) if name.endswith("linear_qkv.weight") else t for name, t in state.items()}


def gate_and_up_exchanged(state: Tensors, _config: ModelConfig) -> Tensors:
    return {
        n: t.roll(t.shape[0] // 2, 0) if n.endswith("linear_fc1.weight") and t.dim() == 2 else t
        for n, t in state.items()
    }


def biases_rolled(state: Tensors, config: ModelConfig) -> Tensors:
    return {n: t.roll(config.text.head_dim, 0) if n.endswith("linear_qkv.bias") else t for n, t in state.items()}


def experts_rolled(state: Tensors, _config: ModelConfig) -> Tensors:
    return {n: t.roll(1, 0) if n.endswith("experts.experts.linear_fc2.weight") else t for n, t in state.items()}


def shared_gate_negated(state: Tensors, _config: ModelConfig) -> Tensors:
    return {n: -t if n.endswith("shared_experts.gate_weight") else t for n, t in state.items()}


MISTAKES: dict[str, tuple[list[str], Callable[[Tensors, ModelConfig], Tensors]]] = {
    **{name: (["dense"], mistake) for name, mistake in wrong.IN_MEGATRON.items()},
    "keys and values exchanged": (["qwen2", "text"], keys_and_values_exchanged),
    "gate and up exchanged": (["qwen3", "text moe"], gate_and_up_exchanged),
    "biases rolled": (["qwen2"], biases_rolled),
    "experts rolled": (["qwen3 moe", "text moe"], experts_rolled),
    "gate of the shared expert negated": (["moe"], shared_gate_negated),
}


OFTEN = ("keys and values exchanged", "gate of the shared expert negated")
ALWAYS = [m if any(word in m for word in ("gate", "norm", "beta")) or m in OFTEN else slow(m) for m in MISTAKES]


@pytest.mark.parametrize("mistake", ALWAYS)
def test_a_wrong_layout_shows(converted: Callable[[str], Tensors], mistake: str) -> None:
    """The negative control: what `test_hf2mcore` would find if a table were wrong."""
    names, spoil = MISTAKES[mistake]
    for name in names:
        config = CONFIGS[name]
        assert gap(logits(spoil(converted(name), config), config), right(name)) > OTHER, name


@pytest.mark.parametrize(("name", "mistake"), [("dense", "gates behind queries"), ("next", "key heads as if flat")])
def test_a_wrong_reading_of_the_hub_shows(tmp_path: Path, name: str, mistake: str) -> None:
    config, hf = CONFIGS[name], random_weights(CONFIGS[name])
    state = mcore_side(tmp_path, config, wrong.ON_THE_HUB[mistake](hf, config))
    assert gap(logits(state, config), right(name)) > OTHER


@pytest.mark.parametrize("mistake", wrong.IN_MTP)
def test_a_wrong_head_shows(converted: Callable[[str], Tensors], mistake: str) -> None:
    config, hf = CONFIGS["text"], random_weights(CONFIGS["text"])
    state = wrong.IN_MTP[mistake](converted("text"), config)
    ours = mcore_mtp_logits(state, config, ids())[:, :-1, : config.text.vocab]
    assert gap(ours, hf_mtp_logits(hf, config, ids())) > OTHER
