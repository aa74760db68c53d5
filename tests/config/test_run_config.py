"""run_config.yaml: Megatron-Bridge makes the same provider of it as of the model's config.json."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import megatron_bridge
import pytest
import torch
import yaml
from tiny import tiny_config
from transformers import AutoConfig

from vlconv.converters.config.facts import geometry_facts, runtime_facts
from vlconv.converters.config.made_config import made_config, release_runtime
from vlconv.converters.config.megatron_args import contradictions, stated
from vlconv.converters.config.run_config import run_config_yaml
from vlconv.converters.errors import UnsupportedError
from vlconv.converters.models import RELEASES as ALL
from vlconv.converters.models import model_for

CONFIGS = Path(__file__).parents[1] / "fixtures" / "configs"
RELEASES = sorted(path.stem for path in CONFIGS.iterdir())
KINDS = ("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl")


def release(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / f"{name}.json").read_text())


def written(hf: dict[str, Any], dtype: str = "bfloat16") -> bytes:
    return run_config_yaml(hf, model_for(hf).config(hf), dtype)


def built(folder: Path, data: bytes) -> SimpleNamespace:
    (folder / "run_config.yaml").write_bytes(data)
    return megatron_bridge.provider(folder)


@pytest.mark.parametrize("name", megatron_bridge.VALUES)
def test_the_provider_is_megatron_bridges_own(tmp_path: Path, name: str) -> None:
    provider = built(tmp_path, written(release(name)))
    theirs = dict(megatron_bridge.VALUES[name])
    assert provider.activation_func.__name__ == theirs.pop("activation_func")
    assert str(provider.params_dtype) == theirs.pop("params_dtype")
    assert {field: getattr(provider, field, "missing") for field in theirs} == theirs


@pytest.mark.versions
@pytest.mark.parametrize("name", RELEASES)
def test_the_sections_are_transformers_own(tmp_path: Path, name: str) -> None:
    """from_dict of what is written gives what transformers makes of the release's config.json."""
    hf = release(name)
    provider = built(tmp_path, written(hf))
    (tmp_path / "config.json").write_text(json.dumps(hf))
    theirs = AutoConfig.from_pretrained(tmp_path)
    sections = {"vision_config": theirs.vision_config}
    if "text_config" in hf:
        sections["hf_text_config"] = theirs.text_config
    assert {name for name in ("vision_config", "hf_text_config") if hasattr(provider, name)} == sections.keys()
    for place, section in sections.items():
        ours = getattr(provider, place)
        assert type(ours) is type(section)
        assert settled(ours) == settled(section)
        assert ours.to_dict()["dtype"] in ("bfloat16", torch.bfloat16)


def settled(section: Any) -> dict[str, Any]:
    """A section without its dtype and kind, and without the tie, of which transformers 5 has a wrong one there."""
    said = section.to_dict()
    elsewhere = ("dtype", "torch_dtype", "tie_word_embeddings", "model_type", "transformers_version", "_name_or_path")
    return {key: value for key, value in said.items() if key not in elsewhere}


@pytest.mark.parametrize("name", RELEASES)
def test_it_says_what_config_json_says(name: str) -> None:
    """As mcore2hf and verify read it: nothing contradicts the reference, and no fact that they ask for is left out."""
    hf = release(name)
    config = model_for(hf).config(hf)
    facts = geometry_facts(hf, config) | runtime_facts(hf, config)
    section = yaml.safe_load(written(hf))["model"]
    assert contradictions(facts, section) == []
    asked = {name for name, fact in facts.items() if fact.value}
    # Every Qwen-VL has this rope type, and Qwen2.5-VL's releases call the channels in_chans.
    assert asked - stated(section).keys() <= {"rope_type", "vision.channels"}


def test_layers_that_stay_dense(tmp_path: Path) -> None:
    provider = built(tmp_path, written(tiny_config("qwen3_vl_moe", text={"mlp_only_layers": [1, 3]})))
    assert (provider.moe_layer_freq, provider.mlp_only_layers) == ([1, 0, 1, 0], [1, 3])
    assert not hasattr(built(tmp_path, written(tiny_config("qwen3_vl_moe"))), "moe_layer_freq")


@pytest.mark.parametrize(("dtype", "flags"), [("float32", (False, False)), ("float16", (False, True))])
def test_dtypes(tmp_path: Path, dtype: str, flags: tuple[bool, bool]) -> None:
    provider = built(tmp_path, written(tiny_config(), dtype))
    assert (provider.params_dtype, (provider.bf16, provider.fp16)) == (getattr(torch, dtype), flags)
    assert provider.vision_config.to_dict()["dtype"] in (dtype, getattr(torch, dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_for_the_same_model(kind: str) -> None:
    """Also from a config.json that transformers 5 wrote, or that tells where it once lay."""
    hf = tiny_config(kind)
    later = copy.deepcopy(hf)
    text = later.get("text_config", later)
    text["rope_parameters"] = text.pop("rope_scaling") | {"rope_theta": text.pop("rope_theta")}
    if "num_experts" in text:
        text["num_local_experts"] = text.pop("num_experts")
    for section in (later, text, later["vision_config"]):
        section |= {"_name_or_path": "/data/mine", "transformers_version": "5.9.0"}
    assert written(later) == written(dict(reversed(hf.items())))
    assert b"/data" not in written(later)


def test_plain_yaml() -> None:
    """No anchors, no tags, no absolute paths."""
    for name in RELEASES:
        text = written(release(name)).decode()
        assert not {"&", "*", "!"} & set(text)
        assert "/" not in text


def test_another_activation_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"text_config.hidden_act is gelu"):
        written(tiny_config(text={"hidden_act": "gelu"}))


def test_what_would_not_be_read_back_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"a run_config.yaml of 1\.\d+ MB; at most 1.00 MB"):
        written(tiny_config(vision={"more": [1] * 100_000}))


