"""megatron-core against itself: what the other witnesses stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mcore import ranks
from mcore.fill import whole
from mcore.forward import hf_text_logits, hf_vision_block, mcore_text_logits, mcore_vision_block
from mcore.legacy import load_legacy, save_legacy
from mcore.load import load_and_compare
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5, tiny_text, without_tower
from mcore.topology import Topology
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from vlconv.converters.models.shared.config import ModelConfig

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

# The tensors of `tiny()` in a stacked checkpoint, as trainers' checkpoints show them: L 4, H 64, Q 256, F 96, V 248;
# vision D 3, h 32, m 80, K 2, 4h 128.
STACKED = {
    "language_model.embedding.word_embeddings.weight": (248, 64),
    "language_model.output_layer.weight": (248, 64),
    "language_model.decoder.final_layernorm.weight": (64,),
    "language_model.decoder.layers.self_attention.linear_qkv.weight": (4, 256, 64),
    "language_model.decoder.layers.self_attention.linear_qkv.layer_norm_weight": (4, 64),
    "language_model.decoder.layers.self_attention.q_layernorm.weight": (4, 16),
    "language_model.decoder.layers.self_attention.k_layernorm.weight": (4, 16),
    "language_model.decoder.layers.self_attention.linear_proj.weight": (4, 64, 128),
    "language_model.decoder.layers.mlp.linear_fc1.weight": (4, 192, 64),
    "language_model.decoder.layers.mlp.linear_fc1.layer_norm_weight": (4, 64),
    "language_model.decoder.layers.mlp.linear_fc2.weight": (4, 64, 96),
    "vision_model.patch_embed.proj.weight": (32, 3, 2, 4, 4),
    "vision_model.patch_embed.proj.bias": (32,),
    "vision_model.pos_embed.weight": (16, 32),
    "vision_model.decoder.layers.self_attention.linear_qkv.weight": (3, 96, 32),
    "vision_model.decoder.layers.self_attention.linear_qkv.bias": (3, 96),
    "vision_model.decoder.layers.self_attention.linear_qkv.layer_norm_weight": (3, 32),
    "vision_model.decoder.layers.self_attention.linear_qkv.layer_norm_bias": (3, 32),
    "vision_model.decoder.layers.self_attention.linear_proj.weight": (3, 32, 32),
    "vision_model.decoder.layers.self_attention.linear_proj.bias": (3, 32),
    "vision_model.decoder.layers.mlp.linear_fc1.weight": (3, 80, 32),
    "vision_model.decoder.layers.mlp.linear_fc1.bias": (3, 80),
    "vision_model.decoder.layers.mlp.linear_fc1.layer_norm_weight": (3, 32),
    "vision_model.decoder.layers.mlp.linear_fc1.layer_norm_bias": (3, 32),
    "vision_model.decoder.layers.mlp.linear_fc2.weight": (3, 32, 80),
    "vision_model.decoder.layers.mlp.linear_fc2.bias": (3, 32),
    "vision_model.decoder.deepstack_merger_list.patch_norm.weight": (2, 128),
    "vision_model.decoder.deepstack_merger_list.patch_norm.bias": (2, 128),
    "vision_model.decoder.deepstack_merger_list.linear_fc1.weight": (2, 128, 128),
    "vision_model.decoder.deepstack_merger_list.linear_fc1.bias": (2, 128),
    "vision_model.decoder.deepstack_merger_list.linear_fc2.weight": (2, 64, 128),
    "vision_model.decoder.deepstack_merger_list.linear_fc2.bias": (2, 64),
    "vision_model.merger.patch_norm.weight": (32,),
    "vision_model.merger.patch_norm.bias": (32,),
    "vision_model.merger.linear_fc1.weight": (128, 128),
    "vision_model.merger.linear_fc1.bias": (128,),
    "vision_model.merger.linear_fc2.weight": (64, 128),
    "vision_model.merger.linear_fc2.bias": (64,),
}
DENSE_MLP = "language_model.decoder.layers.mlp.linear_fc"
STACKED_MOE = {name: shape for name, shape in STACKED.items() if not name.startswith(DENSE_MLP)} | {
    "language_model.decoder.layers.pre_mlp_layernorm.weight": (4, 64),
    "language_model.decoder.layers.mlp.router.weight": (4, 4, 64),
    "language_model.decoder.layers.mlp.experts.experts.linear_fc1.weight": (4, 4, 48, 64),
    "language_model.decoder.layers.mlp.experts.experts.linear_fc2.weight": (4, 4, 64, 24),
}
CONFIGS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "mixed": tiny(moe=True, dense_layers=[1]),
    "2.5": tiny_2_5(),
    "text dense": tiny_text("qwen3"),
    "text tied": tiny_text("qwen3", tied=True),
    "text moe": tiny_text("qwen3_moe"),
    "text mixed": tiny_text("qwen3_moe", dense_layers=[1]),
    "text biased": tiny_text("qwen2", tied=True),
    "half dense": without_tower(tiny()),
    "half moe": without_tower(tiny(moe=True)),
}
WITH_TOWER = [name for name, config in CONFIGS.items() if config.vision]


def shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint, as torch's own reader sees them."""
    entries = FileSystemReader(directory).read_metadata().state_dict_metadata
    return {name: tuple(entry.size) for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


@pytest.mark.parametrize(
    ("config", "topology", "expected"),
    [("dense", Topology(tp=2, pp=2, vpp=2), STACKED), ("moe", Topology(tp=2, ep=2), STACKED_MOE)],
)
def test_stacked_keys_are_those_of_trainers(
    tmp_path: Path, config: str, topology: Topology, expected: dict[str, tuple[int, ...]]
) -> None:
    directory = save(tmp_path / "ckpt", CONFIGS[config], random_hf_tensors(CONFIGS[config]), topology)
    found = shapes(directory)
    assert {name: shape for name, shape in found.items() if not name.startswith("optimizer.")} == expected
    assert {
        name.removeprefix("optimizer.state.exp_avg.") for name in found if name.startswith("optimizer.state.exp_avg.")
    } == expected.keys()


LANGUAGE = {name: shape for name, shape in STACKED.items() if name.startswith("language_model.")}
LANGUAGE_MOE = {name: shape for name, shape in STACKED_MOE.items() if name.startswith("language_model.")}
BIASED = {
    "decoder.layers.self_attention.linear_qkv.weight": (4, 128, 64),
    "decoder.layers.self_attention.linear_qkv.bias": (4, 128),
    "decoder.layers.self_attention.linear_proj.weight": (4, 64, 64),
}


def alone(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("language_model."): shape for name, shape in shapes.items()}


def biased(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    left = ("q_layernorm.weight", "k_layernorm.weight", "output_layer.weight")
    return {name: shape for name, shape in shapes.items() if not name.endswith(left)} | BIASED


@pytest.mark.parametrize(
    ("config", "bare", "topology", "expected"),
    [
        ("text dense", None, Topology(tp=2, pp=2), alone(LANGUAGE)),
        ("text moe", None, Topology(ep=2), alone(LANGUAGE_MOE)),
        ("text biased", None, Topology(tp=4), biased(alone(LANGUAGE))),
        ("half dense", None, Topology(tp=2), LANGUAGE),
        ("half dense", True, Topology(tp=2), alone(LANGUAGE)),
        ("half moe", True, Topology(), alone(LANGUAGE_MOE)),
        ("text dense", False, Topology(), LANGUAGE),
    ],
)
def test_a_language_model_alone(
    tmp_path: Path, config: str, bare: bool | None, topology: Topology, expected: dict[str, tuple[int, ...]]
) -> None:
    hf = random_hf_tensors(CONFIGS[config])
    directory = save(tmp_path / "ckpt", CONFIGS[config], hf, topology, optimizer=False, bare=bare)
    assert shapes(directory) == expected
    assert load_and_compare(directory, CONFIGS[config], hf, Topology(tp=2), bare=bare) == []
    assert set(whole(CONFIGS[config], hf, bare=bare)) == set(per_layer(expected, CONFIGS[config]))


def per_layer(stacked: dict[str, tuple[int, ...]], config: ModelConfig) -> Iterator[str]:
    for name in stacked:
        before, layers, after = name.partition("decoder.layers.")
        yield from (f"{before}{layers}{i}.{after}" for i in range(config.text.layers)) if layers else [name]


def test_megatron_lm_folder(tmp_path: Path) -> None:
    directory = save(
        tmp_path / "ckpt", CONFIGS["tied"], random_hf_tensors(CONFIGS["tied"]), Topology(), iteration=10, padded=True
    )
    assert directory == tmp_path / "ckpt" / "iter_0000010"
    assert (tmp_path / "ckpt" / "latest_checkpointed_iteration.txt").read_text() == "10"
    found = shapes(directory)
    assert "language_model.output_layer.weight" not in found
    assert found["language_model.embedding.word_embeddings.weight"] == (256, 64)


@pytest.mark.parametrize(
    ("config", "form", "saved", "loaded"),
    [
        ("dense", "stacked", Topology(tp=2, pp=2, vpp=2), Topology(tp=4)),
        ("tied", "per_layer", Topology(tp=4), Topology(tp=2, pp=2, first=1)),
        ("2.5", "singleton", Topology(tp=2), Topology(pp=2)),
        ("moe", "stacked", Topology(tp=2, ep=2), Topology(tp=2, ep=2, etp=1)),
        ("mixed", "singleton", Topology(tp=2, pp=2, ep=2, etp=1), Topology(ep=4)),
        ("text tied", "stacked", Topology(pp=2), Topology(tp=4)),
        ("text mixed", "per_layer", Topology(tp=2, ep=2), Topology(pp=4)),
        ("text biased", "stacked", Topology(tp=2, pp=2, vpp=2), Topology()),
    ],
)
def test_megatron_reshards_what_it_saved(
    tmp_path: Path, config: str, form: str, saved: Topology, loaded: Topology
) -> None:
    hf = random_hf_tensors(CONFIGS[config])
    directory = save(tmp_path / "ckpt", CONFIGS[config], hf, saved, form, optimizer=False)
    assert load_and_compare(directory, CONFIGS[config], hf, loaded) == []


@pytest.mark.parametrize(
    ("config", "topology", "folders"),
    [
        ("tied", Topology(tp=2, pp=2, vpp=2), ["mp_rank_00_000", "mp_rank_00_001", "mp_rank_01_000", "mp_rank_01_001"]),
        ("moe", Topology(tp=2, ep=2, etp=1), ["mp_rank_00_000", "mp_rank_01_001"]),
        ("mixed", Topology(ep=2, copies=2), ["mp_rank_00_000", "mp_rank_00_001"]),
        ("2.5", Topology(), ["mp_rank_00"]),
        ("text tied", Topology(pp=2), ["mp_rank_00_000", "mp_rank_00_001"]),
        ("text moe", Topology(ep=2), ["mp_rank_00_000", "mp_rank_00_001"]),
        ("text biased", Topology(tp=2), ["mp_rank_00", "mp_rank_01"]),
    ],
)
def test_legacy_files_come_back(tmp_path: Path, config: str, topology: Topology, folders: list[str]) -> None:
    hf = random_hf_tensors(CONFIGS[config])
    directory = save_legacy(tmp_path / "ckpt", CONFIGS[config], hf, topology, grouped=config == "moe", padded=True)
    assert sorted(folder.name for folder in directory.iterdir()) == folders
    assert load_legacy(directory, CONFIGS[config], hf, topology, grouped=config == "moe", padded=True) == []


def test_a_difference_is_named(tmp_path: Path) -> None:
    hf = random_hf_tensors(CONFIGS["dense"])
    directory = save(tmp_path / "ckpt", CONFIGS["dense"], hf, Topology(), optimizer=False)
    hf["model.language_model.layers.3.self_attn.v_proj.weight"][-1, -1] += 1
    faults = load_and_compare(directory, CONFIGS["dense"], hf, Topology(tp=2))
    assert faults == [
        "rank 1: language_model.decoder.layers.3.self_attention.linear_qkv.weight: 1 of 8192 elements differ"
    ]


def test_strict_means_strict(tmp_path: Path) -> None:
    hf = random_hf_tensors(CONFIGS["dense"])
    directory = save(tmp_path / "ckpt", CONFIGS["dense"], hf, Topology(), spec="local", optimizer=False)
    with pytest.raises(ranks.RankError, match=r"linear_fc1\.layer_norm_weight"):
        load_and_compare(directory, CONFIGS["dense"], hf, Topology(), spec="te")


@pytest.mark.parametrize("config", CONFIGS)
def test_formulas_agree_with_transformers(config: str) -> None:
    hf = random_hf_tensors(CONFIGS[config], scale=0.05)
    state = whole(CONFIGS[config], hf)
    ids = torch.randint(0, CONFIGS[config].text.vocab, (2, 12), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        mcore_text_logits(state, CONFIGS[config], ids), hf_text_logits(hf, CONFIGS[config], ids), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("config", WITH_TOWER)
def test_formulas_of_towers_agree_with_transformers(config: str) -> None:
    hf = random_hf_tensors(CONFIGS[config], scale=0.05)
    hidden = torch.randn(20, CONFIGS[config].tower.hidden, generator=torch.Generator().manual_seed(2))
    ours = mcore_vision_block(whole(CONFIGS[config], hf), CONFIGS[config], 1, hidden)
    theirs = hf_vision_block(hf, CONFIGS[config], 1, hidden)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_bare_state_is_understood() -> None:
    config = CONFIGS["half moe"]
    hf = random_hf_tensors(config, scale=0.05)
    ids = torch.arange(8)[None]
    bare, prefixed = (mcore_text_logits(whole(config, hf, bare=bare), config, ids) for bare in (True, False))
    torch.testing.assert_close(bare, prefixed, atol=0, rtol=0)


def test_a_failing_rank_is_quoted() -> None:
    with pytest.raises(ranks.RankError, match="No module named 'nothing_here'"):
        ranks.run(2, "nothing_here:function")
    assert ranks.run(2, "torch.distributed:get_rank") == [0, 1]
