"""Which names and shapes each trainer gives the tiny text-only and hybrid models, written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from tiny import tiny_config, tiny_weights

from .hub import shapes, tower
from .places import PLACES, TRAINERS, saved_names, write

Shapes = dict[str, tuple[int, ...]]

ATTENTION: Shapes = {  # two groups of 4 heads, 4 gates, a key and a value, 32 rows each
    "self_attention.linear_qkv.weight": (640, 64),
    "self_attention.q_layernorm.weight": (32,),
    "self_attention.k_layernorm.weight": (32,),
    "self_attention.linear_proj.weight": (64, 256),
}
INSIDE: Shapes = {"self_attention.linear_qkv.layer_norm_weight": (64,)}
BESIDE: Shapes = {"input_layernorm.weight": (64,)}

HEADS: Shapes = {"self_attention.A_log": (8,), "self_attention.dt_bias": (8,)}
DELTA: Shapes = HEADS | {"self_attention.out_norm.weight": (16,), "self_attention.out_proj.weight": (64, 128)}
CORE = DELTA | {
    "self_attention.in_proj.layer_norm_weight": (64,),
    "self_attention.in_proj.weight.query": (32, 64),
    "self_attention.in_proj.weight.key": (32, 64),
    "self_attention.in_proj.weight.value": (128, 64),
    "self_attention.in_proj.weight.z": (128, 64),
    "self_attention.in_proj.weight.beta": (8, 64),
    "self_attention.in_proj.weight.alpha": (8, 64),
    "self_attention.conv1d.weight.query": (32, 1, 4),
    "self_attention.conv1d.weight.key": (32, 1, 4),
    "self_attention.conv1d.weight.value": (128, 1, 4),
}
CONV: Shapes = {"self_attention.conv1d.weight": (192, 1, 4)}
SWIFT = DELTA | CONV | {
    "self_attention.in_proj.layer_norm_weight": (64,),
    "self_attention.in_proj.weight": (336, 64),
}  # fmt: skip
DECOUPLED = DELTA | CONV | BESIDE | {
    "self_attention.in_proj_qkvz.weight": (320, 64),
    "self_attention.in_proj_ba.weight": (16, 64),
}  # fmt: skip
HF: Shapes = {
    "in_proj_qkv.weight": (192, 64),
    "in_proj_z.weight": (128, 64),
    "in_proj_b.weight": (8, 64),
    "in_proj_a.weight": (8, 64),
    "conv1d.weight": (192, 1, 4),
    "A_log": (8,),
    "dt_bias": (8,),
    "norm.weight": (16,),
    "out_proj.weight": (64, 128),
}
FUSED = {n: shape for n, shape in HF.items() if "in_proj" not in n} | {
    "in_proj_qkvz.weight": (320, 64),
    "in_proj_ba.weight": (16, 64),
}

MLP: Shapes = {"mlp.linear_fc1.weight": (192, 64), "mlp.linear_fc2.weight": (64, 96)}
MLP_INSIDE = MLP | {"mlp.linear_fc1.layer_norm_weight": (64,)}
MLP_BESIDE = MLP | {"pre_mlp_layernorm.weight": (64,)}
MOE: Shapes = {
    "pre_mlp_layernorm.weight": (64,),
    "mlp.router.weight": (4, 64),
    "mlp.experts.experts.linear_fc1.weight": (4, 48, 64),
    "mlp.experts.experts.linear_fc2.weight": (4, 64, 24),
}
SHARED = MOE | {
    "mlp.shared_experts.linear_fc1.weight": (80, 64),
    "mlp.shared_experts.linear_fc2.weight": (64, 40),
    "mlp.shared_experts.gate_weight": (1, 64),
}

MCORE_TOWER: Shapes = {
    "patch_embed.proj.weight": (32, 3, 2, 4, 4),
    "patch_embed.proj.bias": (32,),
    "pos_embed.weight": (16, 32),
    "decoder.layers.self_attention.linear_qkv.layer_norm_weight": (4, 32),
    "decoder.layers.self_attention.linear_qkv.layer_norm_bias": (4, 32),
    "decoder.layers.self_attention.linear_qkv.weight": (4, 96, 32),
    "decoder.layers.self_attention.linear_qkv.bias": (4, 96),
    "decoder.layers.self_attention.linear_proj.weight": (4, 32, 32),
    "decoder.layers.self_attention.linear_proj.bias": (4, 32),
    "decoder.layers.mlp.linear_fc1.layer_norm_weight": (4, 32),
    "decoder.layers.mlp.linear_fc1.layer_norm_bias": (4, 32),
    "decoder.layers.mlp.linear_fc1.weight": (4, 48, 32),
    "decoder.layers.mlp.linear_fc1.bias": (4, 48),
    "decoder.layers.mlp.linear_fc2.weight": (4, 32, 48),
    "decoder.layers.mlp.linear_fc2.bias": (4, 32),
    "merger.patch_norm.weight": (32,),
    "merger.patch_norm.bias": (32,),
    "merger.linear_fc1.weight": (128, 128),
    "merger.linear_fc1.bias": (128,),
    "merger.linear_fc2.weight": (64, 128),
    "merger.linear_fc2.bias": (64,),
}


def at(prefix: str, names: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in names.items()}


def decoder(prefix: str, delta: Shapes, attention: Shapes, mlp: Shapes, mtp: bool = True) -> Shapes:
    """A hybrid model: three layers with a Gated DeltaNet, one of attention, and the head like that one."""
    out: Shapes = {"embedding.word_embeddings.weight": (300, 64), "output_layer.weight": (300, 64)}
    out["decoder.final_layernorm.weight"] = (64,)
    for i in range(3):
        out |= at(f"decoder.layers.{i}.", delta | mlp)
    out |= at("decoder.layers.3.", attention | mlp)
    if mtp:
        norms: Shapes = {"enorm.weight": (64,), "hnorm.weight": (64,), "final_layernorm.weight": (64,)}
        out |= at("mtp.layers.0.", norms | {"eh_proj.weight": (64, 128)})
        out |= at("mtp.layers.0.transformer_layer.", attention | mlp)
    return at(prefix, out)


SLIME = at("self_attention.linear_attn.", HF) | {"self_attention.input_layernorm.weight": (64,)}
SLIME_NEXT = at("self_attention.linear_attn.", FUSED) | {"self_attention.input_layernorm.weight": (64,)}
HF_TOWER = tower(tiny_config("qwen3_5")["vision_config"], "")
TE = ATTENTION | INSIDE
VL, MOE_VL = "qwen3_5", "qwen3_5_moe"

EXPECTED = {
    ("mbridge", VL): decoder("language_model.", CORE, TE, MLP_INSIDE) | at("vision_model.", MCORE_TOWER),
    ("mbridge", MOE_VL): decoder("language_model.", CORE, TE, SHARED) | at("vision_model.", MCORE_TOWER),
    ("mbridge-qwen3_5", VL): decoder("language_model.", CORE, TE, MLP_INSIDE) | at("vision_model.", HF_TOWER),
    ("mbridge-qwen3_5", MOE_VL): decoder("language_model.", CORE, TE, SHARED) | at("vision_model.", HF_TOWER),
    ("ms-swift-gdn", VL): decoder("language_model.", SWIFT, TE, MLP_INSIDE) | at("visual.visual.", HF_TOWER),
    ("ms-swift-gdn", MOE_VL): decoder("language_model.", SWIFT, TE, SHARED) | at("visual.visual.", HF_TOWER),
    ("ms-swift-gdn-decoupled", VL): decoder("language_model.", DECOUPLED, TE, MLP_INSIDE)
    | at("visual.visual.", HF_TOWER),
    ("ms-swift-gdn-decoupled", MOE_VL): decoder("language_model.", DECOUPLED, TE, SHARED)
    | at("visual.visual.", HF_TOWER),
    ("ms-swift-hf-gdn", VL): decoder(
        "language_model.", at("self_attention.", HF) | BESIDE, ATTENTION | BESIDE, MLP_BESIDE
    )
    | at("visual.visual.", HF_TOWER),
    ("ms-swift-hf-gdn", MOE_VL): decoder(
        "language_model.", at("self_attention.", HF) | BESIDE, ATTENTION | BESIDE, SHARED
    )
    | at("visual.visual.", HF_TOWER),
    ("roll", VL): decoder("", CORE, TE, MLP_INSIDE) | at("vision_model.", HF_TOWER),
    ("roll", MOE_VL): decoder("", CORE, TE, SHARED) | at("vision_model.", HF_TOWER),
    ("slime", VL): decoder("language_model.", SLIME, TE, MLP_INSIDE) | at("model.visual.", HF_TOWER),
    ("slime", MOE_VL): decoder("language_model.", SLIME, TE, SHARED) | at("model.visual.", HF_TOWER),
    ("slime-text", "qwen3_5_text"): decoder("", SLIME, TE, MLP_INSIDE),
    ("slime-text", "qwen3_5_moe_text"): decoder("", SLIME, TE, SHARED),
    ("slime-text", "qwen3_next"): decoder("", SLIME_NEXT, TE, SHARED, mtp=False),
    ("ms-swift-text", "qwen3_5_text"): decoder("", at("self_attention.", HF) | BESIDE, ATTENTION | BESIDE, MLP_BESIDE),
    ("ms-swift-text", "qwen3_5_moe_text"): decoder("", at("self_attention.", HF) | BESIDE, ATTENTION | BESIDE, SHARED),
    ("ms-swift-text", "qwen3_next"): decoder(
        "", at("self_attention.", FUSED) | BESIDE, ATTENTION | BESIDE, SHARED, mtp=False
    ),
    ("megatron-lm", "qwen3_5_text"): decoder("", CORE, TE, MLP_INSIDE),
    ("megatron-lm", "qwen3_5_moe_text"): decoder("", CORE, TE, SHARED),
    ("megatron-lm", "qwen3_next"): decoder("", CORE, TE, SHARED, mtp=False),
    ("language-model", VL): decoder("language_model.", CORE, TE, MLP_INSIDE),
    ("language-model", MOE_VL): decoder("language_model.", CORE, TE, SHARED),
}

ENDS: Shapes = {"embedding.word_embeddings.weight": (300, 64), "output_layer.weight": (300, 64)}
STACKED_NORMS: Shapes = {
    "decoder.final_layernorm.weight": (64,),
    "decoder.layers.self_attention.linear_qkv.layer_norm_weight": (4, 64),
}
PLAIN = {
    "qwen2": {  # two groups of 4 heads, a key and a value, 8 rows each
        "decoder.layers.self_attention.linear_qkv.weight": (4, 96, 64),
        "decoder.layers.self_attention.linear_qkv.bias": (4, 96),
        "decoder.layers.self_attention.linear_proj.weight": (4, 64, 64),
    },
    "qwen3": {  # 16 rows each
        "decoder.layers.self_attention.linear_qkv.weight": (4, 192, 64),
        "decoder.layers.self_attention.q_layernorm.weight": (4, 16),
        "decoder.layers.self_attention.k_layernorm.weight": (4, 16),
        "decoder.layers.self_attention.linear_proj.weight": (4, 64, 128),
    },
}
PLAIN["qwen3_moe"] = PLAIN["qwen3"] | {f"decoder.layers.{n}": (4, *shape) for n, shape in MOE.items()}
for dense in ("qwen2", "qwen3"):
    PLAIN[dense] = PLAIN[dense] | {f"decoder.layers.{n}": (4, *shape) for n, shape in MLP_INSIDE.items()}
EXPECTED |= {("megatron-lm", kind): ENDS | STACKED_NORMS | names for kind, names in PLAIN.items()}


def saved(name: str, kind: str, **how: Any) -> Shapes:
    config = tiny_config(kind)
    return {n: tuple(t.shape) for n, t in saved_names(name, config, tiny_weights(shapes(config, **how))).items()}


@pytest.mark.parametrize(("name", "kind"), EXPECTED)
def test_names_and_shapes(name: str, kind: str) -> None:
    assert saved(name, kind) == EXPECTED[name, kind]


def test_every_trainer_of_these_models_is_written_out() -> None:
    """But for those that save the Hub's own names."""
    of_these = {(name, kind) for name, trainer in TRAINERS.items() for kind in trainer.kinds if "_vl" not in kind}
    assert {(name, kind) for name, kind in of_these if not name.startswith("hf")} == EXPECTED.keys()


