"""What config.json says against what a checkpoint says of itself."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny import tiny_config

from vlconv.converters.config.facts import geometry_facts, runtime_facts
from vlconv.converters.config.megatron_args import contradictions, stated
from vlconv.converters.errors import CorruptError
from vlconv.converters.models import model_for

ARGS = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "group_query_attention": True,
    "num_query_groups": 4,
    "kv_channels": 16,
    "ffn_hidden_size": 96,
    "vocab_size": None,
    "padded_vocab_size": 384,
    "rotary_base": 5000000,
    "norm_epsilon": 1e-6,
    "mrope_section": [4, 2, 2],
    "untie_embeddings_and_output_weights": True,
    "num_experts": None,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": None,
    "moe_layer_freq": 1,
    "bf16": True,
}
"""Megatron-LM's, of the tiny dense model."""

BRIDGE = {
    "num_layers": 4,
    "num_moe_experts": 4,
    "moe_ffn_hidden_size": 24,
    "moe_router_topk": 2,
    "moe_layer_freq": [1, 1, 1, 1],
    "ffn_hidden_size": 24,
    "layernorm_epsilon": "1e-06",
    "rotary_base": 5000000.0,
    "share_embeddings_and_output_weights": False,
    "vision_config": {
        "depth": 4,
        "num_heads": 4,
        "deepstack_visual_indexes": [0, 2],
        "hidden_act": "gelu_pytorch_tanh",
    },
}
"""run_config.yaml's `model:` of the tiny MoE one.

All layers have experts, so that the dense FFN width describes nothing.
"""


def facts(kind="qwen3_vl", **changes):
    hf_config = tiny_config(kind, **changes)
    config = model_for(hf_config).config(hf_config)
    return geometry_facts(hf_config, config) | runtime_facts(hf_config, config)


def test_what_no_shape_shows():
    hf_config = tiny_config("qwen3_vl_moe")
    found = {
        fact.place: fact.value for fact in runtime_facts(hf_config, model_for(hf_config).config(hf_config)).values()
    }
    assert found == {
        "text_config.rope_theta": 5000000,
        "text_config.rope_scaling.rope_type": "default",
        "text_config.rope_scaling.mrope_section": [4, 2, 2],
        "text_config.rms_norm_eps": 1e-6,
        "text_config.num_experts_per_tok": 2,
        "tie_word_embeddings": False,
        "vision_config.num_heads": 4,
        "vision_config.deepstack_visual_indexes": [0, 2],
    }


def test_what_no_shape_shows_of_qwen2_5():
    found = facts("qwen2_5_vl")
    assert found["heads"] == (8, "num_attention_heads")
    assert found["vision.window_size"] == (16, "vision_config.window_size")
    assert found["vision.fullatt_block_indexes"] == ([1, 3], "vision_config.fullatt_block_indexes")
    assert found["rope_type"].value == "default"


@pytest.mark.parametrize(
    ("kind", "args"),
    [("qwen3_vl", ARGS), ("qwen3_vl_moe", BRIDGE), ("qwen3_vl", {}), ("qwen3_vl", dict.fromkeys(ARGS))],
)
def test_agreement(kind, args):
    assert contradictions(facts(kind), args) == []


@pytest.mark.parametrize(
    ("name", "value", "field", "theirs"),
    [
        ("num_layers", 5, "text_config.num_hidden_layers", 5),
        ("hidden_size", 65, "text_config.hidden_size", 65),
        ("num_attention_heads", 16, "text_config.num_attention_heads", 16),
        ("num_query_groups", 8, "text_config.num_key_value_heads", 8),
        ("kv_channels", 8, "text_config.head_dim", 8),
        ("ffn_hidden_size", 97, "text_config.intermediate_size", 97),
        ("vocab_size", 301, "text_config.vocab_size", 301),
        ("rotary_base", 10000, "text_config.rope_theta", 10000),
        ("norm_epsilon", 1e-5, "text_config.rms_norm_eps", 1e-5),
        ("mrope_section", [2, 4, 2], "text_config.rope_scaling.mrope_section", [2, 4, 2]),
        ("untie_embeddings_and_output_weights", False, "tie_word_embeddings", True),
        ("num_experts", 4, "text_config.num_experts", 4),
    ],
)
def test_each_contradiction_of_args(name, value, field, theirs):
    found = contradictions(facts(), ARGS | {name: value})
    assert [(c.ours.place, c.theirs.place, c.theirs.value) for c in found] == [(field, name, theirs)]
    assert field in str(found[0])
    assert name in str(found[0])


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("num_moe_experts", 8, "text_config.num_experts"),
        ("moe_ffn_hidden_size", 48, "text_config.moe_intermediate_size"),
        ("moe_router_topk", 1, "text_config.num_experts_per_tok"),
        ("moe_layer_freq", [0, 1, 1, 1], "text_config.mlp_only_layers"),
        ("moe_layer_freq", 2, "text_config.mlp_only_layers"),
        ("layernorm_epsilon", "1e-05", "text_config.rms_norm_eps"),
        ("share_embeddings_and_output_weights", True, "tie_word_embeddings"),
        ("tie_embeddings_and_output_weights", False, None),
        ("vision_config", {"num_heads": 8}, "vision_config.num_heads"),
        ("vision_config", {"deepstack_visual_indexes": [0, 3]}, "vision_config.deepstack_visual_indexes"),
    ],
)
def test_each_contradiction_of_a_run_config(name, value, field):
    assert [c.ours.place for c in contradictions(facts("qwen3_vl_moe"), BRIDGE | {name: value})] == (
        [field] if field else []
    )


