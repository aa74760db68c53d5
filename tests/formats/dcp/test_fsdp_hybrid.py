"""fsdp_dtensor of hybrids: the tensors of tensor-parallel ranks stand side by side, so that rows of a Gated DeltaNet's
projection and convolution are put in order by the stated number of ranks, and not guessed without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from converting import as_installed_reads, sizes, slow, strictest, to_hf
from mcore import sharded
from mcore.legacy import load_legacy
from mcore.load import load_and_compare
from mcore.sharded import save_fsdp, save_plain
from mcore.tiny import random_hf_tensors, tiny_hybrid
from mcore.topology import Topology
from references import differing, write_reference

from vlconv.converters import Mcore2McoreOptions, mcore2mcore
from vlconv.converters.errors import UnsupportedError

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

CONFIGS = {
    "dense": tiny_hybrid("qwen3_5"),
    "tied": tiny_hybrid("qwen3_5", tied=True),
    "moe": tiny_hybrid("qwen3_5_moe"),
    "text": tiny_hybrid("qwen3_5_text"),
    "text moe": tiny_hybrid("qwen3_5_moe_text"),
    "next": tiny_hybrid("qwen3_next"),
    "no mtp": tiny_hybrid("qwen3_5_text", tied=True, mtp=0),
}


@pytest.mark.parametrize(
    ("name", "wrapper"), [("dense", "module."), slow("moe", ""), slow("text", ""), ("next", "module."), ("no mtp", "")]
)
def test_comes_back(tmp_path: Path, name: str, wrapper: str) -> None:
    hf = random_hf_tensors(CONFIGS[name])
    save_fsdp(tmp_path / "ckpt" / "iter_0000005", CONFIGS[name], hf, wrapper)
    found, report = to_hf(tmp_path, tmp_path / "ckpt", CONFIGS[name])
    assert differing(found, hf) == []
    assert (report.data["format"], report.warnings) == ("fsdp_dtensor", [])
    assert report.data["layout"] == ("mbridge" if CONFIGS[name].vision else "megatron-lm")


@pytest.mark.parametrize("name", ["text", slow("text moe")])
def test_of_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Flat as on the Hub."""
    monkeypatch.setattr(sharded, "TP", 1)
    config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
    save_fsdp(tmp_path / "ckpt", config, hf, args={"tensor_model_parallel_size": 1})
    assert differing(to_hf(tmp_path, tmp_path / "ckpt", config)[0], hf) == []


@pytest.mark.parametrize("name", ["text", slow("next")])
def test_rows_are_not_guessed(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    args = {"tensor_model_parallel_size": None}
    source = save_fsdp(tmp_path / "ckpt", config, random_hf_tensors(config), args=args)
    with pytest.raises(UnsupportedError, match=r"(in_proj|conv1d).*tensor_model_parallel_size None"):
        to_hf(tmp_path, source, config)
    assert not (tmp_path / "hf").exists()


def test_the_order_of_ranks_matters(tmp_path: Path) -> None:
    """The negative control: read as of another number of ranks, it is another model."""
    config, hf = CONFIGS["text"], random_hf_tensors(CONFIGS["text"])
    source = save_fsdp(tmp_path / "ckpt", config, hf, args={"tensor_model_parallel_size": 4})
    found, _ = to_hf(tmp_path, source, config)
    assert "model.layers.0.linear_attn.in_proj_qkv.weight" in differing(found, hf)
    held = dcp.load(source)["model.decoder.layers.0.self_attention.in_proj.weight"]
    assert not torch.equal(held[:304], hf["model.layers.0.linear_attn.in_proj_qkv.weight"])


@pytest.mark.parametrize(
    ("name", "asked"), [slow("tied", {"format": "torch_dist"}), ("text moe", {"format": "torch"})], ids=str
)
def test_to_a_checkpoint_of_ranks(tmp_path: Path, name: str, asked: dict[str, Any]) -> None:
    config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
    source = save_fsdp(tmp_path / "ckpt", config, hf)
    reference = write_reference(tmp_path / "reference", config)
    ranks = asked["format"] == "torch"
    options = sizes(Topology(tp=4)) if ranks else asked
    mcore2mcore(source, tmp_path / "out", Mcore2McoreOptions(reference=str(reference), **options))
    made = tmp_path / "out" / "release"
    if ranks:
        assert load_legacy(as_installed_reads(made), config, hf, Topology(tp=4)) == []
    else:
        assert load_and_compare(made, config, hf, Topology(tp=4), strict=strictest(config)) == []


@pytest.mark.parametrize(
    ("name", "packed"), [("dense", False), slow("text moe", False), ("moe", True), slow("next", True)]
)
def test_under_the_hubs_names(tmp_path: Path, name: str, packed: bool) -> None:
    """A trainer on FSDP2 has Hugging Face's own module: nothing is put in another order, and nothing computed.

    The experts of the MTP head are one by one, as in Qwen3.5, or packed, as in Qwen3.6.
    """
    hf = random_hf_tensors(CONFIGS[name], packed_mtp=packed)
    found, report = to_hf(tmp_path, save_plain(tmp_path / "ckpt", hf, "model."), CONFIGS[name], weights=hf)
    assert differing(found, hf) == []
    assert report.data["layout"] == ("hf" if CONFIGS[name].vision else "hf-text")
    assert "computed" not in report.told
