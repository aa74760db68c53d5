"""megatron-core against itself, for hybrids: Qwen3.5 and Qwen3-Next."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import dcp
import pytest
import torch
from mcore import ranks
from mcore.legacy import load_legacy, save_legacy
from mcore.load import load_and_compare
from mcore.save import save
from mcore.sharded import save_fsdp
from mcore.tiny import random_hf_tensors, tiny_hybrid
from mcore.topology import Topology

pytestmark = [pytest.mark.mcore_versions, pytest.mark.slow]  # those who use it fail with it

# H 80, F 104, V 248; attention: 8 heads of 16 in 4 groups, queries and gates 256 rows, Q 384; Gated DeltaNet: 4 key
# heads of 8, 12 value heads of 20, kernel 4; experts 6 of M 24, the shared one 36.
DELTA_NET = {
    "self_attention.in_proj.layer_norm_weight": (80,),
    "self_attention.in_proj.weight.query": (32, 80),
    "self_attention.in_proj.weight.key": (32, 80),
    "self_attention.in_proj.weight.value": (240, 80),
    "self_attention.in_proj.weight.z": (240, 80),
    "self_attention.in_proj.weight.beta": (12, 80),
    "self_attention.in_proj.weight.alpha": (12, 80),
    "self_attention.conv1d.weight.query": (32, 1, 4),
    "self_attention.conv1d.weight.key": (32, 1, 4),
    "self_attention.conv1d.weight.value": (240, 1, 4),
    "self_attention.A_log": (12,),
    "self_attention.dt_bias": (12,),
    "self_attention.out_norm.weight": (20,),
    "self_attention.out_proj.weight": (80, 240),
}
ATTENTION = {
    "self_attention.linear_qkv.layer_norm_weight": (80,),
    "self_attention.linear_qkv.weight": (384, 80),
    "self_attention.q_layernorm.weight": (16,),
    "self_attention.k_layernorm.weight": (16,),
    "self_attention.linear_proj.weight": (80, 128),
}
DENSE = {
    "mlp.linear_fc1.layer_norm_weight": (80,),
    "mlp.linear_fc1.weight": (208, 80),
    "mlp.linear_fc2.weight": (80, 104),
}
MOE = {
    "pre_mlp_layernorm.weight": (80,),
    "mlp.router.weight": (6, 80),
    "mlp.experts.experts.linear_fc1.weight": (6, 48, 80),
    "mlp.experts.experts.linear_fc2.weight": (6, 80, 24),
    "mlp.shared_experts.linear_fc1.weight": (72, 80),
    "mlp.shared_experts.linear_fc2.weight": (80, 36),
    "mlp.shared_experts.gate_weight": (1, 80),
}
ENDS = {
    "embedding.word_embeddings.weight": (248, 80),
    "decoder.final_layernorm.weight": (80,),
    "output_layer.weight": (248, 80),
}
MTP = {
    "mtp.layers.0.enorm.weight": (80,),
    "mtp.layers.0.hnorm.weight": (80,),
    "mtp.layers.0.eh_proj.weight": (80, 160),
    "mtp.layers.0.final_layernorm.weight": (80,),
}
TOWER = {
    "patch_embed.proj.weight": (32, 3, 2, 4, 4),
    "patch_embed.proj.bias": (32,),
    "pos_embed.weight": (16, 32),
    "decoder.layers.self_attention.linear_qkv.weight": (3, 96, 32),
    "decoder.layers.self_attention.linear_qkv.bias": (3, 96),
    "decoder.layers.self_attention.linear_qkv.layer_norm_weight": (3, 32),
    "decoder.layers.self_attention.linear_qkv.layer_norm_bias": (3, 32),
    "decoder.layers.self_attention.linear_proj.weight": (3, 32, 32),
    "decoder.layers.self_attention.linear_proj.bias": (3, 32),
    "decoder.layers.mlp.linear_fc1.weight": (3, 88, 32),
    "decoder.layers.mlp.linear_fc1.bias": (3, 88),
    "decoder.layers.mlp.linear_fc1.layer_norm_weight": (3, 32),
    "decoder.layers.mlp.linear_fc1.layer_norm_bias": (3, 32),
    "decoder.layers.mlp.linear_fc2.weight": (3, 32, 88),
    "decoder.layers.mlp.linear_fc2.bias": (3, 32),
    "merger.patch_norm.weight": (32,),
    "merger.patch_norm.bias": (32,),
    "merger.linear_fc1.weight": (128, 128),
    "merger.linear_fc1.bias": (128,),
    "merger.linear_fc2.weight": (80, 128),
    "merger.linear_fc2.bias": (80,),
}
Shapes = dict[str, tuple[int, ...]]


def under(prefix: str, part: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in part.items()}


def language(mlp: Shapes) -> Shapes:
    """Four layers, the last of them attention, and the MTP head."""
    found = {**ENDS, **MTP, **under("mtp.layers.0.transformer_layer.", {**ATTENTION, **mlp})}
    for layer, mixer in enumerate([DELTA_NET, DELTA_NET, DELTA_NET, ATTENTION]):
        found |= under(f"decoder.layers.{layer}.", {**mixer, **mlp})
    return found


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


@pytest.mark.parametrize(
    ("config", "topology", "expected"),
    [
        ("dense", Topology(tp=2, pp=2), under("language_model.", language(DENSE)) | under("vision_model.", TOWER)),
        ("moe", Topology(tp=4), under("language_model.", language(MOE)) | under("vision_model.", TOWER)),
        ("text", Topology(pp=2), language(DENSE)),
        ("text moe", Topology(tp=2, ep=2), language(MOE)),
        ("next", Topology(tp=2), language(MOE)),
    ],
)
def test_keys_are_those_of_trainers(tmp_path: Path, config: str, topology: Topology, expected: Shapes) -> None:
    directory = save(tmp_path / "ckpt", CONFIGS[config], random_hf_tensors(CONFIGS[config]), topology, optimizer=False)
    assert dcp.shapes(directory) == expected


def test_modules_with_a_byte_entry(tmp_path: Path) -> None:
    """None for a convolution, none for attention; but 0.16 writes one for the attention of the MTP head."""
    config = CONFIGS["text moe"]
    directory = save(tmp_path / "ckpt", config, random_hf_tensors(config), Topology(), optimizer=False)
    attention = {f"self_attention.{m}" for m in ("linear_qkv", "linear_proj", "q_layernorm", "k_layernorm")}
    delta_net = {f"self_attention.{m}" for m in ("in_proj", "out_norm", "out_proj")}
    mlp = {f"mlp.{kind}.linear_fc{n}" for kind in ("experts.experts", "shared_experts") for n in (1, 2)}
    mlp |= {"pre_mlp_layernorm"}
    inner = attention | mlp | ({"self_attention.core_attention"} if version("megatron-core") < "0.19" else set())
    expected = {f"decoder.layers.{i}.{m}" for i in range(3) for m in delta_net | mlp}
    expected |= {f"decoder.layers.3.{m}" for m in attention | mlp} | {"decoder.final_layernorm"}
    expected |= {f"mtp.layers.0.{m}" for m in ("enorm", "hnorm", "eh_proj", "final_layernorm")}
    expected |= {f"mtp.layers.0.transformer_layer.{m}" for m in inner}
    found = dcp.metadata(directory).state_dict_metadata
    assert {name.partition("._extra_state/")[0] for name in found if "._extra_state/" in name} == expected


@pytest.mark.parametrize(
    ("config", "form", "saved", "loaded"),
    [
        ("dense", "stacked", Topology(tp=2, pp=2), Topology(tp=4)),
        ("tied", "per_layer", Topology(tp=4), Topology(tp=2)),
        ("moe", "stacked", Topology(tp=2, ep=2), Topology(pp=2)),
        ("text", "singleton", Topology(tp=4), Topology(tp=2, pp=2)),
        ("text moe", "singleton", Topology(ep=2), Topology(tp=2)),
        ("next", "stacked", Topology(tp=2, pp=2), Topology(tp=2, ep=2, etp=1)),
        ("deep", "stacked", Topology(pp=2, vpp=2), Topology(tp=2, pp=2, first=3)),
        ("no mtp", "stacked", Topology(pp=4), Topology(tp=2)),
    ],
)
def test_megatron_reshards_what_it_saved(
    tmp_path: Path, config: str, form: str, saved: Topology, loaded: Topology
) -> None:
    hf = random_hf_tensors(CONFIGS[config])
    directory = save(tmp_path / "ckpt", CONFIGS[config], hf, saved, form, optimizer=False)
    assert load_and_compare(directory, CONFIGS[config], hf, loaded) == []


@pytest.mark.parametrize(
    ("config", "topology", "grouped"),
    [
        ("tied", Topology(tp=4), True),
        ("text", Topology(tp=2, pp=2), True),
        ("moe", Topology(tp=2, ep=2, etp=1), True),
        ("next", Topology(tp=2, pp=2), False),
    ],
)
def test_legacy_files_come_back(tmp_path: Path, config: str, topology: Topology, grouped: bool) -> None:
    hf = random_hf_tensors(CONFIGS[config])
    directory = save_legacy(tmp_path / "ckpt", CONFIGS[config], hf, topology, grouped=grouped, padded=True)
    assert load_legacy(directory, CONFIGS[config], hf, topology, grouped=grouped, padded=True) == []


def test_a_legacy_rank_has_its_slices_of_every_part(tmp_path: Path) -> None:
    config = CONFIGS["text"]
    hf = random_hf_tensors(config)
    directory = save_legacy(tmp_path / "ckpt", config, hf, Topology(tp=2))
    state = torch.load(directory / "mp_rank_01" / "model_optim_rng.pt", weights_only=False)["model"]
    at = "model.layers.1.linear_attn"
    qkv, z, b, a = (hf[f"{at}.in_proj_{x}.weight"] for x in ("qkv", "z", "b", "a"))
    second = [qkv[16:32], qkv[48:64], qkv[184:304], z[120:], b[6:], a[6:]]
    assert state["decoder.layers.1.self_attention.in_proj.weight"].equal(torch.cat(second))
    conv = hf[f"{at}.conv1d.weight"]
    assert state["decoder.layers.1.self_attention.conv1d.weight"].equal(
        torch.cat([conv[16:32], conv[48:64], conv[184:304]])
    )


def test_a_fully_sharded_trainer_has_the_ranks_side_by_side(tmp_path: Path) -> None:
    config = CONFIGS["text moe"]
    hf = random_hf_tensors(config)
    found = dcp.load(save_fsdp(tmp_path / "fsdp", config, hf))
    legacy = save_legacy(tmp_path / "ckpt", config, hf, Topology(tp=2))
    ranks = [torch.load(legacy / f"mp_rank_0{r}" / "model_optim_rng.pt", weights_only=False)["model"] for r in (0, 1)]
    for name in ("self_attention.in_proj.weight", "self_attention.conv1d.weight", "self_attention.A_log"):
        at = f"decoder.layers.2.{name}"
        assert found[f"model.{at}"].equal(torch.cat([rank[at] for rank in ranks]))
    at = "decoder.layers.2.mlp.shared_experts.linear_fc1.weight"
    gate, up = zip(*(rank[at].chunk(2) for rank in ranks), strict=True)
    assert found[f"model.{at}_w"].equal(torch.cat(gate))
    assert found[f"model.{at}_v"].equal(torch.cat(up))


def test_qwen3_5_and_qwen3_next_hold_the_same(tmp_path: Path) -> None:
    """The same model under the Hub's two sets of names, in parts written down here by hand for key head 2."""
    config = CONFIGS["next"]
    hf = random_hf_tensors(config)
    found = dcp.unstacked(dcp.load(save(tmp_path / "ckpt", config, hf, Topology(tp=2), optimizer=False)))
    qkvz, ba = (hf[f"model.layers.0.linear_attn.in_proj_{x}.weight"] for x in ("qkvz", "ba"))
    third = 2 * (8 + 8 + 60 + 60)
    at = "decoder.layers.0.self_attention.in_proj.weight"
    assert found[f"{at}.query"][16:24].equal(qkvz[third : third + 8])
    assert found[f"{at}.key"][16:24].equal(qkvz[third + 8 : third + 16])
    assert found[f"{at}.value"][120:180].equal(qkvz[third + 16 : third + 76])
    assert found[f"{at}.z"][120:180].equal(qkvz[third + 76 : third + 136])
    assert found[f"{at}.beta"][6:9].equal(ba[12:15])
    assert found[f"{at}.alpha"][6:9].equal(ba[15:18])