HYBRID = {
    "num_layers": 4,
    "num_attention_heads": 8,
    "num_query_groups": 2,
    "kv_channels": 32,
    "linear_attention_freq": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "experimental_attention_variant": "gated_delta_net",
    "attention_output_gate": True,
    "apply_layernorm_1p": True,
    "num_experts": 4,
    "moe_shared_expert_intermediate_size": 40,
    "moe_shared_expert_gate": True,
    "moe_router_topk": 2,
    "rotary_percent": 0.25,
    "rotary_base": 10000000,
    "mtp_num_layers": 1,
}
"""Megatron-LM's, of the tiny Qwen3.5 with experts."""

FIVE = ("qwen3_5_moe", "qwen3_5_moe_text")


@pytest.mark.parametrize("kind", FIVE)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"linear_attention_freq": [1, 1, 1, 0]},
        {"linear_attention_freq": None, "linear_num_value_heads": 32, "linear_key_head_dim": 128},
        {"attention_output_gate": False, "apply_layernorm_1p": False},
        {"mtp_num_layers": None},
        {"mtp_num_layers": 0},
    ],
    ids=str,
)
def test_agreement_of_a_hybrid(kind, change):
    """A trainer may train without the head; what it does not use, or has a module of its own for, says nothing."""
    assert contradictions(facts(kind), HYBRID | change) == []


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("linear_attention_freq", 2, "layer_types"),
        ("linear_attention_freq", [1, 0, 1, 0], "layer_types"),
        ("linear_conv_kernel_dim", 3, "linear_conv_kernel_dim"),
        ("linear_key_head_dim", 16, "linear_key_head_dim"),
        ("linear_value_head_dim", 8, "linear_value_head_dim"),
        ("linear_num_key_heads", 2, "linear_num_key_heads"),
        ("linear_num_value_heads", 16, "linear_num_value_heads"),
        ("moe_shared_expert_intermediate_size", 24, "shared_expert_intermediate_size"),
        ("rotary_percent", 1.0, "rope_parameters.partial_rotary_factor"),
        ("rotary_base", 1000000, "rope_parameters.rope_theta"),
    ],
)
def test_each_contradiction_of_a_hybrid(name, value, field):
    for kind, path in zip(FIVE, ("text_config.", ""), strict=True):
        assert [c.ours.place for c in contradictions(facts(kind), HYBRID | {name: value})] == [path + field]


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"linear_attention_freq": 4}, "layer_types"),
        ({"attention_output_gate": True}, "attn_output_gate"),
        ({"apply_layernorm_1p": True}, "model_type (norms about zero)"),
        ({"layernorm_zero_centered_gamma": True}, "model_type (norms about zero)"),
        ({"linear_num_value_heads": 32, "rotary_percent": 0.5, "mtp_num_layers": 1}, None),
    ],
)
def test_a_checkpoint_of_a_hybrid_is_not_an_ordinary_models(args, field):
    said = [str(c) for c in contradictions(facts("qwen3"), {"num_layers": 4} | args)]
    assert len(said) == (field is not None)
    assert all(line.startswith(f"{field} is ") for line in said)


