"""Hybrids written for megatron-core: it loads them in its strictest mode at any topology, and every key, empty states
among them, is one that it writes itself.

Expected values come from tests/mcore/hybrid, which knows nothing of vlconv's tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from converting import Tensors, as_installed_reads, sizes, slow, strictest, to_mcore
from mcore.legacy import load_legacy
from mcore.load import load_and_compare
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny_hybrid
from mcore.topology import Topology
from references import differing, read_hf, write_reference

from vlconv.converters import Mcore2HfOptions, Mcore2McoreOptions, VerifyOptions, mcore2hf, mcore2mcore, verify
from vlconv.converters.models.shared.config import ModelConfig

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

CONFIGS = {
    "dense": tiny_hybrid("qwen3_5"),
    "tied": tiny_hybrid("qwen3_5", tied=True),
    "moe": tiny_hybrid("qwen3_5_moe"),
    "text": tiny_hybrid("qwen3_5_text"),
    "text moe": tiny_hybrid("qwen3_5_moe_text"),
    "next": tiny_hybrid("qwen3_next"),
    "deep": tiny_hybrid("qwen3_5", layers=8),
    "no mtp": tiny_hybrid("qwen3_5_text", tied=True, mtp=0),
    "next, no mtp": tiny_hybrid("qwen3_next", mtp=0),
}

FEW = ("dense", "next", "no mtp")


def loaded(release: Path, config: ModelConfig, hf: Tensors, topology: Topology, **how: Any) -> list[str]:
    """What differs once megatron-core has loaded it, in the strictest mode that it can."""
    return load_and_compare(release, config, hf, topology, strict=strictest(config), **how)


class TestLoadedByMegatronCore:
    """With raise_all: every key in the files is asked for, every key asked for is there; but see `strictest`."""

    @pytest.mark.parametrize(
        ("name", "topology", "how"),
        [
            ("dense", Topology(tp=2, pp=2), {}),
            slow("dense", Topology(tp=4), {"padded": True}),
            ("tied", Topology(tp=2), {}),
            ("moe", Topology(tp=2, ep=2), {}),
            slow("text", Topology(tp=2, pp=2), {}),
            slow("text moe", Topology(tp=2, pp=2, ep=2, etp=1), {}),
            ("next", Topology(tp=4), {}),
            slow("next", Topology(ep=2), {"grouped": False}),
            slow("deep", Topology(tp=2, pp=2, first=3), {}),
            ("no mtp", Topology(pp=4), {}),
            slow("next, no mtp", Topology(tp=2, pp=2), {}),
        ],
        ids=str,
    )
    def test_at_any_topology(self, tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        divisor = 512 if "padded" in how else None
        report = to_mcore(tmp_path, CONFIGS[name], hf, make_vocab_size_divisible_by=divisor)
        assert report.data["target_layout"] == ("mbridge" if CONFIGS[name].vision else "megatron-lm")
        assert loaded(tmp_path / "mcore" / "release", CONFIGS[name], hf, topology, **how) == []

    @pytest.mark.parametrize("name", [slow("moe"), "next"])
    def test_a_key_for_each_layer(self, tmp_path: Path, name: str) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        to_mcore(tmp_path, CONFIGS[name], hf, per_layer=True)
        assert loaded(tmp_path / "mcore" / "release", CONFIGS[name], hf, Topology(tp=2)) == []

    @pytest.mark.parametrize("packed", [slow(False), True])
    def test_both_forms_of_the_heads_experts(self, tmp_path: Path, packed: bool) -> None:
        hf = random_hf_tensors(CONFIGS["text moe"], packed_mtp=packed)
        to_mcore(tmp_path, CONFIGS["text moe"], hf)
        assert loaded(tmp_path / "mcore" / "release", CONFIGS["text moe"], hf, Topology(ep=2)) == []
        mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(reference=str(tmp_path / "hf")))
        assert differing(read_hf(tmp_path / "back"), hf) == []

    @pytest.mark.parametrize("dtype", [None, slow("bfloat16")])
    def test_float32_is_rounded_once(self, tmp_path: Path, dtype: Any) -> None:
        """Decays and output norms: float32 on the Hub, bfloat16 in Megatron once it has loaded them, or before."""
        config, name = CONFIGS["dense"], "model.language_model.layers.1.linear_attn.norm.weight"
        hf = random_hf_tensors(config, float32=["*linear_attn.norm.weight", "*A_log"])
        hf[name][0] = 1.0009765625  # 1 + 2^-10, which bfloat16(w) - 1 would lose
        report = to_mcore(tmp_path, config, hf, dtype=dtype)
        release = tmp_path / "mcore" / "release"
        assert loaded(release, config, hf, Topology(tp=2)) == []
        held = dcp.load(release)["language_model.decoder.layers.1.self_attention.out_norm.weight"]
        assert held.dtype == (torch.bfloat16 if dtype else torch.float32)
        assert torch.equal(held.float(), (hf[name] - 1).to(held.dtype).float())
        norms = [t.double() - 1 for n, t in hf.items() if n.endswith("linear_attn.norm.weight")]
        assert report.data["rounded"]["rounded"] == sum(int((norm != norm.to(held.dtype)).sum()) for norm in norms)
        assert ("held_as" in report.told) is (dtype is None)


@pytest.mark.parametrize("name", [name if name in FEW else slow(name) for name in CONFIGS])
def test_keys_are_those_that_megatron_core_writes(tmp_path: Path, name: str) -> None:
    """But for the state of the attention in an MTP head, which 0.16 writes and 0.19 does not."""
    hf = random_hf_tensors(CONFIGS[name])
    to_mcore(tmp_path, CONFIGS[name], hf)
    theirs = dcp.load(save(tmp_path / "theirs", CONFIGS[name], hf, Topology(), optimizer=False))
    theirs.pop("common_state/shard_0_1", None)  # of newer releases, which still read common.pt
    ours = dcp.load(tmp_path / "mcore" / "release")
    assert {key for key in ours.keys() ^ theirs.keys() if ".core_attention._extra_state" not in key} == set()
    assert theirs.keys() <= ours.keys()
    tensors = {key: value for key, value in theirs.items() if isinstance(value, torch.Tensor)}
    assert differing({key: ours[key] for key in tensors}, tensors) == []


@pytest.mark.parametrize(
    ("name", "saved", "asked", "then"),
    [
        slow("tied", Topology(tp=2), Topology(tp=4), Topology(tp=2)),
        ("text moe", Topology(tp=2, pp=2), Topology(tp=2, pp=2, ep=2, etp=1), Topology(ep=2)),
        slow("dense", Topology(pp=2), Topology(tp=2, pp=2), Topology(tp=4)),
        slow("next", Topology(tp=2), Topology(pp=2), Topology(tp=4)),
        slow("no mtp", Topology(tp=4), Topology(tp=2, pp=4), Topology()),
    ],
    ids=str,
)
def test_torch_dist_to_rank_files_and_back(
    tmp_path: Path, name: str, saved: Topology, asked: Topology, then: Topology
) -> None:
    """Nothing is computed on the way: what megatron-core holds minus one stays so."""
    config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
    source = save(tmp_path / "ckpt", config, hf, saved, padded=True)
    reference = write_reference(tmp_path / "reference", config)
    report = mcore2mcore(source, tmp_path / "ranks", Mcore2McoreOptions(reference=str(reference), **sizes(asked)))
    assert (report.status, report.data.get("rounded")) == ("done", None)
    assert load_legacy(as_installed_reads(tmp_path / "ranks" / "release"), config, hf, asked) == []
    mcore2mcore(tmp_path / "ranks", tmp_path / "back")
    assert loaded(tmp_path / "back" / "release", config, hf, then) == []
    report = verify(source, tmp_path / "back", VerifyOptions(references=(str(reference),)))
    assert (report.status, report.differences) == ("same", [])


def test_nothing_is_rounded_between_checkpoints(tmp_path: Path) -> None:
    """A trained output norm, which is not the one of any Hugging Face weight in bfloat16."""
    config = CONFIGS["text"]
    hf = random_hf_tensors(config, float32=["*linear_attn.norm.weight"])
    source = save(tmp_path / "ckpt", config, hf, Topology(tp=2))
    reference = write_reference(tmp_path / "reference", config)
    mcore2mcore(source, tmp_path / "out", Mcore2McoreOptions(reference=str(reference)))
    assert loaded(tmp_path / "out" / "release", config, hf, Topology()) == []
