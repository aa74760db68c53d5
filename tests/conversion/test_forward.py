"""What a round trip cannot show: that the layout is right. megatron-core computes on the Megatron side of a conversion,
transformers on the other.

No formula and no table stands between the two computations but the one under test: torch's own reader reads the
Megatron side, safetensors the other.
"""

from __future__ import annotations

from pathlib import Path

import dcp
import pytest
import torch
from mcore.forward import hf_text_logits, hf_vision_block, mcore_text_logits, mcore_vision_block
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Topology
from references import read_hf, write_hf, write_reference

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf
from vlconv.converters.models.shared.config import ModelConfig

pytestmark = pytest.mark.mcore_versions

Tensors = dict[str, torch.Tensor]

CONFIGS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "mixed": tiny(moe=True, dense_layers=[1]),
    "2.5": tiny_2_5(),
    "2.5 tied": tiny_2_5(tied=True),
}
TOWERS = {"qwen3": tiny(), "qwen2.5": tiny_2_5()}

SAME = 1e-5
OTHER = 0.05
"""Far above rounding: what a wrong layout costs at least."""


def random_weights(config: ModelConfig) -> Tensors:
    return random_hf_tensors(config, scale=0.05)


def ids(config: ModelConfig) -> torch.Tensor:
    return torch.randint(0, config.text.vocab, (2, 12), generator=torch.Generator().manual_seed(1))


def patches(config: ModelConfig) -> torch.Tensor:
    return torch.randn(20, config.vision.hidden, generator=torch.Generator().manual_seed(2))


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    assert b.std() > 0.05  # something was computed
    return (a - b).abs().max().item()


def mcore_side(tmp_path: Path, config: ModelConfig, hf: Tensors) -> Tensors:
    """Hugging Face weights through hf2mcore: one tensor for each layer."""
    hf2mcore(
        write_hf(tmp_path / "hf", config, hf), tmp_path / "mcore", Hf2McoreOptions(make_vocab_size_divisible_by=128)
    )
    return dcp.unstacked(dcp.load(tmp_path / "mcore" / "release"))


class TestText:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_hf2mcore(self, tmp_path: Path, name: str) -> None:
        config, hf = CONFIGS[name], random_weights(CONFIGS[name])
        ours = mcore_text_logits(mcore_side(tmp_path, config, hf), config, ids(config))
        assert gap(ours[..., : config.text.vocab], hf_text_logits(hf, config, ids(config))) < SAME

    @pytest.mark.parametrize("name", ["dense", "moe", "2.5"])
    def test_mcore2hf(self, tmp_path: Path, name: str) -> None:
        config = CONFIGS[name]
        source = save(tmp_path / "mcore", config, random_weights(config), Topology(), args=False)
        mcore2hf(
            source, tmp_path / "hf", Mcore2HfOptions(reference=str(write_reference(tmp_path / "reference", config)))
        )
        theirs = mcore_text_logits(dcp.unstacked(dcp.load(source)), config, ids(config))
        assert gap(theirs, hf_text_logits(read_hf(tmp_path / "hf"), config, ids(config))) < SAME

    @pytest.mark.parametrize("wrong", ["rolled", "k and v", "gate and up", "experts"])
    def test_a_wrong_layout_shows(self, tmp_path: Path, wrong: str) -> None:
        """The negative control: what `test_hf2mcore` would find if a table were wrong."""
        config = CONFIGS["moe" if wrong == "experts" else "dense"]
        hf = random_weights(config)
        state = spoilt(mcore_side(tmp_path, config, hf), config, wrong)
        assert (
            gap(
                mcore_text_logits(state, config, ids(config))[..., : config.text.vocab],
                hf_text_logits(hf, config, ids(config)),
            )
            > OTHER
        )


def spoilt(state: Tensors, config: ModelConfig, how: str) -> Tensors:
    """The Megatron side with one thing out of order in every language layer."""
    made = dict(state)
    for name, tensor in state.items():
        if not name.startswith("language_model."):
            continue
        if name.endswith("linear_qkv.weight") and how == "rolled":
            made[name] = tensor.roll(config.text.head_dim, 0)
        if name.endswith("linear_qkv.weight") and how == "k and v":
            heads = tensor.unflatten(0, (config.text.groups, -1, config.text.head_dim))
            made[name] = torch.cat([heads[:, :-2], heads[:, -1:], heads[:, -2:-1]], 1).flatten(0, 2)
        if name.endswith("mlp.linear_fc1.weight") and how == "gate and up":
            made[name] = tensor.roll(config.text.ffn, 0)
        if name.endswith("experts.linear_fc2.weight") and how == "experts":
            made[name] = tensor.roll(1, 0)
    return made


class TestVision:
    @pytest.mark.parametrize("name", TOWERS)
    @pytest.mark.parametrize("block", [0, 2])
    def test_hf2mcore(self, tmp_path: Path, name: str, block: int) -> None:
        config, hf = TOWERS[name], random_weights(TOWERS[name])
        ours = mcore_vision_block(mcore_side(tmp_path, config, hf), config, block, patches(config))
        assert gap(ours, hf_vision_block(hf, config, block, patches(config))) < SAME

    @pytest.mark.parametrize("name", TOWERS)
    def test_mcore2hf(self, tmp_path: Path, name: str) -> None:
        config = TOWERS[name]
        source = save(tmp_path / "mcore", config, random_weights(config), Topology(), args=False)
        mcore2hf(
            source, tmp_path / "hf", Mcore2HfOptions(reference=str(write_reference(tmp_path / "reference", config)))
        )
        theirs = mcore_vision_block(dcp.unstacked(dcp.load(source)), config, 1, patches(config))
        assert gap(theirs, hf_vision_block(read_hf(tmp_path / "hf"), config, 1, patches(config))) < SAME

    @pytest.mark.parametrize("name", TOWERS)
    def test_qkv_of_all_heads_together_shows(self, tmp_path: Path, name: str) -> None:
        """The negative control: Hugging Face's q, k and v left one behind the other."""
        config, hf = TOWERS[name], random_weights(TOWERS[name])
        state = mcore_side(tmp_path, config, hf)
        top = "visual" if name == "qwen2.5" else "model.visual"
        for kind in ("weight", "bias"):
            ours, theirs = (
                f"vision_model.decoder.layers.1.self_attention.linear_qkv.{kind}",
                hf[f"{top}.blocks.1.attn.qkv.{kind}"],
            )
            assert not torch.equal(state[ours], theirs)
            state[ours] = theirs
        assert (
            gap(mcore_vision_block(state, config, 1, patches(config)), hf_vision_block(hf, config, 1, patches(config)))
            > 100 * SAME
        )
