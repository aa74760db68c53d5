"""What config.json says against what a checkpoint says of itself."""

from __future__ import annotations

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
    ],
)
def test_a_missing_fact_is_named(kind, changes, path):
    with pytest.raises(CorruptError, match=rf"config.json: {path} is missing"):
        facts(kind, **changes)
