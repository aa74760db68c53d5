"""How tensors are cut among ranks: what the rules by name take for granted. The cuts themselves are held against
megatron-core in tests/formats/legacy.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from handmade import TEXT

from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.layouts.shared.splits import split_of
from vlconv.converters.models import MODELS
from vlconv.converters.tensors.sharding import REPLICATED, Split


def test_no_model_has_deepstack_mergers_and_gated_vision_blocks() -> None:
    """MindSpeed-MM keeps the mergers inside the blocks; there `.layers.` and `.linear_fc1.` alone would not tell them
    apart.
    """
    assert not [kind for kind, model in MODELS.items() if model.traits.deepstack and model.traits.gated_vision_mlp]


ROWS, COLUMNS, GATED = Split(axis=0), Split(axis=1), Split(axis=0, sections=(1, 1))
IN_PROJ, CONV1D = Split(axis=0, sections=(8, 8, 24, 24, 8, 8)), Split(axis=0, sections=(8, 8, 24))
CORE = {
    "in_proj.weight": IN_PROJ,
    "in_proj.bias": IN_PROJ,
    "in_proj.layer_norm_weight": REPLICATED,
    "conv1d.weight": CONV1D,
    "A_log": ROWS,
    "dt_bias": ROWS,
    "out_norm.weight": REPLICATED,
    "out_proj.weight": COLUMNS,
    "linear_qkv.weight": ROWS,
    "linear_proj.weight": COLUMNS,
}
GROUPED = CORE | {
    "in_proj.weight": ROWS,
    "in_proj.bias": ROWS,
    "in_proj_qkvz.weight": ROWS,
    "in_proj_ba.weight": ROWS,
    "conv1d.weight": ROWS,
}
MODULE = ("in_proj_qkv.weight", "in_proj_z.weight", "in_proj_b.weight", "in_proj_a.weight", "conv1d.weight")
MODULE += ("A_log", "dt_bias", "norm.weight", "out_proj.weight")
WHOLE = {name: REPLICATED for inner in MODULE for name in (inner, f"linear_attn.{inner}")}
WHOLE |= {name: CORE[name] for name in ("linear_qkv.weight", "linear_proj.weight")}

KINDS = [
    *(("core", f"decoder.layers.2.self_attention.{name}", split) for name, split in CORE.items()),
    *(("grouped", f"decoder.layers.2.self_attention.{name}", split) for name, split in GROUPED.items()),
    *(("replicated", f"decoder.layers.2.self_attention.{name}", split) for name, split in WHOLE.items()),
    ("core", "decoder.layers.2.mlp.shared_experts.linear_fc1.weight", GATED),
    ("core", "decoder.layers.2.mlp.shared_experts.linear_fc2.weight", COLUMNS),
    ("core", "decoder.layers.2.mlp.shared_experts.gate_weight", REPLICATED),
    ("core", "mtp.layers.0.enorm.weight", REPLICATED),
    ("core", "mtp.layers.0.hnorm.weight", REPLICATED),
    ("core", "mtp.layers.0.final_layernorm.weight", REPLICATED),
    ("core", "mtp.layers.0.eh_proj.weight", ROWS),
    ("core", "mtp.layers.0.transformer_layer.mlp.linear_fc1.weight", GATED),
    ("core", "mtp.layers.0.mtp_model_layer.self_attention.linear_proj.weight", COLUMNS),
    (
        "core",
        "mtp.layers.0.mtp_model_layer.mlp.experts.experts.linear_fc1.weight",
        Split(axis=0, sections=(1, 1), expert=True),
    ),
]


@pytest.mark.parametrize(("kind", "name", "split"), KINDS)
@pytest.mark.parametrize("prefix", ["language_model.", ""])
@pytest.mark.parametrize("tower", ["vision_model.", ""])
def test_gated_delta_nets_and_heads(kind, name, split, prefix, tower):
    layout = replace(LAYOUTS["mbridge"], gdn=kind, tower=tower)
    assert split_of(prefix + name, layout, MODELS["qwen3_vl"].traits, TEXT) == split


def test_sections_hang_on_the_config():
    """Without one the split is good for shapes, as is that of a model without such layers."""
    layout, traits = LAYOUTS["mbridge"], MODELS["qwen3_vl"].traits
    for text in (None, replace(TEXT, key_heads=0)):
        assert split_of("decoder.layers.0.self_attention.in_proj.weight", layout, traits, text) == ROWS


def test_a_module_of_hugging_face_is_cut_by_nobody():
    """Its names in a plain checkpoint end as megatron-core's do."""
    layout, traits = LAYOUTS["hf"], MODELS["qwen3_vl"].traits
    for name in ("conv1d.weight", "out_proj.weight", "A_log"):
        assert split_of(f"language_model.layers.0.linear_attn.{name}", layout, traits, TEXT) == REPLICATED