@pytest.mark.parametrize("kind", ["qwen3_5_moe", "qwen3_next", "qwen2"])
def test_the_hubs_own_names(kind: str) -> None:
    config = tiny_config(kind)
    assert saved("hf" if "vision_config" in config else "hf-text", kind) == shapes(config)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kind in EXPECTED if kind not in PLAIN])
def test_whose_order_and_whose_norm(name: str, kind: str) -> None:
    """Names and shapes do not show them: behind the first query head, ms-swift has its gate, all others the second."""
    config = tiny_config(kind)
    hf = tiny_weights(shapes(config))
    made = saved_names(name, config, hf)
    prefix = "model.language_model." if "vision_config" in config else "model."
    swift = name.startswith("ms-swift")
    for at, theirs in (
        ("decoder.layers.3.", f"{prefix}layers.3."),
        ("mtp.layers.0.transformer_layer.", "mtp.layers.0."),
    ):
        found = [t for n, t in made.items() if n.endswith(f"{at}self_attention.linear_qkv.weight")]
        assert len(found) == (f"{theirs}self_attn.q_proj.weight" in hf)
        for qkv in found:
            q = hf[f"{theirs}self_attn.q_proj.weight"]
            assert torch.equal(qkv[:32], q[:32])
            assert torch.equal(qkv[32:64], q[32:64] if swift else q[64:96])
            assert torch.equal(qkv[320:352], q[256:288])
    norms = [t for n, t in made.items() if n.endswith(".layers.0.self_attention.out_norm.weight")]
    assert len(norms) == (not name.startswith(("slime", "ms-swift-hf", "ms-swift-text")))
    assert all(
        torch.equal(t.float() + (not swift), hf[f"{prefix}layers.0.linear_attn.norm.weight"].float()) for t in norms
    )