def test_the_output_norm_is_rounded_once(tmp_path: Path) -> None:
    """bf16(w - 1), not bf16(bf16(w) - 1): the two differ for a float32 weight."""
    config = CONFIGS["text"]
    hf = random_hf_tensors(config, float32=["*linear_attn.norm.weight", "*A_log"])
    name = "model.layers.0.linear_attn.norm.weight"
    hf[name][0] = 1.0009765625  # 1 + 2^-10
    directory = save(tmp_path / "ckpt", config, hf, Topology(), optimizer=False)
    found = dcp.unstacked(dcp.load(directory))
    stored = found["decoder.layers.0.self_attention.out_norm.weight"]
    assert stored.dtype == torch.bfloat16
    assert stored[0] == 2**-10
    assert found["decoder.layers.0.self_attention.A_log"].dtype == torch.bfloat16
    assert load_and_compare(directory, config, hf, Topology(tp=2)) == []


def test_one_goes_out_of_a_random_output_norm_exactly() -> None:
    hf = random_hf_tensors(CONFIGS["moe"])
    norms = [t for name, t in hf.items() if name.endswith("linear_attn.norm.weight")]
    assert len(norms) == 3
    for norm in norms:
        assert norm.min() < 0.8
        assert norm.max() > 1.2
        assert ((norm.float() - 1).bfloat16() + 1).equal(norm)


