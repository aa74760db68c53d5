"""Legacy rank files of hybrid models: which rows of the Hub's tensors each rank holds, in numbers written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config, tiny_weights
from torch import Tensor

from .hub import shapes
from .ranks import Grid, write_ranks

LINEAR = "model.layers.2.linear_attn."


def ranks(root: Path, name: str, kind: str, grid: Grid, **how: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The Hub's tensors, and what each folder holds."""
    config = tiny_config(kind)
    hf = tiny_weights(shapes(config))
    place = write_ranks(root, name, config, hf, grid, **how) / "release"
    files = {folder.name: torch.load(folder / "model_optim_rng.pt")["model"] for folder in place.iterdir()}
    return hf, files


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return ranks(tmp_path_factory.mktemp("core"), "megatron-lm", "qwen3_5_moe_text", Grid([[2, 2]], tp=2))


class TestCore:
    """megatron-core, the second of two tensor-parallel ranks of the second of two stages."""

    def test_projections_and_kernels_are_one_tensor_each(self, core: Any) -> None:
        hf, files = core
        own, qkv = files["mp_rank_01_001"], hf[f"{LINEAR}in_proj_qkv.weight"]
        rest = [hf[f"{LINEAR}in_proj_{x}.weight"] for x in "zba"]
        cut = [qkv[16:32], qkv[48:64], qkv[128:192], rest[0][64:128], rest[1][4:8], rest[2][4:8]]
        at = "decoder.layers.0.self_attention."
        assert torch.equal(own[f"{at}in_proj.weight"], torch.cat(cut))
        conv = hf[f"{LINEAR}conv1d.weight"]
        assert torch.equal(own[f"{at}conv1d.weight"], torch.cat([conv[16:32], conv[48:64], conv[128:192]]))
        assert torch.equal(own[f"{at}A_log"].float(), hf[f"{LINEAR}A_log"][4:8])
        assert torch.equal(own[f"{at}dt_bias"], hf[f"{LINEAR}dt_bias"][4:8])
        assert torch.equal(own[f"{at}out_proj.weight"], hf[f"{LINEAR}out_proj.weight"][:, 64:])
        assert own[f"{at}out_norm.weight"].shape == (16,)
        assert not [n for n in own if n.endswith((".query", ".key", ".value", ".z", ".beta", ".alpha"))]

    def test_gated_attention(self, core: Any) -> None:
        hf, files = core
        at = "model.layers.3.self_attn."
        q, k, v = (hf[f"{at}{x}_proj.weight"] for x in "qkv")
        heads = [q[i : i + 32] for i in range(256, 512, 64)] + [q[i : i + 32] for i in range(288, 512, 64)]
        own = files["mp_rank_01_001"]["decoder.layers.1.self_attention.linear_qkv.weight"]
        assert torch.equal(own, torch.cat([*heads, k[32:], v[32:]]))

    def test_the_shared_expert(self, core: Any) -> None:
        hf, files = core
        at, own = "model.layers.3.mlp.shared_expert", files["mp_rank_01_001"]
        both = torch.cat([hf[f"{at}.gate_proj.weight"][20:], hf[f"{at}.up_proj.weight"][20:]])
        assert torch.equal(own["decoder.layers.1.mlp.shared_experts.linear_fc1.weight"], both)
        down = hf[f"{at}.down_proj.weight"][:, 20:]
        assert torch.equal(own["decoder.layers.1.mlp.shared_experts.linear_fc2.weight"], down)
        assert torch.equal(own["decoder.layers.1.mlp.shared_experts.gate_weight"], hf[f"{at}_gate.weight"])

    def test_the_head_is_on_the_last_stage_and_embeds_by_itself(self, core: Any) -> None:
        hf, files = core
        first, last = files["mp_rank_01_000"], files["mp_rank_01_001"]
        assert not [n for n in first if n.startswith("mtp.")]
        assert torch.equal(last["mtp.layers.0.eh_proj.weight"], hf["mtp.fc.weight"][32:])
        assert torch.equal(last["mtp.layers.0.enorm.weight"], hf["mtp.pre_fc_norm_embedding.weight"])
        for own in (first, last):
            assert torch.equal(own["embedding.word_embeddings.weight"], hf["model.embed_tokens.weight"][150:])
        at = "mtp.layers.0.transformer_layer.mlp.experts.local_experts.2.linear_fc1.weight"
        theirs = [hf[f"mtp.layers.0.mlp.experts.2.{x}_proj.weight"][12:] for x in ("gate", "up")]
        assert torch.equal(last[at], torch.cat(theirs))

    def test_every_rank_has_its_part_of_each_name(self, core: Any) -> None:
        _, files = core
        assert set(files) == {"mp_rank_00_000", "mp_rank_01_000", "mp_rank_00_001", "mp_rank_01_001"}
        # 7 of a Gated DeltaNet and its norm, 5 of attention, 13 of experts; 1 and 3 at the ends; 4 of the head
        assert {folder: len(own) for folder, own in files.items() if "mp_rank_01" in folder} == {
            "mp_rank_01_000": 2 * (7 + 13) + 1,
            "mp_rank_01_001": (7 + 13) + (5 + 13) + 3 + 4 + (5 + 13),
        }