def test_experts_of_the_head_come_out_alike_from_either_form() -> None:
    assert saved("mbridge", MOE_VL, packed_mtp=True) == saved("mbridge", MOE_VL)


def test_without_a_head_there_is_none() -> None:
    config = tiny_config(VL)
    hf = {n: t for n, t in tiny_weights(shapes(config)).items() if not n.startswith("mtp.")}
    names = saved_names("roll", config, hf).keys()
    assert EXPECTED["roll", VL].keys() - names == {n for n in EXPECTED["roll", VL] if n.startswith("mtp.")}
    assert names <= EXPECTED["roll", VL].keys()


def test_tied_there_is_no_output_layer() -> None:
    config = tiny_config("qwen3", tied=True)
    names = saved_names("megatron-lm", config, tiny_weights(shapes(config))).keys()
    assert EXPECTED["megatron-lm", "qwen3"].keys() - names == {"output_layer.weight"}


@pytest.mark.parametrize(
    ("by", "folder", "files", "states"),
    [
        ("Megatron-LM", "iter_0000020", {"latest_checkpointed_iteration.txt"}, True),
        ("mbridge", "global_step_5/dist_ckpt", set(), False),
        ("ms-swift", "iter_0000100", {"latest_checkpointed_iteration.txt", "args.json"}, False),
        ("Pai-Megatron-Patch", "release", {"latest_checkpointed_iteration.txt"}, True),
        ("ROLL", "iter_0000001/dist_model", {"mca_config.json"}, False),
    ],
)
def test_several_trainers_save_bare_names(tmp_path: Path, by: str, folder: str, files: set[str], states: bool) -> None:
    config = tiny_config("qwen3_5_moe_text")
    hf = tiny_weights(shapes(config))
    place = write(tmp_path, "megatron-lm", config, hf, by=by)
    assert place == tmp_path / folder
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == files
    state = {n: t for n, t in dcp.load(place).items() if isinstance(t, torch.Tensor) and not n.startswith("optimizer.")}
    assert {n: tuple(t.shape) for n, t in state.items()} == EXPECTED["megatron-lm", "qwen3_5_moe_text"]
    common = torch.load(place / "common.pt", weights_only=False)
    assert ("args" in common) is states
    if states:
        said = vars(common["args"])
        assert (said["linear_num_value_heads"], said["moe_shared_expert_intermediate_size"]) == (8, 40)
        assert (said["rotary_base"], said["ffn_hidden_size"], said["mtp_num_layers"]) == (10000000, None, 1)


def test_all_places_are_tried() -> None:
    assert PLACES["megatron-lm"].keys() == {"Megatron-LM", "mbridge", "ms-swift", "Pai-Megatron-Patch", "ROLL"}