def test_what_no_shape_shows_of_text_alone():
    assert {fact.place: fact.value for fact in runtime("qwen3_moe").values()} == {
        "rope_theta": 1000000,
        "rope_scaling.rope_type": "default",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "num_experts_per_tok": 2,
    }
    assert {fact.place: fact.value for fact in runtime("qwen3_5_text").values()} == {
        "rope_parameters.rope_theta": 10000000,
        "rope_parameters.rope_type": "default",
        "rope_parameters.mrope_section": [2, 1, 1],
        "rope_parameters.partial_rotary_factor": 0.25,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    }
    assert runtime("qwen3_next")["partial_rotary"] == (0.25, "partial_rotary_factor")
    assert runtime("qwen2")["heads"] == (8, "num_attention_heads")


def test_a_scaled_rope_of_text_alone():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    assert runtime("qwen3", text={"rope_scaling": yarn})["rope_type"] == ("yarn", "rope_scaling.rope_type")


def runtime(kind, **changes):
    hf_config = tiny_config(kind, **changes)
    return runtime_facts(hf_config, model_for(hf_config).config(hf_config))


@pytest.mark.parametrize("kind", ["qwen3_vl", "qwen2_5_vl", "qwen3_5_moe"])
def test_a_tower_that_is_not_there_has_no_facts(kind):
    hf_config = tiny_config(kind)
    config = replace(model_for(hf_config).config(hf_config), vision=None)
    found = runtime_facts(hf_config, config) | geometry_facts(hf_config, config)
    assert not [name for name in found if name.startswith("vision.")]
    assert "mrope_section" in found
    assert found == {name: fact for name, fact in facts(kind).items() if not name.startswith("vision.")}


def test_defaults_that_megatron_fills_in_say_nothing():
    assert contradictions(facts(), ARGS | {"group_query_attention": False, "num_query_groups": 1}) == []
    assert "experts_per_token" not in stated(ARGS)
    assert "experts" not in stated({"num_experts": 0})


def test_values_of_unknown_kinds_say_nothing():
    odd = SimpleNamespace()
    assert stated(dict.fromkeys(ARGS, odd)) == {}
    assert (
        stated(
            {
                "num_layers": "four",
                "mrope_section": ["a"],
                "untie_embeddings_and_output_weights": 1,
                "vision_config": odd,
            }
        )
        == {}
    )


def test_every_layer_frequency():
    assert stated({"num_layers": 6, "num_experts": 4, "moe_layer_freq": 3})["dense_layers"].value == [1, 2, 4, 5]
    assert stated({"num_layers": 2, "num_experts": 4, "moe_layer_freq": 1})["dense_layers"].value == []


@pytest.mark.parametrize(
    ("kind", "changes", "path"),
    [
        ("qwen3_vl", {"text": {"rms_norm_eps": None}}, "text_config.rms_norm_eps"),
        ("qwen2_5_vl", {"text": {"rms_norm_eps": None}}, "rms_norm_eps"),
        ("qwen3_vl", {"text": {"rope_scaling": {"rope_type": "default"}}}, "text_config.rope_scaling.mrope_section"),
        ("qwen3_vl_moe", {"text": {"num_experts_per_tok": None}}, "text_config.num_experts_per_tok"),
        ("qwen2_5_vl", {"vision": {"window_size": None}}, "vision_config.window_size"),
        ("qwen3", {"text": {"rms_norm_eps": None}}, "rms_norm_eps"),
        ("qwen3", {"text": {"rope_theta": None}}, "rope_theta"),
        ("qwen3_next", {"text": {"partial_rotary_factor": None}}, "partial_rotary_factor"),
        (
            "qwen3_5",
            {"text": {"rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25}}},
            "text_config.rope_parameters.mrope_section",
        ),
        ("qwen3_5_text", {"text": {"rope_parameters": {"rope_theta": 1e7}}}, "rope_parameters.partial_rotary_factor"),
    ],
)
def test_a_missing_fact_is_named(kind, changes, path):
    with pytest.raises(CorruptError, match=rf"config.json: {path} is missing"):
        facts(kind, **changes)


@pytest.mark.parametrize("value", [0, -0.25, 1.5, True, "0.25", [0.25]])
def test_a_part_that_no_head_has(value):
    rope = {"rope_theta": 1e7, "partial_rotary_factor": value}
    says = r"config.json: rope_parameters.partial_rotary_factor is .*, not a number above 0 and at most 1"
    with pytest.raises(CorruptError, match=says):
        facts("qwen3_5_text", text={"rope_parameters": rope})