GATED_DELTA_NET = {
    "attention_output_gate",
    "experimental_attention_variant",
    "linear_attention_freq",
    "linear_conv_kernel_dim",
    "linear_key_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_value_head_dim",
}
TOWER = {"image_token_id", "video_token_id", "vision_config", "vision_end_token_id", "vision_start_token_id"}
SINCE_0_4 = {
    "megatron.bridge.models.GPTModelProvider": {*GATED_DELTA_NET, "moe_shared_expert_gate"},
    "megatron.bridge.models.qwen_vl.Qwen35VLModelProvider": GATED_DELTA_NET | TOWER,
    "megatron.bridge.models.qwen_vl.Qwen35VLMoEModelProvider": GATED_DELTA_NET | TOWER | {"moe_shared_expert_gate"},
}
"""Fields that these classes have in Megatron-Bridge 0.4.2 to 0.7, besides those that all have since 0.2."""

NEW = [r for r in ALL if "-VL-" not in r.name]


def section_of(name: str) -> dict[str, Any]:
    found = next(r for r in ALL if r.name == name)
    hf = made_config(found.config, {"rms_norm_eps": 1e-6, "rope_theta": 1000000, **release_runtime(found)})
    section: dict[str, Any] = yaml.safe_load(written(hf))["model"]
    return section


@pytest.mark.parametrize("name", [r.name for r in NEW])
def test_no_field_is_unknown_to_the_provider(name: str) -> None:
    section = section_of(name)
    known = {*megatron_bridge.FIXTURE["fields"]["all"], *SINCE_0_4[section.pop("_target_")]}
    assert section.keys() <= known
    assert ("vision_config" in section) == ("vision_start_token_id" in section) == name.startswith("Qwen3.5")


@pytest.mark.parametrize("name", [r.name for r in NEW])
def test_it_says_all_of_what_has_no_tower(name: str) -> None:
    found = next(r for r in ALL if r.name == name)
    hf = made_config(found.config, {"rms_norm_eps": 1e-6, "rope_theta": 1000000, **release_runtime(found)})
    facts = geometry_facts(hf, found.config) | runtime_facts(hf, found.config)
    section = section_of(name)
    assert contradictions(facts, section) == []
    asked = {name for name, fact in facts.items() if fact.value}
    assert asked - stated(section).keys() <= {"rope_type", *({"mrope_section"} if not found.config.vision else ())}


DENSE = {
    "_target_": "megatron.bridge.models.GPTModelProvider",
    "position_embedding_type": "rope",
    "num_layers": 28,
    "kv_channels": 128,
    "qk_layernorm": True,
    "add_qkv_bias": False,
    "share_embeddings_and_output_weights": True,
    "seq_length": 40960,
    "rotary_base": 1000000,
}
NEXT = {
    "_target_": "megatron.bridge.models.GPTModelProvider",
    "transformer_layer_spec": {
        "_call_": False,
        "_target_": "megatron.core.models.gpt.experimental_attention_variant_module_specs"
        ".get_transformer_block_with_experimental_attention_variant_spec",
    },
    "hetereogenous_dist_checkpoint": True,
    "experimental_attention_variant": "gated_delta_net",
    "linear_attention_freq": [1, 1, 1, 0] * 12,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "attention_output_gate": True,
    "layernorm_zero_centered_gamma": True,
    "rotary_percent": 0.25,
    "num_moe_experts": 512,
    "moe_router_topk": 10,
    "moe_shared_expert_intermediate_size": 512,
    "moe_shared_expert_gate": True,
    "moe_router_load_balancing_type": "global_aux_loss",
    "moe_router_dtype": "fp32",
    "moe_token_dispatcher_type": "alltoall",
    "mtp_num_layers": None,
}
VL = {
    "_target_": "megatron.bridge.models.qwen_vl.Qwen35VLModelProvider",
    "position_embedding_type": "mrope",
    "mrope_section": [11, 11, 10],
    "rotary_percent": 0.25,
    "rotary_base": 10000000,
    "linear_num_value_heads": 48,
    "linear_attention_freq": [1, 1, 1, 0] * 16,
    "mtp_num_layers": 1,
    "image_token_id": 248056,
}


@pytest.mark.parametrize(("name", "theirs"), [("Qwen3-0.6B", DENSE), ("Qwen3-Next-80B-A3B", NEXT), ("Qwen3.5-27B", VL)])
def test_what_megatron_bridge_makes_of_a_release(name: str, theirs: dict[str, Any]) -> None:
    """As its bridges set it, read in 0.4.2 to 0.7."""
    section = section_of(name)
    assert {field: section.get(field, "missing") for field in theirs} == theirs
    assert ("transformer_layer_spec" in section) == (name == "Qwen3-Next-80B-A3B")


def test_the_function_that_lays_out_the_layers_is_megatron_cores() -> None:
    target = section_of("Qwen3-Next-80B-A3B")["transformer_layer_spec"]["_target_"]
    assert callable(megatron_bridge.located(target))


def test_a_scaled_rope_of_text_alone_is_refused() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0}
    with pytest.raises(UnsupportedError, match=r"config.json: rope_scaling.rope_type is yarn"):
        written(tiny_config("qwen3", text={"rope_scaling": yarn}))