def test_ms_swifts_ranks_have_whole_key_heads(tmp_path: Path) -> None:
    hf, files = ranks(tmp_path, "ms-swift-gdn", "qwen3_5", Grid([[4]], tp=2))
    own = files["mp_rank_01"]["language_model.decoder.layers.0.self_attention.in_proj.weight"]
    at = "model.language_model.layers.0.linear_attn."
    qkv, z, b, a = (hf[f"{at}in_proj_{x}.weight"] for x in ("qkv", "z", "b", "a"))
    third = [qkv[16:24], qkv[48:56], qkv[128:160], z[64:96], b[4:6], a[4:6]]
    fourth = [qkv[24:32], qkv[56:64], qkv[160:192], z[96:128], b[6:8], a[6:8]]
    assert torch.equal(own, torch.cat(third + fourth))


@pytest.mark.parametrize(("name", "inside"), [("slime", "linear_attn."), ("ms-swift-hf-gdn", "")])
def test_transformers_own_module_is_whole_on_every_rank(tmp_path: Path, name: str, inside: str) -> None:
    hf, files = ranks(tmp_path, name, "qwen3_5", Grid([[4]], tp=2))
    theirs, ours = "model.language_model.layers.0.linear_attn.", "language_model.decoder.layers.0.self_attention."
    found = [n.removeprefix(theirs) for n in hf if n.startswith(theirs)]
    assert len(found) == 9
    for n in found:
        assert torch.equal(files["mp_rank_01"][f"{ours}{inside}{n}"].float(), hf[theirs + n].float())
    cut = files["mp_rank_01"]["language_model.decoder.layers.3.self_attention.linear_proj.weight"]
    assert torch.equal(cut, hf["model.language_model.layers.3.self_attn.o_proj.weight"][:, 128:])


@pytest.mark.parametrize(
    ("name", "how", "module"),
    [
        ("roll", {}, "mtp_model_layer"),
        ("mbridge-qwen3_5", {}, "transformer_layer"),
        ("mbridge-qwen3_5", {"mtp_module": "mtp_model_layer"}, "mtp_model_layer"),
    ],
)
def test_the_layer_in_the_head_has_two_names(tmp_path: Path, name: str, how: Any, module: str) -> None:
    _, files = ranks(tmp_path, name, "qwen3_5", Grid([[4]]), **how)
    inside = [n.partition("mtp.layers.0.")[2] for n in files["mp_rank_00"] if "mtp.layers.0." in n]
    assert {n.split(".")[0] for n in inside if n.count(".") > 1} == {module}
    assert len(inside) == 4 + 8
