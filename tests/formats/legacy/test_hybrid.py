"""Rank files of hybrids, both ways: a rank has its rows of every part of a Gated DeltaNet's projection, and the last
stage the MTP head.

megatron-core's own modules save and load them; expected values come from tests/mcore/hybrid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from converting import Tensors, as_installed_reads, installed, sizes, slow, to_hf, to_mcore
from mcore.legacy import load_legacy, save_legacy
from mcore.tiny import random_hf_tensors, tiny_hybrid
from mcore.topology import Topology
from references import differing, write_reference

from vlconv.converters import Mcore2McoreOptions, mcore2mcore
from vlconv.converters.errors import MismatchError

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
}
CASES: list[tuple[str, Topology, dict[str, Any]]] = [
    ("dense", Topology(tp=2, pp=2), {"padded": True}),
    ("tied", Topology(pp=2), {}),
    ("moe", Topology(tp=2, ep=2, etp=1), {"grouped": False}),
    ("text moe", Topology(tp=2, pp=2, ep=2), {}),
    ("no mtp", Topology(tp=2, pp=2), {}),
]
MORE: list[tuple[str, Topology, dict[str, Any]]] = [
    ("tied", Topology(tp=4), {}),
    ("text", Topology(tp=2), {"args": False}),
    ("next", Topology(tp=4), {"padded": True}),
    ("dense", Topology(), {}),
    ("deep", Topology(pp=2, vpp=2), {}),
    ("deep", Topology(tp=2, pp=2, first=3), {"args": False}),
    ("tied", Topology(tp=2, pp=2), {"padded": True}),
    ("moe", Topology(pp=4), {}),
    ("moe", Topology(tp=2, ep=2), {"padded": True}),
    ("text", Topology(tp=4, pp=2), {}),
    ("text moe", Topology(ep=3), {"args": False}),
    ("text moe", Topology(tp=2, ep=6, etp=1), {}),
    ("next", Topology(tp=2, pp=2), {"grouped": False}),
    ("next", Topology(ep=2), {}),
    ("no mtp", Topology(tp=4), {"args": False}),
]


def comes_back(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    """Saved by megatron-core, read."""
    hf = random_hf_tensors(CONFIGS[name])
    save_legacy(tmp_path / "ckpt", CONFIGS[name], hf, topology, **how)
    found, report = to_hf(tmp_path, tmp_path / "ckpt", CONFIGS[name])
    assert differing(found, hf) == []
    assert (report.data["format"], report.data["tensors"], report.warnings) == ("torch", len(hf), [])
    assert report.data["layout"] == ("mbridge" if CONFIGS[name].vision else "megatron-lm")


@pytest.mark.parametrize(("name", "topology", "how"), CASES, ids=str)
def test_comes_back(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    comes_back(tmp_path, name, topology, how)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "topology", "how"), MORE, ids=str)
def test_more_come_back(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    comes_back(tmp_path, name, topology, how)


def loads(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    """Written, loaded by megatron-core with load_state_dict(strict=True)."""
    hf, padded = random_hf_tensors(CONFIGS[name]), "padded" in how
    divisor = 128 if padded else None
    to_mcore(tmp_path, CONFIGS[name], hf, **sizes(topology), make_vocab_size_divisible_by=divisor)
    assert (
        load_legacy(as_installed_reads(tmp_path / "mcore" / "release"), CONFIGS[name], hf, topology, padded=padded)
        == []
    )


@pytest.mark.parametrize(("name", "topology", "how"), CASES, ids=str)
def test_loaded_by_megatron_core(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    loads(tmp_path, name, topology, how)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "topology", "how"), MORE, ids=str)
def test_more_loaded_by_megatron_core(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    loads(tmp_path, name, topology, how)


def states(directory: Path) -> dict[str, Tensors]:
    """The model in every rank's file, by the rank's folder."""
    return {
        file.parent.name: torch.load(file, weights_only=False)["model"]
        for file in sorted(directory.glob("*/model_optim_rng.pt"))
    }


@pytest.mark.parametrize(
    ("name", "topology"),
    [("dense", Topology(tp=2, pp=2)), slow("next", Topology(tp=2)), ("tied", Topology(pp=2))],
    ids=str,
)
def test_files_hold_what_those_of_megatron_core_do(tmp_path: Path, name: str, topology: Topology) -> None:
    """Name for name, but for what `installed` says of newer versions."""
    config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
    to_mcore(tmp_path, config, hf, **sizes(topology))
    theirs = states(save_legacy(tmp_path / "theirs", config, hf, topology, optimizer=False))
    ours = states(tmp_path / "mcore" / "release")
    assert ours.keys() == theirs.keys()
    for rank, state in theirs.items():
        written = {installed(name): t for name, t in ours[rank].items()}
        assert written.keys() == state.keys()
        tensors = {n: t for n, t in state.items() if "_extra_state" not in n}
        assert differing({n: written[n] for n in tensors}, tensors) == []


def test_the_head_is_on_the_last_stage(tmp_path: Path) -> None:
    to_mcore(tmp_path, CONFIGS["dense"], random_hf_tensors(CONFIGS["dense"]), **sizes(Topology(pp=2)))
    first, last = states(tmp_path / "mcore" / "release").values()
    assert not any(".mtp." in name for name in first)
    assert last["language_model.mtp.layers.0.eh_proj.weight"].shape == (80, 160)
    assert "language_model.embedding.word_embeddings.weight" in last  # for what the head reads


def test_another_topology(tmp_path: Path) -> None:
    """Every part is cut anew."""
    config, hf = CONFIGS["text moe"], random_hf_tensors(CONFIGS["text moe"])
    save_legacy(tmp_path / "ckpt", config, hf, Topology(tp=4))
    reference = write_reference(tmp_path / "reference", config)
    asked = Topology(tp=2, ep=2, etp=1)
    mcore2mcore(tmp_path / "ckpt", tmp_path / "out", Mcore2McoreOptions(reference=str(reference), **sizes(asked)))
    assert load_legacy(as_installed_reads(tmp_path / "out" / "release"), config, hf, asked) == []


def test_heads_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    config = tiny_hybrid("qwen3_5_text", key_heads=3, value_heads=6, key_dim=8, value_dim=20)
    with pytest.raises(MismatchError, match=r"linear_num_key_heads|key heads|key_heads"):
        to_mcore(tmp_path, config, random_hf_tensors(config), **sizes(Topology(tp=2)))
