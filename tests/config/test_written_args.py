"""The args in a checkpoint that we write, as Megatron-LM's --use-checkpoint-args takes them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcore.tiny import tiny, tiny_2_5
from references import reference_config
from tiny import tiny_config

from vlconv.converters.config.facts import geometry_facts, runtime_facts
from vlconv.converters.config.megatron_args import contradictions, stated
from vlconv.converters.config.written_args import args_to_write
from vlconv.converters.formats.pickles.plain_pickle import plain_pickle
from vlconv.converters.formats.pickles.sandbox import plain_dict
from vlconv.converters.formats.zips.items import saved
from vlconv.converters.formats.zips.torch_save import read_torch_save
from vlconv.converters.models import model_for
from vlconv.converters.models.shared.config import ModelConfig
from vlconv.converters.tensors.sharding import Topology

CONFIGS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "mixed": tiny(moe=True, dense_layers=[1]),
    "2.5": tiny_2_5(),
}

GPT: dict[str, Any] = {
    "num_layers": None,
    "hidden_size": None,
    "ffn_hidden_size": None,
    "num_attention_heads": None,
    "num_query_groups": 1,
    "group_query_attention": False,
    "kv_channels": None,
    "max_position_embeddings": None,
    "position_embedding_type": "learned_absolute",
    "add_position_embedding": True,
    "use_rotary_position_embeddings": False,
    "rotary_base": 10000,
    "rotary_percent": 1.0,
    "rotary_interleaved": False,
    "add_bias_linear": True,
    "add_qkv_bias": False,
    "squared_relu": False,
    "swiglu": False,
    "untie_embeddings_and_output_weights": False,
    "apply_layernorm_1p": False,
    "normalization": "LayerNorm",
    "attention_dropout": 0.1,
    "hidden_dropout": 0.1,
    "num_experts": None,
    "moe_layer_freq": 1,
    "moe_ffn_hidden_size": None,
    "moe_router_topk": 2,
    "moe_router_pre_softmax": False,
    "moe_grouped_gemm": False,
    "moe_shared_expert_intermediate_size": None,
    "moe_router_score_function": "softmax",
    "moe_router_enable_expert_bias": False,
    "moe_router_topk_scaling_factor": None,
    "padded_vocab_size": None,
    "tensor_model_parallel_size": 1,
    "pipeline_model_parallel_size": 1,
    "virtual_pipeline_model_parallel_size": None,
    "expert_model_parallel_size": 1,
}
"""What a trainer starts with that is told nothing: the defaults of Megatron-LM's command line, for the args it asks a
checkpoint for.
"""


def use_checkpoint_args(saved: argparse.Namespace) -> dict[str, Any]:
    """Megatron-LM's load_args_from_checkpoint, restated: what is there and not None replaces the trainer's."""
    return {name: default if (value := getattr(saved, name, None)) is None else value for name, default in GPT.items()}


def written(config: ModelConfig, hf_config: dict[str, Any] | None = None, **other: Any) -> argparse.Namespace:
    options = {"rows": 256, "divisor": 128, "dtype": "bfloat16", "grouped_experts": True, **other}
    topology = options.pop("topology", Topology(tp=2, pp=2))
    return argparse.Namespace(**args_to_write(hf_config or reference_config(config), config, topology, **options))


LAYERS = {
    "num_layers": 4,
    "hidden_size": 64,
    "ffn_hidden_size": 96,
    "num_attention_heads": 8,
    "num_query_groups": 4,
    "group_query_attention": True,
    "kv_channels": 16,
    "max_position_embeddings": 4096,
    "position_embedding_type": "mrope",
    "rotary_base": 5000000,
    "add_bias_linear": False,
    "swiglu": True,
    "untie_embeddings_and_output_weights": True,
    "normalization": "RMSNorm",
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "padded_vocab_size": 256,
    "tensor_model_parallel_size": 2,
    "pipeline_model_parallel_size": 2,
}
EXPERTS = {"num_experts": 4, "moe_ffn_hidden_size": 24, "moe_grouped_gemm": True}


def of(kind: str, **changes: Any) -> argparse.Namespace:
    """The args of a tiny model."""
    hf_config = tiny_config(kind, **changes)
    return written(model_for(hf_config).config(hf_config), hf_config)


HYBRID = {
    "experimental_attention_variant": "gated_delta_net",
    "linear_attention_freq": [1, 1, 1, 0],
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "attention_output_gate": True,
    "apply_layernorm_1p": True,
    "rotary_percent": 0.25,
    "rotary_base": 10000000,
}
SHARED = {"moe_shared_expert_intermediate_size": 40, "moe_shared_expert_gate": True, "moe_router_pre_softmax": False}


class TestWithoutATower:
    @pytest.mark.parametrize("kind", ["qwen3", "qwen3_moe", "qwen2"])
    def test_an_ordinary_decoder(self, kind: str) -> None:
        args = vars(of(kind))
        assert args["position_embedding_type"] == "rope"
        assert (args["mrope_section"], args["rotary_percent"]) == (None, 1.0)
        assert args["add_qkv_bias"] is (kind == "qwen2")
        others = {*HYBRID, *SHARED, "mtp_num_layers"}
        assert args.keys() & others <= {"rotary_percent", "rotary_base", "moe_router_pre_softmax"}

    @pytest.mark.parametrize(
        ("kind", "also"),
        [
            ("qwen3_5", {"position_embedding_type": "mrope", "mtp_num_layers": 1, "mrope_section": [2, 1, 1]}),
            ("qwen3_5_text", {"position_embedding_type": "rope", "mtp_num_layers": 1}),
            ("qwen3_5_moe", {"position_embedding_type": "mrope", "mtp_num_layers": 1} | SHARED),
            ("qwen3_next", {"position_embedding_type": "rope", "mtp_num_layers": None} | SHARED),
        ],
    )
    def test_a_hybrid(self, kind: str, also: dict[str, Any]) -> None:
        args = vars(of(kind))
        assert {name: args.get(name, "missing") for name in HYBRID | also} == HYBRID | also

    def test_a_scaled_rope_has_no_word(self) -> None:
        assert of("qwen3", text={"rope_scaling": {"type": "yarn", "factor": 4.0}}).position_embedding_type is None

    def test_a_tower_that_is_not_there(self) -> None:
        hf_config = tiny_config("qwen3_5")
        config = replace(model_for(hf_config).config(hf_config), vision=None)
        assert written(config, hf_config).position_embedding_type == "rope"

    @pytest.mark.parametrize("kind", ["qwen3", "qwen3_moe", "qwen2", "qwen3_next", "qwen3_5_moe", "qwen3_5_text"])
    def test_read_back(self, kind: str) -> None:
        hf_config = tiny_config(kind)
        config = model_for(hf_config).config(hf_config)
        facts = runtime_facts(hf_config, config) | geometry_facts(hf_config, config)
        args = vars(of(kind))
        assert contradictions(facts, args) == []
        said = stated(args).keys()
        assert {n for n in facts if not n.startswith("vision.") and facts[n].value} - said <= {"rope_type"}


class TestUsedByTheTrainer:
    @pytest.mark.parametrize(
        ("name", "differs"),
        [
            ("dense", {}),
            ("tied", {"untie_embeddings_and_output_weights": False}),
            ("moe", EXPERTS),
            ("mixed", {**EXPERTS, "moe_layer_freq": [1, 0, 1, 1]}),
            ("2.5", {"kv_channels": 8, "add_qkv_bias": True}),
        ],
    )
    def test_a_trainer_that_is_told_nothing_builds_the_model(self, name: str, differs: dict[str, Any]) -> None:
        assert use_checkpoint_args(written(CONFIGS[name])) == GPT | LAYERS | differs

    @pytest.mark.parametrize(("name", "norm"), [("dense", True), ("moe", True), ("2.5", False)])
    def test_query_and_key_norms(self, name: str, norm: bool) -> None:
        assert written(CONFIGS[name]).qk_layernorm is norm

    def test_experts_in_modules_of_their_own(self) -> None:
        assert use_checkpoint_args(written(tiny(moe=True), grouped_experts=False))["moe_grouped_gemm"] is False

    def test_nothing_is_said_of_experts_where_there_are_none(self) -> None:
        args = vars(written(tiny()))
        assert args["num_experts"] is None
        assert not [name for name in args if name.startswith("moe_")]


class TestWhatTheConfigDoesNotSay:
    """Is not stated, so that the trainer's own word stands."""

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"hidden_act": "gelu"}, "swiglu"),
            ({"hidden_act": None}, "swiglu"),
            ({"attention_dropout": None}, "attention_dropout"),
            ({"max_position_embeddings": None}, "max_position_embeddings"),
            ({"norm_topk_prob": False}, "moe_router_pre_softmax"),
            ({"norm_topk_prob": None}, "moe_router_pre_softmax"),
            (
                {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mrope_section": [4, 2, 2]}},
                "position_embedding_type",
            ),
        ],
        ids=str,
    )
    def test_none(self, change: dict[str, Any], name: str) -> None:
        hf_config = reference_config(tiny(moe=True))
        assert getattr(written(tiny(moe=True), hf_config), name) is not None
        hf_config["text_config"] |= change
        assert getattr(written(tiny(moe=True), hf_config), name) is None

    def test_a_part_of_a_head_is_rotated(self) -> None:
        hf_config = reference_config(tiny())
        hf_config["text_config"]["partial_rotary_factor"] = 0.5
        assert written(tiny(), hf_config).rotary_percent == 0.5


@pytest.mark.parametrize("name", CONFIGS)
def test_read_back_they_agree_with_the_config(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    hf_config, args = reference_config(config), written(config)
    (tmp_path / "f").write_bytes(saved(plain_pickle({"args": args})))
    found = plain_dict(read_torch_save(tmp_path / "f").tree["args"])
    assert found == {**vars(args), "params_dtype": "bfloat16"}
    facts = runtime_facts(hf_config, config) | geometry_facts(hf_config, config)
    assert contradictions(facts, found) == []