@pytest.mark.parametrize("packed", [False, True])
def test_both_forms_of_mtp_experts(tmp_path: Path, packed: bool) -> None:
    config = CONFIGS["text moe"]
    hf = random_hf_tensors(config, packed_mtp=packed)
    name = "mtp.layers.0.mlp.experts."
    fc1 = (
        hf[f"{name}gate_up_proj"][4]
        if packed
        else torch.cat([hf[f"{name}4.{half}_proj.weight"] for half in ("gate", "up")])
    )
    found = dcp.unstacked(dcp.load(save(tmp_path / "ckpt", config, hf, Topology(ep=2), optimizer=False)))
    assert found["mtp.layers.0.transformer_layer.mlp.experts.experts.linear_fc1.weight"][4].equal(fc1)


def test_tied_mtp_in_a_pipeline_is_refused(tmp_path: Path) -> None:
    config = CONFIGS["tied"]
    with pytest.raises(ranks.RankError, match=r"language_module\.py"):
        save(tmp_path / "ckpt", config, random_hf_tensors(config), Topology(pp=2), optimizer=False)


@pytest.mark.parametrize(
    ("theirs", "fault"),
    [
        ("layers.1.linear_attn.in_proj_b.weight", "decoder.layers.1.self_attention.in_proj.weight: 1 of 22720"),
        ("layers.1.linear_attn.conv1d.weight", "decoder.layers.1.self_attention.conv1d.weight: 1 of 608"),
        ("layers.1.linear_attn.A_log", "decoder.layers.1.self_attention.A_log: 1 of 6"),
        ("layers.3.self_attn.q_proj.weight", "decoder.layers.3.self_attention.linear_qkv.weight: 1 of 15360"),
    ],
)
def test_a_difference_is_named(tmp_path: Path, theirs: str, fault: str) -> None:
    config = CONFIGS["dense"]
    hf = random_hf_tensors(config)
    directory = save(tmp_path / "ckpt", config, hf, Topology(), optimizer=False)
    hf[f"model.language_model.{theirs}"].view(-1)[-1] += 1
    faults = load_and_compare(directory, config, hf, Topology(tp=2))
    assert faults == [f"rank 1: language_model.{fault} elements differ"]
